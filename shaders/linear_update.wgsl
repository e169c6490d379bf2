// Guidance and the linear update of a solver's step; the terms are those of graph::update.
//
// Bindings: 0 parameters, 1 sample, 2 model_output, 3 noise, 4 history [HISTORY, …], 5 coefficients, 6 y [2 + HISTORY, …]: the
// new sample, x0, and the new history, 7 x0 where it is given. Launch: one invocation for each element of the sample.
// CPU twin: src/twin/linear_update.rs.

const WORKGROUP: u32 = 64u;
// graph::update::HISTORY.
override HISTORY: u32 = 5u;
const GUIDANCE: u32 = 0u;
const X0_SAMPLE: u32 = 1u;
const X0_OUTPUT: u32 = 2u;
const CLIP: u32 = 3u;
const ROWS: u32 = 4u;

struct Parameters {
    // Elements of the sample.
    invocations: u32,
    // Whether the model output holds an unconditional half before the conditional one.
    guided: u32,
    // Whether x0 is given.
    given: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> sample: array<f32>;
@group(0) @binding(2) var<storage, read> model_output: array<f32>;
@group(0) @binding(3) var<storage, read> noise: array<f32>;
@group(0) @binding(4) var<storage, read> history: array<f32>;
@group(0) @binding(5) var<storage, read> coefficients: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read> given_x0: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn linear_update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * WORKGROUP + id.x;
    if index >= p.invocations {
        return;
    }
    let x = sample[index];
    var output = model_output[index];
    if p.guided != 0u {
        output += coefficients[GUIDANCE] * (model_output[p.invocations + index] - output);
    }
    let clip = coefficients[CLIP];
    var x0 = clamp(coefficients[X0_SAMPLE] * x + coefficients[X0_OUTPUT] * output, -clip, clip);
    if p.given != 0u {
        x0 = given_x0[index];
    }
    let terms = vec4<f32>(x, output, x0, noise[index]);
    y[p.invocations + index] = x0;
    for (var row = 0u; row <= HISTORY; row++) {
        let c = ROWS + row * (4u + HISTORY);
        let now = vec4<f32>(coefficients[c], coefficients[c + 1u], coefficients[c + 2u], coefficients[c + 3u]);
        var sum = dot(now, terms);
        for (var slot = 0u; slot < HISTORY; slot++) {
            sum += coefficients[c + 4u + slot] * history[slot * p.invocations + index];
        }
        // The history follows x0.
        y[select(row + 1u, 0u, row == 0u) * p.invocations + index] = sum;
    }
}
