/** Finds out what WebGPU does here: in the page that imports this, or in the module worker that is started from it. */
export async function probe() {
  if (!navigator.gpu) return { state: "no navigator.gpu" };
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) return { state: "no adapter" };
  const { vendor, architecture, isFallbackAdapter } = adapter.info;
  const device = await adapter.requestDevice();
  const module = device.createShaderModule({
    code: `
      @group(0) @binding(0) var<storage, read_write> values: array<f32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { values[id.x] = 2.0 * values[id.x] + 1.0; }
    `,
  });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
  const values = Float32Array.from({ length: 256 }, (_, index) => index);
  const buffer = device.createBuffer({
    size: values.byteLength,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
  });
  const readBack = device.createBuffer({
    size: values.byteLength,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });
  device.queue.writeBuffer(buffer, 0, values);
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }] }),
  );
  pass.dispatchWorkgroups(values.length / 64);
  pass.end();
  encoder.copyBufferToBuffer(buffer, 0, readBack, 0, values.byteLength);
  device.queue.submit([encoder.finish()]);
  await readBack.mapAsync(GPUMapMode.READ);
  const computed = new Float32Array(readBack.getMappedRange());
  const isRight = computed.every((value, index) => value === 2 * index + 1);
  device.destroy();
  return { state: isRight ? "computes" : "computes wrongly", vendor, architecture, isFallbackAdapter };
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = async () => self.postMessage(await probe());
}
