//! Draws a picture on the CPU and writes it: `cargo run --release --example draw -- www/models/emoji64 "panda, noto style" panda.png`.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompt, out] = &arguments[..] else { return Err("give a model, a prompt and a file".into()) };
    draw(model, prompt, out.as_ref())
}

/// Draws what `prompt` says with the checkpoint in the folder `model`, and writes the picture to `out` as PNG.
#[cfg(not(target_arch = "wasm32"))]
pub fn draw(model: &str, prompt: &str, out: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    use undiffuse::device::Device;
    use undiffuse::pipeline::{Pipeline, Preview, SampleOptions};
    use undiffuse::weights::DirectorySource;

    let picture = pollster::block_on(async {
        let pipeline = Pipeline::load(&DirectorySource::new(model), Device::cpu(), &mut |_| {}).await?;
        let options = SampleOptions { prompt: prompt.into(), seed: 7, preview: Preview::None, ..Default::default() };
        let mut sampler = pipeline.sampler(options).await?;
        let mut pictures = Vec::new();
        while let Some(step) = sampler.step().await? {
            pictures = step.images;
        }
        Ok::<_, undiffuse::pipeline::Error>(pictures.remove(0))
    })?;
    let mut png = png::Encoder::new(std::fs::File::create(out)?, picture.width as u32, picture.height as u32);
    png.set_color(png::ColorType::Rgba);
    png.write_header()?.write_image_data(&picture.pixels)?;
    Ok(())
}

#[cfg(target_arch = "wasm32")]
fn main() {}
