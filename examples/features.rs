//! Pictures per second of a feature network on this machine's CPU:
//!
//! ```sh
//! cargo run --release --example features                                        # the emoji classifier
//! cargo run --release --example features -- inception.safetensors 299           # InceptionV3, pictures of 299×299
//! ```
#[cfg(not(target_arch = "wasm32"))]
fn main() {
    use std::time::Instant;

    use pollster::block_on;
    use undiffuse::device::Device;
    use undiffuse::metrics::FeatureExtractor;
    use undiffuse::pipeline::Rgba;
    use undiffuse::weights::DirectorySource;

    let mut arguments = std::env::args().skip(1);
    let path = arguments.next();
    let side = arguments.next().map_or(64, |side| side.parse().expect("the side of a picture"));
    let mut extractor = match path {
        Some(path) => block_on(FeatureExtractor::load(&DirectorySource::new(path), Device::cpu())),
        None => block_on(FeatureExtractor::emoji(Device::cpu())),
    }
    .expect("a feature network");
    let picture = |seed: usize| {
        let pixels = (0..4 * side * side).map(|i: usize| ((i + seed).wrapping_mul(2_654_435_761) >> 13) as u8);
        Rgba { width: side, height: side, pixels: pixels.collect() }
    };
    let pictures: Vec<Rgba> = (0..extractor.batch()).map(picture).collect();
    block_on(extractor.extract(&pictures)).expect("features");
    let mut seconds: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            block_on(extractor.extract(&pictures)).expect("features");
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let rate = |seconds: f64| pictures.len() as f64 / seconds;
    println!(
        "{}: {:.1} pictures/s ({:.1} to {:.1}), {} at a time",
        extractor.name(),
        rate(seconds[3]),
        rate(seconds[6]),
        rate(seconds[0]),
        pictures.len()
    );
}

#[cfg(target_arch = "wasm32")]
fn main() {}
