// Guidance and the linear update of a solver's step; the terms are those of graph::update.
//
// Bindings: 0 parameters, 1 sample, 2 model_output, 3 noise, 4 history [4, …], 5 coefficients [44], 6 y [6, …]: the new
// sample, x0, and the new history. Launch: one invocation for each element of the sample.
// CPU twin: src/cpu/linear_update.rs.

const WORKGROUP: u32 = 64u;
const HISTORY: u32 = 4u;
const TERMS: u32 = 8u;
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
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read> sample: array<f32>;
@group(0) @binding(2) var<storage, read> model_output: array<f32>;
@group(0) @binding(3) var<storage, read> noise: array<f32>;
@group(0) @binding(4) var<storage, read> history: array<f32>;
@group(0) @binding(5) var<storage, read> coefficients: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

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
    let x0 = clamp(coefficients[X0_SAMPLE] * x + coefficients[X0_OUTPUT] * output, -clip, clip);
    let terms = vec4<f32>(x, output, x0, noise[index]);
    let past = vec4<f32>(
        history[index],
        history[p.invocations + index],
        history[2u * p.invocations + index],
        history[3u * p.invocations + index],
    );
    y[p.invocations + index] = x0;
    for (var row = 0u; row <= HISTORY; row++) {
        let c = ROWS + row * TERMS;
        let now = vec4<f32>(coefficients[c], coefficients[c + 1u], coefficients[c + 2u], coefficients[c + 3u]);
        let then = vec4<f32>(coefficients[c + 4u], coefficients[c + 5u], coefficients[c + 6u], coefficients[c + 7u]);
        // The history follows x0.
        y[select(row + 1u, 0u, row == 0u) * p.invocations + index] = dot(now, terms) + dot(then, past);
    }
}
