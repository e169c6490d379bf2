// Element-wise non-linearities, of which a pipeline has one: software adapters walk through every case of a switch that they meet.
// The arguments of exp are bounded, because WGSL leaves open what an overflow gives.
// CPU twin: src/twin/activation.rs.

// Numbered as in src/gpu/kernels.rs.
override ACTIVATION: u32 = 0u;

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(clamp(-x, vec4<f32>(-80.0), vec4<f32>(80.0))));
}

// Abramowitz & Stegun 7.1.26, within 1.5e-7.
fn erf(x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let polynomial = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return sign(x) * (1.0 - polynomial * exp(max(-x * x, vec4<f32>(-80.0))));
}

fn gelu(x: vec4<f32>) -> vec4<f32> {
    return 0.5 * x * (1.0 + erf(x * 0.7071067811865476));
}

fn activate(x: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        case 1u: {
            return x * sigmoid(x);
        }
        case 2u: {
            return gelu(x);
        }
        case 3u: {
            // (1 + tanh u) / 2 is the sigmoid of 2u.
            return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
        }
        case 4u: {
            return x * sigmoid(1.702 * x);
        }
        case 5u: {
            // tanh(ln(1 + e)) = (e² + 2e) / (e² + 2e + 2); from 20 on it is 1 in f32.
            let e = exp(clamp(x, vec4<f32>(-80.0), vec4<f32>(20.0)));
            let n = e * (e + 2.0);
            return x * (n / (n + 2.0));
        }
        case 6u: {
            // Not max, which would turn NaN into 0.
            return select(x, vec4<f32>(), x <= vec4<f32>());
        }
        case 7u: {
            return 2.0 * sigmoid(2.0 * x) - 1.0;
        }
        case 8u: {
            return exp(clamp(x, vec4<f32>(-80.0), vec4<f32>(80.0)));
        }
        case 9u: {
            return sqrt(x);
        }
        default: {
            return x;
        }
    }
}
