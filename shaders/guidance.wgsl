// Guidance with rescaling: guided = u + g·(c − u), then y = (φ·std(c)/std(guided) + 1 − φ)·guided, std over each image.
//
// Bindings: 0 parameters, 1 model_output [2 · batch, …], u before c, 2 coefficients (g is the first), 3 y [batch, …].
// Launch: one workgroup for each image.
// CPU twin: src/twin/guidance.rs.

const WORKGROUP: u32 = 64u;
const GUIDANCE: u32 = 0u;

struct Parameters {
    // WORKGROUP for each image.
    invocations: u32,
    // Elements of an image.
    image: u32,
    // φ.
    rescale: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> model_output: array<f32>;
@group(0) @binding(2) var<storage, read> coefficients: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<vec2<f32>, WORKGROUP>;

// The sum of `value` over the workgroup.
fn total(lane: u32, value: vec2<f32>) -> vec2<f32> {
    partial[lane] = value;
    workgroupBarrier();
    for (var width = WORKGROUP / 2u; width > 0u; width /= 2u) {
        if lane < width {
            partial[lane] += partial[lane + width];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    // Nobody writes the next sum before all have this one.
    workgroupBarrier();
    return sum;
}

// c and the guided output of an element.
fn outputs(index: u32) -> vec2<f32> {
    let unconditional = model_output[index];
    let conditional = model_output[p.invocations / WORKGROUP * p.image + index];
    return vec2<f32>(conditional, unconditional + coefficients[GUIDANCE] * (conditional - unconditional));
}

@compute @workgroup_size(WORKGROUP)
fn guidance(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let image = id.y * groups.x + id.x;
    if image * WORKGROUP >= p.invocations {
        return;
    }
    let begin = image * p.image;
    var factor = 1.0;
    if p.rescale > 0.0 {
        var sum = vec2<f32>();
        for (var i = lane; i < p.image; i += WORKGROUP) {
            sum += outputs(begin + i);
        }
        let mean = total(lane, sum) / f32(p.image);
        var squares = vec2<f32>();
        for (var i = lane; i < p.image; i += WORKGROUP) {
            let distance = outputs(begin + i) - mean;
            squares += distance * distance;
        }
        let spread = total(lane, squares);
        factor = p.rescale * sqrt(spread.x / spread.y) + (1.0 - p.rescale);
    }
    for (var i = lane; i < p.image; i += WORKGROUP) {
        y[begin + i] = factor * outputs(begin + i).y;
    }
}
