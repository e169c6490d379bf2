//! Buffers of a device, and parts of them.

use std::cell::Cell;
use std::rc::Rc;

use super::plan::Range;

/// A buffer whose memory is given back when it is freed or dropped; the platform's own waits for a garbage collector.
#[derive(Debug)]
pub struct Buffer {
    buffer: wgpu::Buffer,
    freed: Cell<bool>,
    allocated: Rc<Cell<u64>>,
}

impl Buffer {
    /// A new buffer, counted in `allocated`.
    pub fn new(device: &wgpu::Device, bytes: u64, usage: wgpu::BufferUsages, allocated: &Rc<Cell<u64>>) -> Self {
        let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let buffer = device.create_buffer(&descriptor);
        allocated.set(allocated.get() + bytes);
        Self { buffer, freed: Cell::new(false), allocated: allocated.clone() }
    }

    /// Gives the memory back; what is still queued may use it.
    pub fn free(&self) {
        if !self.freed.replace(true) {
            self.allocated.set(self.allocated.get() - self.buffer.size());
            self.buffer.destroy();
        }
    }

    /// Whether the memory was given back.
    pub fn is_freed(&self) -> bool {
        self.freed.get()
    }
}

impl std::ops::Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.free();
    }
}

/// Memory that a tensor is in.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'b> {
    /// The buffer.
    pub buffer: &'b wgpu::Buffer,
    /// First byte of the tensor.
    pub offset: u64,
    /// Bytes of the tensor.
    bytes: u64,
}

impl<'b> Memory<'b> {
    /// All of a buffer.
    pub fn whole(buffer: &'b Buffer) -> Self {
        Self { buffer, offset: 0, bytes: buffer.size() }
    }

    /// A range of one of `slabs`.
    pub fn range(slabs: &'b [Buffer], Range { slab, offset, bytes }: Range) -> Self {
        Self { buffer: &slabs[slab], offset, bytes }
    }

    /// The memory in the form that a bind group takes.
    pub fn binding(self) -> wgpu::BindingResource<'b> {
        let Self { buffer, offset, bytes } = self;
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(bytes) })
    }
}
