// Weights in workgroup memory as f16, for matrices stored so: nothing is rounded. In front of everything else.
// Twin in interface: full_tiles.wgsl.

enable f16;

alias TileWeight = vec4<f16>;
