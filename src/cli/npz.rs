//! Statistics as the Python package `pytorch-fid` saves them: an `.npz`, which is a zip archive of two arrays of numpy's, `mu` [d]
//! and `sigma` [d, d].

use std::io::Read;
use std::path::Path;

use zip::ZipArchive;

use super::{Error, input};

/// Most features that are read: twice Inception's, 128 MiB of `sigma`.
const MAX_DIMENSION: usize = 1 << 12;

/// Longest header of an array.
const MAX_HEADER: usize = 1 << 12;

/// The mean [d] and the covariance [d, d] in `path`.
///
/// # Errors
/// If it is no such file, or cannot be read.
pub fn read(path: &Path) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let error = |message: String| Error::path(path, message);
    let file = input::open(path).map_err(|e| Error::path(path, e))?;
    let mut archive = ZipArchive::new(file).map_err(|e| error(format!("not a valid .npz file: {e}")))?;
    let mut array = |name: &str, check: &dyn Fn(&[usize]) -> Result<(), String>| {
        let entry = archive.by_name(&format!("{name}.npy"));
        let entry = entry.map_err(|e| error(format!("this .npz has no array `{name}` that can be read: {e}")))?;
        array(entry, check).map_err(|message| error(format!("array `{name}`: {message}")))
    };
    let mean = array("mu", &|shape| match shape {
        [1..=MAX_DIMENSION] => Ok(()),
        _ => Err(format!("its shape is {shape:?}, expected one side, of 1 or more")),
    })?;
    let dimension = mean.len();
    // The same read by rows or by columns.
    let covariance = array("sigma", &|shape| match shape == [dimension, dimension] {
        true => Ok(()),
        false => Err(format!("its shape is {shape:?}, `mu` calls for [{dimension}, {dimension}]")),
    })?;
    Ok((mean, covariance))
}

/// The numbers of an array (numpy's `format.py`: a magic, two bytes of version, the length of a header, and that as a dictionary
/// of Python), once its shape has passed `check`.
fn array(mut stream: impl Read, check: &dyn Fn(&[usize]) -> Result<(), String>) -> Result<Vec<f64>, String> {
    let mut bytes = |count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).map(|()| bytes).map_err(|e| format!("it cannot be read: {e}"))
    };
    let start = bytes(8)?;
    let length = match start[..] {
        [0x93, b'N', b'U', b'M', b'P', b'Y', version, _] => match version {
            1 => 2,
            2 | 3 => 4,
            _ => return Err(format!("version {version} of numpy's format is not known")),
        },
        _ => return Err("not an array of numpy's".to_owned()),
    };
    let length = bytes(length)?.iter().rev().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
    if length > MAX_HEADER {
        return Err(format!("its header is said to have {length} bytes"));
    }
    let header = String::from_utf8(bytes(length)?).map_err(|_| "its header is no text".to_owned())?;
    let after = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let wide = match after("descr").and_then(|rest| rest.split('\'').nth(1)) {
        Some("<f8") => true,
        Some("<f4") => false,
        other => return Err(format!("its numbers are {}, expected <f8", other.unwrap_or("of no single type"))),
    };
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).map(|(sides, _)| sides);
    let sides = shape.ok_or("its header has no shape")?.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Vec<usize> = sides
        .map(|side| side.parse().ok().filter(|side| *side <= MAX_DIMENSION))
        .collect::<Option<_>>()
        .filter(|shape: &Vec<usize>| shape.len() <= 2)
        .ok_or_else(|| format!("its shape ({}) is not that of statistics", shape.unwrap_or_default()))?;
    check(&shape)?;
    let count: usize = shape.iter().product();
    // Row by row, so that no more is held than has come.
    let row = shape.last().copied().unwrap_or(1).max(1);
    let mut numbers = Vec::new();
    while numbers.len() < count {
        match wide {
            true => numbers.extend(bytes(8 * row)?.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b))),
            false => numbers.extend(bytes(4 * row)?.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b)))),
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    fn npy(header: &str, numbers: &[u8]) -> Vec<u8> {
        let padded = format!("{header:<117}\n");
        [b"\x93NUMPY\x01\x00", &(padded.len() as u16).to_le_bytes()[..], padded.as_bytes(), numbers].concat()
    }

    fn npz(arrays: &[(&str, Vec<u8>)], method: CompressionMethod) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = ZipWriter::new(file.reopen().unwrap());
        for (name, bytes) in arrays {
            archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        file
    }

    fn f64s(numbers: &[f64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    const MU: &str = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }";
    const SIGMA: &str = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }";

    #[test]
    fn arrays_are_read_stored_and_compressed() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let sigma = f64s(&[3.0, -1.0, -1.0, 4.0]);
            let file = npz(&[("mu.npy", npy(MU, &f64s(&[1.0, 2.5]))), ("sigma.npy", npy(SIGMA, &sigma))], method);
            assert_eq!(read(file.path()).unwrap(), (vec![1.0, 2.5], vec![3.0, -1.0, -1.0, 4.0]));
        }
        let narrow: Vec<u8> = [1.0f32, 2.5].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(array(&npy(&MU.replace("f8", "f4"), &narrow)[..], &|_| Ok(())).unwrap(), [1.0, 2.5]);
    }

    #[test]
    fn what_is_no_array_of_statistics_is_refused_and_no_more_is_read_than_there_is() {
        let message = |bytes: &[u8]| array(bytes, &|_| Ok(())).unwrap_err();
        let numbers = f64s(&[1.0, 2.5]);
        assert!(message(&npy(MU, &numbers[..15])).contains("cannot be read"));
        assert!(message(b"\x93NUMPX\x01\x00").contains("not an array"));
        assert!(message(b"\x93NUMPY\x09\x00").contains("version 9"));
        assert!(message(&npy(&MU.replace("<f8", "|O"), &numbers)).contains("|O"));
        assert!(message(&npy(&MU.replace("2,", "99999999999,"), &numbers)).contains("shape (99999999999,)"));
        assert!(message(&npy(&MU.replace("2,", "4096,4096"), &numbers)).contains("cannot be read"));
        assert!(message(&npy(&MU.replace("2,", "4097,4097"), &numbers)).contains("shape (4097,4097)"));
        assert!(message(&npy("{}", &numbers)).contains("of no single type"));
        let whole = npy(MU, &numbers);
        for length in 0..whole.len() {
            assert!(array(&whole[..length], &|_| Ok(())).is_err(), "cut after {length} bytes");
        }
        let file = npz(&[("mu.npy", npy(MU, &numbers))], CompressionMethod::Stored);
        assert!(read(file.path()).unwrap_err().to_string().contains("no array `sigma`"));
        let file = npz(&[("mu.npy", npy(MU, &numbers)), ("sigma.npy", npy(MU, &numbers))], CompressionMethod::Stored);
        assert!(read(file.path()).unwrap_err().to_string().contains("calls for [2, 2]"));
        // The shape is looked at before a number is read: of this one there is none.
        let sigma = npy(&SIGMA.replace("(2, 2)", "(3, 3)"), &[]);
        let file = npz(&[("mu.npy", npy(MU, &numbers)), ("sigma.npy", sigma)], CompressionMethod::Stored);
        assert!(read(file.path()).unwrap_err().to_string().contains("its shape is [3, 3], `mu` calls for [2, 2]"));
        let none = npz(&[("mu.npy", npy(&MU.replace("2,", "0,"), &[]))], CompressionMethod::Stored);
        assert!(read(none.path()).unwrap_err().to_string().contains("expected one side, of 1 or more"));
    }
}
