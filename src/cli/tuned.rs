//! Which kernels were found to be fastest on a GPU (`--tune`), kept in the user's cache for later runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use undiffuse::gpu::kernels::Storage;
use undiffuse::gpu::variants::{MatrixKernels, Measured, Product, Tiling};
use undiffuse::gpu::{Device, DeviceInfo};

use super::output::Output;
use super::{Error, cache, input};

/// Lets `device` use what an earlier run found out on this adapter. A file that cannot be read is one that is not there: it saves
/// time, and nothing depends on it.
pub fn recall(device: &Device) {
    let adapters = file().map(|path| read(&path)).unwrap_or_default();
    if let Some(list) = adapters.get(&key(device.info())) {
        device.set_measured(from_json(list));
    }
}

/// Keeps `measured` for this adapter, beside what is known of others and of other networks; says where.
///
/// # Errors
/// If there is no cache folder, or the file cannot be written.
pub fn remember(device: &Device, measured: &Measured) -> Result<PathBuf, Error> {
    let path = file().ok_or(Error::Cache { what: "--tune" })?;
    let mut adapters = read(&path);
    let known = adapters.entry(key(device.info())).or_insert(Value::Null);
    let mut all = from_json(known);
    all.extend(measured);
    *known = to_json(&all);
    let text = format!("{:#}\n", json!(adapters));
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|error| Error::path(&path, error))?;
    // Another run may be reading it.
    Output::new(&path)?.write(text.as_bytes())?;
    Ok(path)
}

/// `kernels.json` in the user's cache folder.
fn file() -> Option<PathBuf> {
    Some(cache::folder()?.join("kernels.json"))
}

fn read(path: &Path) -> BTreeMap<String, Value> {
    let text = input::text(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// A new driver may compile other code, but its name does not tell.
fn key(info: &DeviceInfo) -> String {
    format!("{} ({})", info.adapter, info.backend)
}

fn to_json(measured: &Measured) -> Value {
    let mut entries: Vec<_> = measured.iter().collect();
    entries.sort_by_key(|((product, storage), _)| (product.rows, product.channels, product.steps, storage.name()));
    let entry = |((product, storage), tiling): (&(Product, Storage), &Tiling)| {
        let Product { rows, channels, steps } = product;
        let kernels = MatrixKernels::Tiled(Some(tiling.tile)).name();
        json!([rows, channels, steps, storage.name(), kernels, tiling.splits])
    };
    entries.into_iter().map(entry).collect()
}

/// What of a list makes sense: it may be another version's.
fn from_json(list: &Value) -> Measured {
    let entry = |entry: &Value| {
        let number = |index: usize| entry.get(index)?.as_u64().and_then(|n| usize::try_from(n).ok());
        let product = Product { rows: number(0)?, channels: number(1)?, steps: number(2)? };
        let name = entry.get(3)?.as_str()?;
        let storage = Storage::ALL.into_iter().find(|storage| storage.name() == name)?;
        let Ok(MatrixKernels::Tiled(Some(tile))) = entry.get(4)?.as_str()?.parse() else { return None };
        let tiling = Tiling { tile, splits: number(5)? };
        product.admits(tiling).then_some(((product, storage), tiling))
    };
    list.as_array().into_iter().flatten().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use undiffuse::gpu::variants::Tile;

    #[test]
    fn what_is_kept_is_what_was_measured_and_nonsense_is_passed_over() {
        let product = |rows| Product { rows, channels: 640, steps: 360 };
        let measured = Measured::from([
            ((product(128), Storage::F16), Tiling { tile: Tile::T64x64, splits: 4 }),
            ((product(2048), Storage::Q8_0), Tiling { tile: Tile::T128x64, splits: 1 }),
        ]);
        let mut list = to_json(&measured);
        assert_eq!(from_json(&list), measured);
        list.as_array_mut().unwrap().extend([
            json!("?"),
            json!([1, 2]),
            json!([1, 640, 360, "F12", "tiled-64x64", 1]),
            json!([1, 640, 360, "F16", "registers", 1]),
            json!([1, 640, 360, "F16", "tiled-64x64", 0]),
            json!([1, 640, 360, "F16", "tiled-64x64", 359]),
            json!([-1, 640, 360, "F16", "tiled-64x64", 1]),
            json!([usize::MAX, 640, 360, "F16", "tiled-64x64", 2]),
        ]);
        assert_eq!(from_json(&list), measured);
        assert_eq!(from_json(&Value::Null), Measured::new());
    }
}
