//! Opens a checkpoint whose files are in memory, wherever they came from, and says what it is:
//! `cargo run --release --example bytes -- www/models/emoji64`.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("give the folder of a model")?;
    println!("{:#?}", what_it_is(folder.as_ref())?);
    Ok(())
}

/// What the checkpoint in `folder` is, opened from bytes alone.
#[cfg(not(target_arch = "wasm32"))]
pub fn what_it_is(folder: &std::path::Path) -> Result<undiffuse::pipeline::ModelInfo, Box<dyn std::error::Error>> {
    use undiffuse::pipeline::{Checkpoint, OpenOptions};
    use undiffuse::weights::MemorySource;

    let mut source = MemorySource::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(inner)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                source.insert(path.strip_prefix(folder)?.to_string_lossy(), std::fs::read(&path)?);
            }
        }
    }
    let checkpoint = pollster::block_on(Checkpoint::open(&source, &OpenOptions::default()))?;
    Ok(checkpoint.info().clone())
}

#[cfg(target_arch = "wasm32")]
fn main() {}
