//! The CPU executor: its memory, its threads, and what it refuses. What its kernels compute is tested in `kernels.rs`.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use pollster::block_on;
use undiffuse::cpu::{Arithmetic, Device, Error, Host, Job, Machine, Program, Weights};
use undiffuse::device;
use undiffuse::graph::{Builder, Conv2dOptions, Graph, fold_upsampling};
use undiffuse::pipeline::{self, Pipeline, SampleOptions};
use undiffuse::weights::{DirectorySource, Encoding, LocalBoxFuture};

fn cpu() -> Device {
    Device::native(Some(1), Arithmetic::Fused)
}

/// Three convolutions of one picture of three channels, whose result is `out`, or pixels if `pack`.
fn network(pack: bool) -> Graph {
    let builder = Builder::new();
    let root = builder.root();
    let mut x = root.input("x", &[1, 6, 6, 3]).unwrap();
    for layer in 0..3 {
        x = root.at(format!("blocks.{layer}.conv")).conv2d(x, Conv2dOptions::same(3, 3)).unwrap();
    }
    if pack {
        x = root.pack_rgba8(root.permute(x, &[0, 3, 1, 2]).unwrap()).unwrap();
    }
    root.output("out", x);
    builder.finish()
}

/// Its weights, of which the second convolution has `value`.
fn weights(device: &Device, graph: &Graph, value: f32) -> Weights {
    let mut weights = Weights::new(device, graph.weights()).unwrap();
    for (index, spec) in graph.weights().iter().enumerate() {
        let count: usize = spec.shape.iter().product();
        let mut values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin() * 0.3).collect();
        if spec.name == "blocks.1.conv.weight" {
            values[7] = value;
        }
        weights.put(index, Encoding::F32, &Encoding::F32.encode(&values).unwrap()).unwrap();
    }
    weights.finish().unwrap();
    weights
}

async fn compile(graph: &Graph, weights: &Weights) -> Result<Program, Error> {
    Program::new(weights.device(), graph, &[weights]).await
}

#[test]
fn a_value_that_is_not_finite_is_reported_with_the_layer_that_made_it() {
    for pack in [false, true] {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let graph = network(pack);
            let mut program = block_on(compile(&graph, &weights(&cpu(), &graph, value))).unwrap();
            program.write("x", &[1.0; 108]).unwrap();
            let error = block_on(program.run()).unwrap_err();
            assert_eq!(error, Error::NonFinite { path: "blocks.1.conv".into(), op: "conv2d" }, "pixels: {pack}");
            assert_eq!(program.read("out").unwrap_err(), Error::NotRun("out".into()));
        }
    }
}

#[test]
fn an_input_that_is_not_finite_is_reported_as_such_and_a_better_one_runs() {
    let graph = network(false);
    let mut program = block_on(compile(&graph, &weights(&cpu(), &graph, 0.5))).unwrap();
    let mut x = [1.0; 108];
    for value in [f32::INFINITY, f32::NAN] {
        x[100] = value;
        program.write("x", &x).unwrap();
        assert_eq!(block_on(program.run()).unwrap_err(), Error::NonFinite { path: "x".into(), op: "input" });
    }
    x[100] = 1.0;
    program.write("x", &x).unwrap();
    block_on(program.run()).unwrap();
    assert!(program.read("out").unwrap().iter().all(|value| value.is_finite()));
}

#[test]
fn an_output_that_nothing_has_made_and_data_that_do_not_fit_are_refused() {
    let graph = network(false);
    let mut program = block_on(compile(&graph, &weights(&cpu(), &graph, 0.5))).unwrap();
    assert_eq!(program.read("out").unwrap_err(), Error::NotRun("out".into()));
    assert_eq!(program.feed_back("x", "out").unwrap_err(), Error::NotRun("out".into()));
    let expected = Error::InputLength { name: "x".into(), expected: 108, found: 3 };
    assert_eq!(program.write("x", &[0.0; 3]).unwrap_err(), expected);
    assert!(matches!(program.write("y", &[]).unwrap_err(), Error::Graph(_)));
    assert!(matches!(program.read("y").unwrap_err(), Error::Graph(_)));
    let missing = Weights::new(&cpu(), graph.weights()).unwrap();
    assert_eq!(block_on(compile(&graph, &missing)).unwrap_err(), Error::MissingWeight("blocks.0.conv.weight".into()));
}

#[test]
fn outputs_become_inputs_of_the_same_program_and_of_one_on_the_same_or_another_device() {
    let builder = Builder::new();
    let root = builder.root();
    root.output("out", root.affine(root.input("x", &[33]).unwrap(), 2.0, 1.0).unwrap());
    let graph = builder.finish();
    let device = cpu();
    let program = |device: &Device| block_on(compile(&graph, &Weights::new(device, &[]).unwrap())).unwrap();
    let mut first = program(&device);
    block_on(first.run()).unwrap();
    assert_eq!(first.read("out").unwrap(), [1.0; 33], "an input is zero before it is written");
    first.feed_back("x", "out").unwrap();
    block_on(first.run()).unwrap();
    for mut second in [program(&device), program(&cpu())] {
        second.copy_from("x", &first, "out").unwrap();
        block_on(second.run()).unwrap();
        assert_eq!(second.read("out").unwrap(), [7.0; 33]);
    }
    assert_eq!(first.read("out").unwrap(), [3.0; 33]);
}

#[test]
fn a_convolution_that_upsamples_gives_the_same_bits_as_one_behind_the_upsampling() {
    // Computed as one sum, and by Winograd.
    for channels in [3, 16] {
        let builder = Builder::new();
        let root = builder.root();
        let x = root.input("x", &[1, 6, 5, channels]).unwrap();
        let large = root.resize_nearest(x, 12, 10).unwrap();
        root.output("out", root.at("conv").conv2d(large, Conv2dOptions::same(channels, 3)).unwrap());
        let graph = builder.finish();
        let folded = fold_upsampling(&graph);
        assert_eq!(folded.nodes().len() + 1, graph.nodes().len());
        let [apart, together] = [&graph, &folded].map(|graph| {
            let mut program = block_on(compile(graph, &weights(&cpu(), graph, 0.5))).unwrap();
            let x: Vec<f32> = (0..30 * channels).map(|i| (i as f32 * 0.9).cos()).collect();
            program.write("x", &x).unwrap();
            block_on(program.run()).unwrap();
            program.read("out").unwrap()
        });
        assert_eq!(apart, together, "{channels} channels");
    }
}

#[test]
fn the_time_of_every_node_is_told_and_inputs_take_none() {
    let graph = network(false);
    let mut program = block_on(compile(&graph, &weights(&cpu(), &graph, 0.5))).unwrap();
    let seconds = block_on(program.run_timed()).unwrap();
    assert_eq!(seconds.len(), graph.nodes().len());
    assert_eq!(seconds[0], 0.0);
    assert!(seconds[1..].iter().all(|&seconds| seconds > 0.0), "{seconds:?}");
}

/// A machine with little memory.
#[derive(Debug)]
struct Small {
    host: Host,
    free: Cell<usize>,
    sizes: Rc<std::cell::RefCell<HashMap<usize, usize>>>,
}

// SAFETY: as the machine behind it.
unsafe impl Machine for Small {
    fn allocate(&self, bytes: usize) -> Option<usize> {
        self.free.set(self.free.get().checked_sub(bytes)?);
        let address = self.host.allocate(bytes)?;
        self.sizes.borrow_mut().insert(address, bytes);
        Some(address)
    }

    unsafe fn free(&self, address: usize) {
        let bytes = self.sizes.borrow_mut().remove(&address).expect("a region");
        self.free.set(self.free.get() + bytes);
        // SAFETY: as the caller says.
        unsafe { self.host.free(address) };
    }

    fn write(&self, address: usize, bytes: &[u8]) {
        self.host.write(address, bytes);
    }

    fn read(&self, address: usize, bytes: &mut [u8]) {
        self.host.read(address, bytes);
    }

    unsafe fn run(&self, jobs: &[Job], done: usize) -> Result<usize, Error> {
        // SAFETY: as the caller says.
        unsafe { self.host.run(jobs, done) }
    }

    fn threads(&self) -> usize {
        self.host.threads()
    }
}

#[test]
fn what_does_not_fit_into_memory_is_refused_by_name_and_leaves_nothing_behind() {
    let graph = network(false);
    let mut refusals = Vec::new();
    // From no memory at all to enough, in steps smaller than anything that is allocated.
    for limit in (0..).step_by(64) {
        let sizes = Rc::default();
        let machine = Small { host: Host::new(1, Arithmetic::Fused), free: Cell::new(limit), sizes: Rc::clone(&sizes) };
        let device = Device::new(Rc::new(machine));
        let run = || {
            let mut weights = Weights::new(&device, graph.weights())?;
            for (index, spec) in graph.weights().iter().enumerate() {
                weights.put(index, Encoding::F32, &vec![0; 4 * spec.shape.iter().product::<usize>()])?;
            }
            weights.finish()?;
            block_on(block_on(compile(&graph, &weights))?.run())
        };
        let result = run();
        assert!(sizes.borrow().is_empty(), "{limit} bytes leave something behind");
        let Err(error) = result else { break };
        let Error::OutOfMemory { what, .. } = error else { panic!("{limit} bytes: {error}") };
        if refusals.last() != Some(&what) {
            refusals.push(what);
        }
    }
    assert_eq!(refusals, ["the network's weights as f32", "weight `blocks.0.conv.weight`", "the network's values"]);
}

/// The last latents of two steps of the model in `www/`.
fn two_steps(device: Device) -> Vec<u32> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64");
    let run = async {
        let source = DirectorySource::new(folder);
        let pipeline = Pipeline::load(&source, device::Device::Cpu(device), &mut |_| {}).await?;
        let options = SampleOptions { prompt: "fox, noto style".into(), seed: 7, steps: 2, ..Default::default() };
        let mut sampler = pipeline.sampler(options).await?;
        while sampler.step().await?.is_some() {}
        sampler.latents().await
    };
    block_on(run).expect("two steps").into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_run_gives_the_same_bits_with_any_number_of_threads() {
    for arithmetic in [Arithmetic::Fused, Arithmetic::Separate] {
        let alone = two_steps(Device::native(Some(1), arithmetic));
        for threads in [2, 3] {
            let together = two_steps(Device::native(Some(threads), arithmetic));
            assert!(alone == together, "{arithmetic:?} with {threads} threads");
        }
    }
}

/// A machine that pauses after every part, and finds at one of the pauses that nobody wants what it computes.
#[derive(Debug)]
struct Hasty {
    host: Host,
    /// Pauses until then.
    wanted: Rc<Cell<usize>>,
}

impl Hasty {
    fn device(wanted: &Rc<Cell<usize>>) -> Device {
        Device::new(Rc::new(Self { host: Host::new(1, Arithmetic::Fused), wanted: wanted.clone() }))
    }
}

// SAFETY: regions are those of the machine behind it; parts are done in their order.
unsafe impl Machine for Hasty {
    fn allocate(&self, bytes: usize) -> Option<usize> {
        self.host.allocate(bytes)
    }

    unsafe fn free(&self, address: usize) {
        // SAFETY: as the caller says.
        unsafe { self.host.free(address) };
    }

    fn write(&self, address: usize, bytes: &[u8]) {
        self.host.write(address, bytes);
    }

    fn read(&self, address: usize, bytes: &mut [u8]) {
        self.host.read(address, bytes);
    }

    unsafe fn run(&self, jobs: &[Job], done: usize) -> Result<usize, Error> {
        let mut part = done;
        for job in jobs {
            if part < job.parts() {
                // SAFETY: as the caller says; the parts before this one are done.
                unsafe { undiffuse_kernels::run(job, part, Arithmetic::Fused) };
                return Ok(done + 1);
            }
            part -= job.parts();
        }
        panic!("there was nothing left to do")
    }

    fn pause(&self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async {
            self.wanted.set(self.wanted.get().saturating_sub(1));
            self.wanted.get() > 0
        })
    }

    fn threads(&self) -> usize {
        1
    }
}

#[test]
fn a_run_gives_the_same_bits_with_a_pause_after_every_part() {
    let pauses = Rc::new(Cell::new(usize::MAX));
    let alone = two_steps(Device::native(Some(1), Arithmetic::Fused));
    assert!(two_steps(Hasty::device(&pauses)) == alone);
    assert!(usize::MAX - pauses.get() > 1000, "it paused {} times", usize::MAX - pauses.get());
}

#[test]
fn a_run_that_nobody_wants_ends_at_the_next_pause_and_the_one_after_it_is_whole() {
    let graph = network(false);
    let wanted = Rc::new(Cell::new(usize::MAX));
    let device = Hasty::device(&wanted);
    let mut program = block_on(compile(&graph, &weights(&device, &graph, 0.5))).unwrap();
    let x: Vec<f32> = (0..108).map(|i| (i as f32 * 0.9).cos()).collect();
    program.write("x", &x).unwrap();
    wanted.set(usize::MAX);
    block_on(program.run()).unwrap();
    let expected = program.read("out").unwrap();
    let parts = usize::MAX - wanted.get();
    assert!(parts > 3);
    for pauses in 1..=parts {
        wanted.set(pauses);
        assert_eq!(block_on(program.run()).unwrap_err(), Error::Aborted, "after {pauses} of {parts} parts");
        assert_eq!(wanted.get(), 0);
        assert_eq!(program.read("out").unwrap_err(), Error::NotRun("out".into()));
        wanted.set(usize::MAX);
        block_on(program.run()).unwrap();
        assert!(program.read("out").unwrap() == expected, "after {pauses} of {parts} parts");
    }
}

#[test]
fn a_search_for_the_first_value_that_is_not_finite_leaves_nothing_behind_when_it_is_stopped() {
    let graph = network(false);
    let wanted = Rc::new(Cell::new(usize::MAX));
    let device = Hasty::device(&wanted);
    let mut program = block_on(compile(&graph, &weights(&device, &graph, 0.5))).unwrap();
    let count = |program: &mut Program, x: f32| {
        wanted.set(usize::MAX);
        program.write("x", &[x; 108]).unwrap();
        (block_on(program.run()), usize::MAX - wanted.get())
    };
    let (found, parts) = count(&mut program, f32::NAN);
    assert_eq!(found, Err(Error::NonFinite { path: "x".into(), op: "input" }));
    let (found, whole) = count(&mut program, 1.0);
    assert_eq!(found, Ok(()));
    assert!(parts > whole, "the search takes another run");
    for pauses in whole..parts {
        program.write("x", &[f32::NAN; 108]).unwrap();
        wanted.set(pauses);
        assert_eq!(block_on(program.run()), Err(Error::Aborted));
        assert_eq!(count(&mut program, 1.0).0, Ok(()), "after {pauses} of {parts} parts");
    }
}

#[test]
fn a_pipeline_whose_run_was_stopped_anywhere_draws_as_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/emoji64");
    let wanted = Rc::new(Cell::new(usize::MAX));
    let device = device::Device::Cpu(Hasty::device(&wanted));
    let pipeline = block_on(Pipeline::load(&DirectorySource::new(folder), device, &mut |_| {})).unwrap();
    let draw = || {
        let options = SampleOptions { prompt: "fox, noto style".into(), seed: 7, steps: 1, ..Default::default() };
        block_on(async {
            let mut sampler = pipeline.sampler(options).await?;
            while sampler.step().await?.is_some() {}
            sampler.latents().await
        })
    };
    let first = draw().unwrap();
    let before = wanted.get();
    assert!(draw().unwrap() == first);
    let pauses = before - wanted.get();
    // In the text encoder, in the step, in the decoder.
    for seventh in 0..7 {
        wanted.set(1 + pauses * seventh / 7);
        let stopped = draw();
        let is_aborted = matches!(&stopped, Err(pipeline::Error::Device(device::Error::Cpu(Error::Aborted))));
        assert!(is_aborted, "{seventh} of 7: {stopped:?}");
        wanted.set(usize::MAX);
        assert!(draw().unwrap() == first, "after {seventh} of 7");
    }
}
