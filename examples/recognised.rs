//! How often emoji64 draws what its prompt names: each prompt over several seeds, judged by the classifier that the crate brings.
//!
//! ```sh
//! cargo run --release --example recognised -- 32                              # the examples of the page
//! cargo run --release --example recognised -- 8 all                           # every thing that it knows, in every style
//! cargo run --release --example recognised -- 32 "panda, noto style" robot    # these
//! ```
//!
//! Settings, things and styles are those of `www/models/emoji64.json`. A line for each prompt: how many pictures are classified as
//! what it names, and what the others are taken for.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    pollster::block_on(native::run())
}

#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::collections::HashMap;

    use serde_json::Value;
    use undiffuse::device::Device;
    use undiffuse::metrics::FeatureExtractor;
    use undiffuse::pipeline::{Pipeline, Preview, SampleOptions, Scheduler};
    use undiffuse::weights::DirectorySource;

    /// Pictures that are drawn at once.
    const AT_ONCE: u64 = 16;

    pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [seeds, prompts @ ..] = &arguments[..] else { return Err("give the number of seeds".into()) };
        let seeds: u64 = seeds.parse()?;
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models");
        let about: Value = serde_json::from_slice(&std::fs::read(format!("{root}/emoji64.json"))?)?;
        let names = |key: &str| -> Vec<String> {
            let values = about[key].as_array().into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let prompts = match prompts {
            [] => names("prompts"),
            [all] if all == "all" => {
                let styles = names("styles");
                let in_styles = |thing: String| styles.iter().map(move |style| format!("{thing}, {style}"));
                about["glyphs"]
                    .as_object()
                    .into_iter()
                    .flat_map(|things| things.keys().cloned())
                    .flat_map(in_styles)
                    .collect()
            }
            given => given.to_vec(),
        };
        let device = Device::cpu();
        let pipeline =
            Pipeline::load(&DirectorySource::new(format!("{root}/emoji64")), device.clone(), &mut |_| {}).await?;
        let mut classifier = FeatureExtractor::emoji(device).await?;
        let mut all = 0;
        for prompt in &prompts {
            let mut taken_for: HashMap<String, u64> = HashMap::new();
            for first in (0..seeds).step_by(AT_ONCE as usize) {
                let seeds: Vec<u64> = (first..seeds.min(first + AT_ONCE)).collect();
                let options = SampleOptions {
                    prompt: prompt.as_str().into(),
                    num_images_per_prompt: seeds.len(),
                    seeds,
                    steps: about["steps"].as_u64().ok_or("no steps")? as usize,
                    guidance_scale: about["guidanceScale"].as_f64().ok_or("no guidance")?,
                    scheduler: Scheduler::Solver(about["solver"].as_str().unwrap_or_default().parse()?),
                    preview: Preview::None,
                    ..SampleOptions::default()
                };
                let mut sampler = pipeline.sampler(options).await?;
                let mut last = Vec::new();
                while let Some(step) = sampler.step().await? {
                    last = step.images;
                }
                for answer in classifier.classify(&last, 1).await? {
                    *taken_for.entry(answer.glyphs[0].name.clone()).or_default() += 1;
                }
            }
            let thing = prompt.split(',').next().unwrap_or_default();
            let right = taken_for.remove(thing).unwrap_or_default();
            all += right;
            let mut others: Vec<(String, u64)> = taken_for.into_iter().collect();
            others.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
            let others: Vec<String> = others.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
            println!("{right:3} of {seeds}  {prompt}  {}", others.join(", "));
        }
        println!("{all} of {} are what their prompt names", seeds * prompts.len() as u64);
        Ok(())
    }
}
