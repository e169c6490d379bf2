//! Weights that a program writes.

use super::error::Error;
use super::program::Program;
use super::storage::Storage;
use super::weights::{Stored, Weights};

impl Weights {
    /// Copies an output of `source` to the place of the weight `name`: what is run later, by a program that was compiled with the weight
    /// as it was loaded, sees it.
    ///
    /// # Errors
    /// If there is no such weight or output, if a matrix is not kept as f32 or is merged, if the shapes differ, or if the device is
    /// lost.
    pub async fn store(&self, name: &str, source: &Program, output: &str) -> Result<(), Error> {
        self.device.check()?;
        self.check()?;
        source.check()?;
        let index = self.specs.iter().position(|spec| spec.name == name);
        let index = index.ok_or_else(|| Error::MissingWeight(name.to_owned()))?;
        let (spec, Stored { buffer, storage }) = (&self.specs[index], self.original(index)?);
        let refusal = match spec.mismatch(source.graph(), output)? {
            _ if *storage != Storage::F32 => {
                Some(format!("a matrix of {} takes no new values, one of F32 does", storage.name()))
            }
            _ if self.merged.borrow()[index].is_some() => Some("it has additions, which have to go first".to_owned()),
            mismatch => mismatch,
        };
        if let Some(message) = refusal {
            return Err(Error::Weight { name: name.to_owned(), message });
        }
        let from = source.memory_of(source.graph().output(output)?);
        let Some(sizes @ [out, ..]) = spec.matrix() else {
            let mut encoder = self.device.raw().create_command_encoder(&Default::default());
            let bytes = 4 * spec.shape.iter().product::<usize>() as u64;
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, buffer, 0, bytes);
            self.device.queue().submit([encoder.finish()]);
            return Ok(());
        };
        let (kernel, parameters) = storage.lay_out(sizes, out, 0);
        self.device.compile(&[(kernel, name)]).await?;
        if let Some(pipeline) = self.device.pipeline(&kernel) {
            self.device.dispatch(&kernel, &pipeline, &parameters, &[from], buffer);
        }
        Ok(())
    }
}
