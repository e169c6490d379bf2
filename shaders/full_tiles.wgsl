// Weights in workgroup memory as f32.
// Twin in interface: half_tiles.wgsl.

alias TileWeight = vec4<f32>;
