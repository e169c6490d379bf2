// Walking tensors with strides over a box of four axes (fewer are padded with axes of length 1).

struct Parameters {
    // Elements of the box.
    invocations: u32,
    // Which function, for kernels that have several.
    operation: u32,
    // Offsets of the box's first element.
    a_start: u32,
    b_start: u32,
    y_start: u32,
    shape: vec4<u32>,
    a_strides: vec4<u32>,
    b_strides: vec4<u32>,
    y_strides: vec4<u32>,
}

@group(0) @binding(0) var<uniform> p: Parameters;

fn position(index: u32) -> vec4<u32> {
    let plane = index / p.shape.w;
    let volume = plane / p.shape.z;
    return vec4<u32>(volume / p.shape.y, volume % p.shape.y, plane % p.shape.z, index % p.shape.w);
}

fn offset(position: vec4<u32>, strides: vec4<u32>) -> u32 {
    let products = position * strides;
    return products.x + products.y + products.z + products.w;
}
