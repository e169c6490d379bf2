//! Weights as kernels want them: f32, matrices packed, all of a network in one region.

use std::cell::RefCell;
use std::rc::Rc;

use bytemuck::{cast_slice, cast_slice_mut};
use half::f16;
use undiffuse_kernels::{ALIGNMENT, Job, layout};

use super::form::Form;
use super::machine::Region;
use super::{Device, Error, Program};
use crate::graph::WeightSpec;
use crate::weights::{Cutter, Encoding, LowRank};

/// Numbers of a matrix that low-rank additions are summed for between two pauses.
const BAND: usize = 1 << 18;

/// The weights of one network.
#[derive(Debug)]
pub struct Weights {
    device: Device,
    specs: Vec<WeightSpec>,
    /// All weights as they were loaded.
    region: Rc<Region>,
    /// Offset in the region at which each begins.
    offsets: Vec<usize>,
    /// Encoding in which each has been loaded; `None` if it has not been.
    loaded: Vec<Option<Encoding>>,
    /// Each weight as a LoRA has changed it, if one has.
    merged: RefCell<Vec<Option<Stored>>>,
    /// Matrices in another form than that in which they were loaded, by that form.
    transformed: RefCell<Vec<((usize, Form), Transformed)>>,
    arriving: Option<Arriving>,
    /// Memory for a matrix before it is packed, as long as the largest that has come.
    staging: RefCell<Option<Rc<Region>>>,
}

/// A weight of which some bytes have come.
#[derive(Debug)]
struct Arriving {
    index: usize,
    dtype: Encoding,
    /// Bytes of the tensor still to come.
    missing: usize,
    /// Cuts what arrives where it can be converted.
    cutter: Cutter,
    /// Address of the next number.
    address: usize,
}

/// A weight in memory, shared by the programs that use it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    region: Rc<Region>,
    offset: usize,
}

/// A weight in another form than that in which it was loaded.
#[derive(Debug)]
struct Transformed {
    stored: Stored,
    /// What makes it of a weight that was loaded as it is in the checkpoint, and may change.
    job: Option<Job>,
}

/// Whether the sum of a matrix of `dtype` and additions is rounded to f16.
fn is_rounded(dtype: Encoding) -> bool {
    dtype == Encoding::F16 || dtype.is_float8() || dtype.is_quantised()
}

impl Stored {
    /// Address of its first byte.
    pub fn address(&self) -> usize {
        self.region.address() + self.offset
    }
}

impl Weights {
    /// Places on `device` for the weights `specs`, of which none is loaded.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn new(device: &Device, specs: &[WeightSpec]) -> Result<Self, Error> {
        let mut offsets = Vec::with_capacity(specs.len());
        let bytes = specs.iter().try_fold(0usize, |end, spec| {
            offsets.push(end);
            end.checked_add(Form::of(spec).numbers(spec)?.checked_mul(4)?.checked_next_multiple_of(ALIGNMENT)?)
        });
        let region = bytes.and_then(|bytes| Region::new(device.machine(), bytes));
        let bytes = bytes.map_or(u64::MAX, |bytes| bytes as u64);
        let region = region.ok_or(Error::OutOfMemory { what: "the network's weights as f32".to_owned(), bytes })?;
        Ok(Self {
            device: device.clone(),
            specs: specs.to_vec(),
            region: Rc::new(region),
            offsets,
            loaded: vec![None; specs.len()],
            merged: RefCell::new(vec![None; specs.len()]),
            transformed: RefCell::default(),
            arriving: None,
            staging: RefCell::default(),
        })
    }

    /// The device that they are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that they take, with what is merged and what programs have had transformed.
    pub fn bytes(&self) -> u64 {
        let (merged, transformed) = (self.merged.borrow(), self.transformed.borrow());
        let others = merged
            .iter()
            .flatten()
            .chain(transformed.iter().map(|(_, transformed)| &transformed.stored))
            .map(|stored| stored.region.bytes());
        (self.region.bytes() + others.sum::<usize>()) as u64
    }

    /// Stores the weight `index` from all of its bytes in the checkpoint: begin, one chunk, end.
    ///
    /// # Errors
    /// As [`Weights::begin`], [`Weights::chunk`] and [`Weights::end`].
    pub fn put(&mut self, index: usize, dtype: Encoding, bytes: &[u8]) -> Result<(), Error> {
        self.begin(index, dtype)?;
        self.chunk(bytes)?;
        self.end()
    }

    /// Starts on the weight `index`, whose bytes come next by [`Weights::chunk`].
    ///
    /// # Errors
    /// If a tensor of this dtype holds no weights, or there is no memory to pack it in.
    pub fn begin(&mut self, index: usize, dtype: Encoding) -> Result<(), Error> {
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        if !dtype.is_weight() {
            return Err(self.error(index, format!("{dtype} holds no weights; convert the checkpoint to F16 or F32")));
        }
        let elements = spec.shape.iter().product();
        let Some(missing) = dtype.bytes_of(elements) else {
            return Err(self.error(index, format!("{elements} elements are no whole blocks of {dtype}")));
        };
        let address = match spec.matrix() {
            Some(_) => self.staging(index)?.address(),
            None => self.original(index).address(),
        };
        self.arriving = Some(Arriving { index, dtype, missing, cutter: Cutter::new(dtype.block().bytes), address });
        Ok(())
    }

    /// Takes the next bytes of the weight; they are converted into the machine's memory, and not kept.
    ///
    /// # Errors
    /// If they are more than the weight's shape has.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(arriving) = &mut self.arriving else { return Ok(()) };
        let Arriving { index, dtype, missing, cutter, address } = arriving;
        let Some(still_missing) = missing.checked_sub(bytes.len()) else {
            let (index, message) = (*index, format!("more bytes came than its shape takes as {dtype}"));
            self.arriving = None;
            return Err(self.error(index, message));
        };
        *missing = still_missing;
        cutter.push(bytes, |bytes| {
            let values = dtype.to_f32(bytes).unwrap_or_default();
            self.device.machine().write(*address, cast_slice(&values));
            *address += 4 * values.len();
        });
        Ok(())
    }

    /// Ends the weight, all of whose bytes have come.
    ///
    /// # Errors
    /// If they are fewer than the weight's shape has.
    pub fn end(&mut self) -> Result<(), Error> {
        let Some(Arriving { index, dtype, missing, .. }) = self.arriving.take() else { return Ok(()) };
        if missing > 0 {
            return Err(self.error(index, format!("{missing} bytes of it as {dtype} are missing")));
        }
        let form = Form::of(&self.specs[index]);
        if form != Form::Plain {
            self.pack(index, form, &self.original(index))?;
        }
        self.loaded[index] = Some(dtype);
        Ok(())
    }

    /// Ends the loading: frees what only loading needs.
    ///
    /// # Errors
    /// Names the first weight that is missing.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.staging.take();
        self.check_complete()
    }

    /// Replaces matrix `index` by W + Σ scale·up·down, computed from the weight as it was loaded, in f32; for a convolution `up` is
    /// 1×1. It is rounded to f16 if it was f16, an 8-bit float or quantised. The original stays beside it.
    ///
    /// Programs use the weights as they were when they were prepared.
    ///
    /// # Errors
    /// If the factors do not fit the weight, if it is no matrix, if there is no memory for it, or if it became unwanted.
    pub async fn merge(&self, index: usize, additions: &[LowRank]) -> Result<(), Error> {
        let Some(spec) = self.specs.get(index) else { return Ok(()) };
        let Some(dtype) = self.loaded[index] else { return Err(Error::MissingWeight(spec.name.clone())) };
        let Some([out, input, taps]) = spec.matrix() else {
            return Err(self.error(index, "a vector takes no low-rank addition".to_owned()));
        };
        self.restore(index);
        if additions.is_empty() {
            return Ok(());
        }
        let columns = input * taps;
        let band = (BAND / columns.max(1)).max(1);
        let mut values = Vec::with_capacity(out * columns);
        for first in (0..out).step_by(band) {
            let sum = LowRank::sum(additions, out, columns, first..out.min(first + band));
            values.extend(sum.map_err(|message| self.error(index, message))?);
            self.device.pause().await?;
        }
        let mut original = vec![0.0f32; values.len()];
        self.unpack(index, &self.original(index))?;
        let (machine, staging) = (self.device.machine(), self.staging(index)?);
        machine.read(staging.address(), cast_slice_mut(&mut original));
        let as_half = is_rounded(dtype);
        for (value, original) in values.iter_mut().zip(original) {
            *value += original;
            if as_half {
                *value = f16::from_f32(*value).to_f32();
            }
        }
        machine.write(staging.address(), cast_slice(&values));
        let form = Form::of(spec);
        let merged = self.allocate(index, form, spec)?;
        self.pack(index, form, &merged)?;
        self.staging.take();
        self.merged.borrow_mut()[index] = Some(merged);
        Ok(())
    }

    /// Takes back what [`Weights::merge`] has made of weight `index`.
    pub fn restore(&self, index: usize) {
        if let Some(merged) = self.merged.borrow_mut().get_mut(index) {
            *merged = None;
        }
        self.transformed.borrow_mut().retain(|((other, _), _)| *other != index);
    }

    /// Copies an output of `source` to the place of the weight `name`, in every form that a program reads it in. Programs compiled since
    /// the weight was last merged or restored see it.
    ///
    /// # Errors
    /// If there is no such weight or output, if a matrix was not loaded as f32 or is merged, if the shapes differ, if nothing has made
    /// the output, or if it lies in another machine's memory.
    pub fn store(&self, name: &str, source: &Program, output: &str) -> Result<(), Error> {
        let index = self.specs.iter().position(|spec| spec.name == name);
        let (index, dtype) = index
            .and_then(|index| Some((index, self.loaded[index]?)))
            .ok_or_else(|| Error::MissingWeight(name.to_owned()))?;
        let spec = &self.specs[index];
        let is_narrow = spec.matrix().is_some() && (is_rounded(dtype) || dtype == Encoding::BF16);
        let refusal = match spec.mismatch(source.graph(), output)? {
            _ if is_narrow => Some(format!("a matrix of {dtype} takes no new values, one of F32 does")),
            _ if self.merged.borrow()[index].is_some() => Some("it has additions, which have to go first".to_owned()),
            _ if !Rc::ptr_eq(self.device.machine(), source.machine()) => {
                Some(format!("output `{output}` lies in another machine's memory"))
            }
            mismatch => mismatch,
        };
        if let Some(message) = refusal {
            return Err(self.error(index, message));
        }
        let plain = source.place(output)?;
        let of_spec = Form::of(spec);
        let elements = spec.shape.iter().product();
        let strides = [0, 0, 0, 1];
        let original = self.original(index).address();
        let copy =
            layout::Copy { x: plain, y: original, shape: [1, 1, 1, elements], x_strides: strides, y_strides: strides };
        // An optimiser's output is there already.
        if plain != original {
            self.run(Some(of_spec.pack(spec, plain, original).unwrap_or_else(|| Job::new(copy))))?;
        }
        let transformed = self.transformed.borrow();
        for ((_, form), Transformed { stored, job }) in transformed.iter().filter(|((other, _), _)| *other == index) {
            let copy = layout::Copy { y: stored.address(), ..copy };
            let pack = || form.pack(spec, plain, stored.address()).unwrap_or_else(|| Job::new(copy));
            let job = if cfg!(feature = "training") { *job } else { None };
            self.run(Some(job.unwrap_or_else(pack)))?;
        }
        Ok(())
    }

    /// Whether each weight of the network is there.
    ///
    /// # Errors
    /// Names the first that is missing.
    pub fn check_complete(&self) -> Result<(), Error> {
        match self.loaded.iter().position(Option::is_none) {
            None => Ok(()),
            Some(index) => Err(Error::MissingWeight(self.specs[index].name.clone())),
        }
    }

    /// The weights' names, shapes and roles.
    pub fn specs(&self) -> &[WeightSpec] {
        &self.specs
    }

    fn error(&self, index: usize, message: String) -> Error {
        Error::Weight { name: self.specs.get(index).map(|spec| spec.name.clone()).unwrap_or_default(), message }
    }

    /// The weight `index`, which has been loaded, as it is now, in a form of what `read` says that it is for.
    ///
    /// # Errors
    /// If there is no memory for the form.
    pub(super) fn find(&self, index: usize, form: Form, read: &WeightSpec) -> Result<Stored, Error> {
        let stored = self.merged.borrow()[index].clone().unwrap_or_else(|| self.original(index));
        let loaded = Form::of(&self.specs[index]);
        if form == loaded {
            return Ok(stored);
        }
        if let Some((_, transformed)) = self.transformed.borrow().iter().find(|(of, _)| *of == (index, form)) {
            if cfg!(feature = "training") {
                self.run(transformed.job)?;
            }
            return Ok(transformed.stored.clone());
        }
        // A form that no program reads any more makes room for this one.
        let is_read = |transformed: &Transformed| Rc::strong_count(&transformed.stored.region) > 1;
        self.transformed.borrow_mut().retain(|((other, _), transformed)| *other != index || is_read(transformed));
        let to = self.allocate(index, form, read)?;
        let mut kept = None;
        if cfg!(feature = "training") && loaded == Form::Plain {
            kept = form.pack(read, stored.address(), to.address());
            self.run(kept)?;
        } else if form == Form::Plain {
            self.run(Form::unpack(&self.specs[index], stored.address(), to.address()))?;
        } else {
            self.unpack(index, &stored)?;
            self.pack(index, form, &to)?;
        }
        self.transformed.borrow_mut().push(((index, form), Transformed { stored: to.clone(), job: kept }));
        Ok(to)
    }

    /// Brings what an optimiser has changed to all programs that read it: each form that was made of it is made again.
    ///
    /// # Errors
    /// If it became unwanted.
    #[cfg(feature = "training")]
    pub fn refresh(&self) -> Result<(), Error> {
        self.transformed.borrow().iter().try_for_each(|(_, transformed)| self.run(transformed.job))
    }

    /// Frees the memory that [`Weights::find`] has needed to change forms.
    pub(super) fn forget_staging(&self) {
        self.staging.take();
    }

    /// The place that the weight `index` was loaded to.
    fn original(&self, index: usize) -> Stored {
        Stored { region: self.region.clone(), offset: self.offsets[index] }
    }

    /// Memory for the weight `index` in a form of what `read` says that it is for.
    fn allocate(&self, index: usize, form: Form, read: &WeightSpec) -> Result<Stored, Error> {
        let bytes = form.numbers(read).and_then(|numbers| numbers.checked_mul(4)).unwrap_or(usize::MAX);
        let region = Region::new(self.device.machine(), bytes).ok_or_else(|| self.out_of_memory(index, bytes))?;
        Ok(Stored { region: Rc::new(region), offset: 0 })
    }

    fn out_of_memory(&self, index: usize, bytes: usize) -> Error {
        Error::OutOfMemory { what: format!("weight `{}`", self.specs[index].name), bytes: bytes as u64 }
    }

    /// Memory for the weight `index` in the order that its checkpoint has.
    fn staging(&self, index: usize) -> Result<Rc<Region>, Error> {
        let bytes = Form::Plain.numbers(&self.specs[index]).and_then(|numbers| numbers.checked_mul(4));
        let bytes = bytes.unwrap_or(usize::MAX);
        let mut staging = self.staging.borrow_mut();
        if let Some(region) = staging.as_ref().filter(|region| region.bytes() >= bytes) {
            return Ok(region.clone());
        }
        staging.take();
        let region = Region::new(self.device.machine(), bytes).ok_or_else(|| self.out_of_memory(index, bytes))?;
        Ok(staging.insert(Rc::new(region)).clone())
    }

    /// Stores what lies in the staging memory in a form.
    fn pack(&self, index: usize, form: Form, to: &Stored) -> Result<(), Error> {
        let job = form.pack(&self.specs[index], self.staging(index)?.address(), to.address());
        self.run(job)
    }

    /// Brings a weight back into the order that its checkpoint has, in the staging memory.
    fn unpack(&self, index: usize, from: &Stored) -> Result<(), Error> {
        let job = Form::unpack(&self.specs[index], from.address(), self.staging(index)?.address());
        self.run(job)
    }

    fn run(&self, job: Option<Job>) -> Result<(), Error> {
        // SAFETY: the job reads the staging memory, a weight's place or an output of a program that the caller holds, and writes the
        // staging memory or a weight's place, all as long as its form says; none shares memory with another.
        job.map_or(Ok(()), |job| unsafe { self.device.run_now(job) })
    }
}
