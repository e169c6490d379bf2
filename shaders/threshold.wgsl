// Dynamic thresholding: s is the `ratio` quantile of |x| over each image, at least 1 and then at most `max_value`;
// y = clamp(x, −s, s) / s.
//
// Bindings: 0 parameters, 1 x [batch, …], 3 y. Launch: one workgroup for each image.
// The bits of floats that are not negative are in the order of the floats, so the value of a rank is found exactly, bit by bit
// from the highest: the largest number with no more than `rank` values below it.
// CPU twin: src/twin/threshold.rs.

const WORKGROUP: u32 = 64u;
const MAGNITUDE: u32 = 0x7fffffffu;

struct Parameters {
    // WORKGROUP for each image.
    invocations: u32,
    // Elements of an image.
    image: u32,
    ratio: f32,
    max_value: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// Values below a candidate, for each of the 31 bits; then values up to the one found.
var<workgroup> below: array<atomic<u32>, 32>;
// The smallest value above the one found, as the largest complement.
var<workgroup> above: atomic<u32>;

fn magnitude(index: u32) -> u32 {
    return bitcast<u32>(x[index]) & MAGNITUDE;
}

@compute @workgroup_size(WORKGROUP)
fn threshold(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = id.y * groups.x + id.x;
    if image * WORKGROUP >= p.invocations {
        return;
    }
    let begin = image * p.image;
    let rank = p.ratio * f32(p.image - 1u);
    let index = min(u32(rank), p.image - 1u);

    var found = 0u;
    for (var bit = 0u; bit < 31u; bit++) {
        let candidate = found | (1u << (30u - bit));
        var count = 0u;
        for (var i = lane; i < p.image; i += WORKGROUP) {
            count += select(0u, 1u, magnitude(begin + i) < candidate);
        }
        atomicAdd(&below[bit], count);
        workgroupBarrier();
        found = select(found, candidate, atomicLoad(&below[bit]) <= index);
    }
    var count = 0u;
    var complement = 0u;
    for (var i = lane; i < p.image; i += WORKGROUP) {
        let value = magnitude(begin + i);
        count += select(0u, 1u, value <= found);
        complement = max(complement, select(0u, ~value, value > found));
    }
    atomicAdd(&below[31], count);
    atomicMax(&above, complement);
    workgroupBarrier();
    let low = bitcast<f32>(found);
    // The next rank holds the same value, or the smallest one above it; after the last rank comes nothing.
    let next = select(found, ~atomicLoad(&above), atomicLoad(&below[31]) == index + 1u && index + 1u < p.image);
    let quantile = low + (bitcast<f32>(next) - low) * (rank - f32(index));
    let s = min(max(quantile, 1.0), p.max_value);
    for (var i = lane; i < p.image; i += WORKGROUP) {
        // Not clamp, which may turn NaN into a number.
        let value = x[begin + i];
        let floored = select(value, -s, value < -s);
        y[begin + i] = select(floored, s, value > s) / s;
    }
}
