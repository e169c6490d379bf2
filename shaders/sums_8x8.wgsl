// What an invocation of tiled.wgsl adds up: 8 rows × 8 channels. For 16 channels of depth that is 1024 multiply-adds on 64 vectors
// from workgroup memory, 16 on each.
// Twin in interface: sums_8x4.wgsl.

const SUM_QUADS: u32 = 2u;

struct Sums {
    a0: vec4<f32>,
    a1: vec4<f32>,
    a2: vec4<f32>,
    a3: vec4<f32>,
    a4: vec4<f32>,
    a5: vec4<f32>,
    a6: vec4<f32>,
    a7: vec4<f32>,
    b0: vec4<f32>,
    b1: vec4<f32>,
    b2: vec4<f32>,
    b3: vec4<f32>,
    b4: vec4<f32>,
    b5: vec4<f32>,
    b6: vec4<f32>,
    b7: vec4<f32>,
}

// sum + W x, as multiply-adds: a product of matrix and vector would be added to the sum afterwards.
fn added(sum: vec4<f32>, x: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>) -> vec4<f32> {
    return fma(w3, x.wwww, fma(w2, x.zzzz, fma(w1, x.yyyy, fma(w0, x.xxxx, sum))));
}

// Rows come one by one: what is held of the tiles costs registers.
fn add_quad(sums: ptr<function, Sums>, quad: u32, column: u32, row: u32) {
    let slot = row ^ (2u * quad);
    let x0 = tile_x[quad][0][slot];
    let x1 = tile_x[quad][1][slot];
    let aw0 = vec4<f32>(tile_weight[4u * quad][0][column]);
    let aw1 = vec4<f32>(tile_weight[4u * quad + 1u][0][column]);
    let aw2 = vec4<f32>(tile_weight[4u * quad + 2u][0][column]);
    let aw3 = vec4<f32>(tile_weight[4u * quad + 3u][0][column]);
    (*sums).a0 = added((*sums).a0, x0, aw0, aw1, aw2, aw3);
    (*sums).a1 = added((*sums).a1, x1, aw0, aw1, aw2, aw3);
    let bw0 = vec4<f32>(tile_weight[4u * quad][1][column]);
    let bw1 = vec4<f32>(tile_weight[4u * quad + 1u][1][column]);
    let bw2 = vec4<f32>(tile_weight[4u * quad + 2u][1][column]);
    let bw3 = vec4<f32>(tile_weight[4u * quad + 3u][1][column]);
    (*sums).b0 = added((*sums).b0, x0, bw0, bw1, bw2, bw3);
    (*sums).b1 = added((*sums).b1, x1, bw0, bw1, bw2, bw3);
    let x2 = tile_x[quad][2][slot];
    (*sums).a2 = added((*sums).a2, x2, aw0, aw1, aw2, aw3);
    (*sums).b2 = added((*sums).b2, x2, bw0, bw1, bw2, bw3);
    let x3 = tile_x[quad][3][slot];
    (*sums).a3 = added((*sums).a3, x3, aw0, aw1, aw2, aw3);
    (*sums).b3 = added((*sums).b3, x3, bw0, bw1, bw2, bw3);
    let x4 = tile_x[quad][4][slot];
    (*sums).a4 = added((*sums).a4, x4, aw0, aw1, aw2, aw3);
    (*sums).b4 = added((*sums).b4, x4, bw0, bw1, bw2, bw3);
    let x5 = tile_x[quad][5][slot];
    (*sums).a5 = added((*sums).a5, x5, aw0, aw1, aw2, aw3);
    (*sums).b5 = added((*sums).b5, x5, bw0, bw1, bw2, bw3);
    let x6 = tile_x[quad][6][slot];
    (*sums).a6 = added((*sums).a6, x6, aw0, aw1, aw2, aw3);
    (*sums).b6 = added((*sums).b6, x6, bw0, bw1, bw2, bw3);
    let x7 = tile_x[quad][7][slot];
    (*sums).a7 = added((*sums).a7, x7, aw0, aw1, aw2, aw3);
    (*sums).b7 = added((*sums).b7, x7, bw0, bw1, bw2, bw3);
}

// Adds the products of the workgroup's 16 channels of depth.
fn add_products(sums: ptr<function, Sums>, column: u32, row: u32) {
    add_quad(sums, 0u, column, row);
    add_quad(sums, 1u, column, row);
    add_quad(sums, 2u, column, row);
    add_quad(sums, 3u, column, row);
}

fn store_sums(sums: ptr<function, Sums>, row: u32, quad: u32, split: u32) {
    store_sum(row, quad, split, (*sums).a0);
    store_sum(row + 1u * THREADS_Y, quad, split, (*sums).a1);
    store_sum(row + 2u * THREADS_Y, quad, split, (*sums).a2);
    store_sum(row + 3u * THREADS_Y, quad, split, (*sums).a3);
    store_sum(row + 4u * THREADS_Y, quad, split, (*sums).a4);
    store_sum(row + 5u * THREADS_Y, quad, split, (*sums).a5);
    store_sum(row + 6u * THREADS_Y, quad, split, (*sums).a6);
    store_sum(row + 7u * THREADS_Y, quad, split, (*sums).a7);
    store_sum(row, quad + 1u * THREADS_X, split, (*sums).b0);
    store_sum(row + 1u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b1);
    store_sum(row + 2u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b2);
    store_sum(row + 3u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b3);
    store_sum(row + 4u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b4);
    store_sum(row + 5u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b5);
    store_sum(row + 6u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b6);
    store_sum(row + 7u * THREADS_Y, quad + 1u * THREADS_X, split, (*sums).b7);
}
