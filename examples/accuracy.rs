//! What fewer bits cost: draws the same pictures with a checkpoint and with smaller copies of it, and compares them.
//!
//! ```sh
//! for to in f16 q8_0 q5_1 q4_0; do undiffuse quantize www/models/emoji64 --to $to --out target/emoji64-$to; done
//! cargo run --release --example accuracy -- www/models/emoji64 target/emoji64-f16 target/emoji64-q8_0 target/emoji64-q5_1 target/emoji64-q4_0
//! ```
//!
//! The first checkpoint is the measure. For each of the others: bytes of all weights; the peak signal-to-noise ratio of
//! the final pictures, 8 bits a channel, over all pictures together, for the picture in the middle, and for the worst.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    pollster::block_on(native::run())
}

#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use undiffuse::device::Device;
    use undiffuse::diffusion::Solver;
    use undiffuse::pipeline::{Checkpoint, OpenOptions, Preview, SampleOptions, Scheduler};
    use undiffuse::weights::DirectorySource;

    const SEEDS: u64 = 32;
    /// Seed s takes prompt s modulo their number. The settings are those that the model's card recommends.
    const PROMPTS: [&str; 4] =
        ["fox, noto style", "rocket, twemoji style", "grinning cat, fluent flat style", "birthday cake, noto style"];
    const STEPS: usize = 25;
    const GUIDANCE_SCALE: f64 = 4.5;

    /// The final picture of each seed, RGBA, and the bytes of the weights that drew it.
    async fn draw(folder: &str) -> Result<(Vec<Vec<u8>>, u64), Box<dyn std::error::Error>> {
        let source = DirectorySource::new(folder);
        let checkpoint = Checkpoint::open(&source, &OpenOptions::default()).await?;
        let pipeline = checkpoint.load(Device::cpu(), &mut |_| {}).await?;
        let mut pictures = Vec::new();
        for seed in 0..SEEDS {
            let options = SampleOptions {
                prompt: PROMPTS[seed as usize % PROMPTS.len()].into(),
                seed,
                steps: STEPS,
                guidance_scale: GUIDANCE_SCALE,
                scheduler: Scheduler::Solver(Solver::Dpmpp2m),
                preview: Preview::None,
                ..SampleOptions::default()
            };
            let mut sampler = pipeline.sampler(options).await?;
            let mut last = Vec::new();
            while let Some(step) = sampler.step().await? {
                last = step.images;
            }
            pictures.extend(last.into_iter().map(|picture| picture.pixels));
        }
        Ok((pictures, pipeline.info().bytes))
    }

    /// Mean square of the differences of the colours of two RGBA pictures.
    fn mean_square(a: &[u8], b: &[u8]) -> f64 {
        let colours = a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0);
        let squares = colours.flat_map(|(a, b)| (0..3).map(|c| (f64::from(a[c]) - f64::from(b[c])).powi(2)));
        squares.sum::<f64>() / (a.len() / 4 * 3) as f64
    }

    fn decibels(mean_square: f64) -> String {
        if mean_square == 0.0 {
            "equal".into()
        } else {
            format!("{:.1} dB", 10.0 * (255.0f64.powi(2) / mean_square).log10())
        }
    }

    pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
        let folders: Vec<String> = std::env::args().skip(1).collect();
        let [reference, others @ ..] = &folders[..] else {
            return Err("give folders of checkpoints, the measure first".into());
        };
        let (expected, bytes) = draw(reference).await?;
        println!(
            "{SEEDS} pictures, {STEPS} steps, guidance {GUIDANCE_SCALE}, against {reference} ({bytes} bytes of weights)"
        );
        println!("| checkpoint | bytes | of it | all | median | worst |\n|---|---|---|---|---|---|");
        for folder in others {
            let (pictures, smaller) = draw(folder).await?;
            let mut errors: Vec<f64> = pictures.iter().zip(&expected).map(|(a, b)| mean_square(a, b)).collect();
            errors.sort_by(f64::total_cmp);
            let all = errors.iter().sum::<f64>() / errors.len() as f64;
            let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
            let share = 100.0 * smaller as f64 / bytes as f64;
            let [all, median, worst] = [all, median, worst].map(decibels);
            println!("| {folder} | {smaller} | {share:.1} % | {all} | {median} | {worst} |");
        }
        Ok(())
    }
}
