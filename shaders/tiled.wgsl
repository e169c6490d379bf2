// Convolution plus bias plus residual as an implicit matrix product, tiled in workgroup memory: what real GPUs run. A linear layer
// is a 1×1 convolution of a picture one row high.
//
// Bindings: 0 parameters, 1 x [batch, in_height, in_width, in_channels], 2 weight [kernel_height, kernel_width, in_channels / 4,
// out_channels / 4] blocks, 3 bias [out_channels], 4 residual [rows / rows_per_residual, out_channels], 5 y [splits, rows,
// out_channels] with rows = batch · out_height · out_width.
// Launch: one workgroup for each tile of TILE_ROWS rows × TILE_QUADS · 4 channels and each split of the depth, tiles of the same
// rows side by side. Where there are several splits, split_sum.wgsl adds them up, and bias and residual with them.
// CPU twin: src/twin/convolution.rs.
//
// The depth, kernel taps times input channels, is walked in steps of 16 channels of one tap: a step's x and weights are loaded into
// registers while the step before is multiplied, then handed to the workgroup. Where registers are what an invocation has few of,
// it holds none for the next step (LEAN), and other subgroups multiply while one loads. A border costs a test for each load, none for
// each product. A fragment in front gives the sizes of the tile and multiplies it (sums_*.wgsl), another the entry point (tile_*.wgsl).
//
// Workgroup memory is laid out so that neighbouring invocations touch neighbouring vectors, which are different banks, and so
// that only one index of each access varies: the others are offsets that the compiler knows. Lines of x are stored rotated
// against each other (`lane ^ 2·line`), because what is loaded side by side are four lines of a row.

// Whether a step is loaded when it is needed, and not a step before.
override LEAN: bool;

const THREADS_X: u32 = 8u;
const TILE_ROWS: u32 = 8u * THREADS_Y;
const TILE_QUADS: u32 = THREADS_X * SUM_QUADS;

struct Parameters {
    invocations: u32,
    in_height: u32,
    in_width: u32,
    in_channels: u32,
    out_height: u32,
    out_width: u32,
    out_channels: u32,
    kernel_height: u32,
    kernel_width: u32,
    stride: u32,
    pad_top: u32,
    pad_left: u32,
    has_bias: u32,
    // Consecutive rows that share a row of the residual; 0 if there is none.
    rows_per_residual: u32,
    rows: u32,
    // Steps of the depth that one workgroup walks.
    steps: u32,
    // As in convolution.wgsl.
    upsample: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;

// Four input channels of each row of the tile: [quad of channels][row / THREADS_Y][row % THREADS_Y].
var<workgroup> tile_x: array<array<array<vec4<f32>, THREADS_Y>, 8>, 4>;
// Four output channels for each input channel: [input channel][quad / THREADS_X][quad % THREADS_X].
var<workgroup> tile_weight: array<array<array<TileWeight, THREADS_X>, SUM_QUADS>, 16>;

// Where a row of the product finds its pixels: the picture's first pixel, and the line and column of the first tap. Those may be
// negative, which as a u32 is past every border.
struct Row {
    picture: u32,
    line: u32,
    column: u32,
}

// The rows of which an invocation loads channels.
struct Rows {
    a: Row,
    b: Row,
    c: Row,
    d: Row,
}

fn row_at(index: u32) -> Row {
    // Rows past the last repeat it, and are not stored.
    let row = min(index, p.rows - 1u);
    let picture = row / (p.out_height * p.out_width);
    let line = row / p.out_width % p.out_height;
    let column = row % p.out_width;
    let first = picture * (p.in_height >> p.upsample) * (p.in_width >> p.upsample);
    return Row(first, line * p.stride - p.pad_top, column * p.stride - p.pad_left);
}

fn load_x(row: Row, ky: u32, kx: u32, quad: u32) -> vec4<f32> {
    let line = row.line + ky;
    let column = row.column + kx;
    let valid = line < p.in_height && column < p.in_width && quad < (p.in_channels + 3u) / 4u;
    let stored = (line >> p.upsample) * (p.in_width >> p.upsample) + (column >> p.upsample);
    let pixel = select(0u, row.picture + stored, valid);
    return select(vec4<f32>(), first_quad(start_of(pixel, p.in_channels), select(0u, quad, valid), p.in_channels), valid);
}

// A quad of channels of each of the rows.
fn load_rows(rows: Rows, ky: u32, kx: u32, quad: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        load_x(rows.a, ky, kx, quad),
        load_x(rows.b, ky, kx, quad),
        load_x(rows.c, ky, kx, quad),
        load_x(rows.d, ky, kx, quad),
    );
}

// Past the last input channel x is zero, and any weight will do.
fn load_weight(ky: u32, kx: u32, quad: u32, column: u32) -> mat4x4<f32> {
    let in_quads = (p.in_channels + 3u) / 4u;
    let row = (ky * p.kernel_width + kx) * in_quads + min(quad, in_quads - 1u);
    return weight_block(row, column, (p.out_channels + 3u) / 4u);
}

fn compute_tile(group: u32, lane: u32) {
    let in_quads = (p.in_channels + 3u) / 4u;
    let out_quads = (p.out_channels + 3u) / 4u;
    let steps_per_tap = (in_quads + 3u) / 4u;
    let column_tiles = (out_quads + TILE_QUADS - 1u) / TILE_QUADS;
    let row_tiles = (p.rows + TILE_ROWS - 1u) / TILE_ROWS;
    let tile_quad = group % column_tiles * TILE_QUADS;
    let tile_row = group / column_tiles % row_tiles * TILE_ROWS;
    let split = group / (column_tiles * row_tiles);

    // What this invocation loads: a quad of channels of four rows, and a block of 4 × 4 weights.
    let x_quad = lane % 4u;
    let x_row = lane / 4u;
    let rows = Rows(
        row_at(tile_row + x_row),
        row_at(tile_row + x_row + 2u * THREADS_Y),
        row_at(tile_row + x_row + 4u * THREADS_Y),
        row_at(tile_row + x_row + 6u * THREADS_Y),
    );
    let x_line = x_row / THREADS_Y;
    let x_slot = (x_row % THREADS_Y) ^ (2u * x_quad);
    let loads_weights = lane < 4u * TILE_QUADS;
    let weight_quad = lane / TILE_QUADS % 4u;
    let weight_line = lane % TILE_QUADS / THREADS_X;
    let weight_slot = lane % THREADS_X;
    let weight_column = min(tile_quad + lane % TILE_QUADS, out_quads - 1u);

    var step = split * p.steps;
    let end = min(step + p.steps, p.kernel_height * p.kernel_width * steps_per_tap);
    var quad = step % steps_per_tap * 4u;
    var ky = step / steps_per_tap / p.kernel_width;
    var kx = step / steps_per_tap % p.kernel_width;

    var next_x = mat4x4<f32>();
    var next_weight = mat4x4<f32>();
    if !LEAN {
        next_x = load_rows(rows, ky, kx, quad + x_quad);
        if loads_weights {
            next_weight = load_weight(ky, kx, quad + weight_quad, weight_column);
        }
    }
    var sums = Sums();
    while step < end {
        if LEAN {
            next_x = load_rows(rows, ky, kx, quad + x_quad);
        }
        tile_x[x_quad][x_line][x_slot] = next_x[0];
        tile_x[x_quad][x_line + 2u][x_slot] = next_x[1];
        tile_x[x_quad][x_line + 4u][x_slot] = next_x[2];
        tile_x[x_quad][x_line + 6u][x_slot] = next_x[3];
        if loads_weights {
            if LEAN {
                next_weight = load_weight(ky, kx, quad + weight_quad, weight_column);
            }
            tile_weight[4u * weight_quad][weight_line][weight_slot] = TileWeight(next_weight[0]);
            tile_weight[4u * weight_quad + 1u][weight_line][weight_slot] = TileWeight(next_weight[1]);
            tile_weight[4u * weight_quad + 2u][weight_line][weight_slot] = TileWeight(next_weight[2]);
            tile_weight[4u * weight_quad + 3u][weight_line][weight_slot] = TileWeight(next_weight[3]);
        }
        workgroupBarrier();

        step++;
        quad += 4u;
        if quad >= in_quads {
            quad = 0u;
            kx++;
            if kx == p.kernel_width {
                kx = 0u;
                ky++;
            }
        }
        if !LEAN && step < end {
            next_x = load_rows(rows, ky, kx, quad + x_quad);
            if loads_weights {
                next_weight = load_weight(ky, kx, quad + weight_quad, weight_column);
            }
        }
        add_products(&sums, lane % THREADS_X, lane / THREADS_X);
        workgroupBarrier();
    }
    store_sums(&sums, tile_row + lane / THREADS_X, tile_quad + lane % THREADS_X, split);
}

// Stores a sum, with bias and residual if this kernel adds them.
fn store_sum(row: u32, quad: u32, split: u32, sum: vec4<f32>) {
    if row >= p.rows || quad >= (p.out_channels + 3u) / 4u {
        return;
    }
    var value = sum;
    if p.has_bias != 0u {
        value += bias[quad];
    }
    if p.rows_per_residual != 0u {
        value += second_quad(start_of(row / p.rows_per_residual, p.out_channels), quad, p.out_channels);
    }
    store_quad(start_of(split * p.rows + row, p.out_channels), quad, p.out_channels, value);
}
