//! Pictures as PNG files: a user's own are read, drawn ones are written with what they were made with.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Encoder, EncodingError, Limits, Transformations};
use undiffuse::pipeline::Rgba;

use super::Error;
use super::output::note;

/// A byte of a compressed picture stands for at most this many: deflate's best.
const MOST_FROM_A_BYTE: usize = 1032;

/// The pixels of a PNG of any kind, 8 bits a channel.
pub fn read(path: &Path) -> Result<Rgba, Error> {
    let file = fs::read(path).map_err(|e| Error::path(path, e))?;
    if !file.starts_with(b"\x89PNG") {
        return Err(Error::path(path, "this is not a PNG, the one format that is read; convert the picture first"));
    }
    decode(&file).map_err(|message| Error::path(path, format!("this PNG cannot be read: {message}")))
}

/// How many pixels the PNG at `path` says that it has; 0 where it says nothing, and reading it will tell why.
pub fn pixels(path: &Path) -> usize {
    // The signature, and the length and the name of the first chunk, stand before width and height.
    let mut beginning = [0; 24];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut beginning));
    let [.., w0, w1, w2, w3, h0, h1, h2, h3] = beginning;
    match read.is_ok() && beginning.starts_with(b"\x89PNG") {
        true => [[w0, w1, w2, w3], [h0, h1, h2, h3]].map(|side| u32::from_be_bytes(side) as usize).iter().product(),
        false => 0,
    }
}

/// The PNG files in `root` and in the folders inside, by their paths inside of it, in the order of these.
///
/// # Errors
/// A folder that cannot be read, or one without a PNG, of which `none` says what it should have been.
pub fn folder(root: &Path, none: &str) -> Result<Vec<PathBuf>, Error> {
    let (mut files, mut others) = (Vec::new(), 0);
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        let path = root.join(&inside);
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.map_err(|error| Error::path(&path, error))? {
            let inside = inside.join(entry.file_name());
            // A link to a folder is not followed: it may lead back up.
            match entry.file_type().map_err(|error| Error::path(&entry.path(), error))? {
                kind if kind.is_dir() => folders.push(inside),
                _ if inside.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) => {
                    files.push(inside);
                }
                _ => others += 1,
            }
        }
    }
    if files.is_empty() {
        return Err(Error::path(root, format!("there is no PNG in this folder or in those inside{none}")));
    }
    if others > 0 {
        let s = if others == 1 { " is" } else { "s are" };
        note(format_args!("warning: {}: {others} file{s} no PNG and left out", root.display()));
    }
    // Byte by byte, so that it is the same everywhere.
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(files)
}

/// The pictures that `paths` name: PNG files, and those of folders as [`folder`] finds them.
///
/// # Errors
/// A folder that cannot be read, or has no PNG.
pub fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        files.extend(folder(path, "")?.iter().map(|inside| path.join(inside)));
    }
    Ok(files)
}

fn decode(file: &[u8]) -> Result<Rgba, String> {
    let mut decoder = Decoder::new_with_limits(std::io::Cursor::new(file), Limits { bytes: 1 << 28 });
    // Palettes become colours, few bits become 8, and so do 16.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let bytes = reader.output_buffer_size().ok_or("it is too large")?;
    if bytes / MOST_FROM_A_BYTE > file.len() {
        return Err(format!("it says that it has {width}×{height} pixels, which is more than it can hold"));
    }
    let mut pixels = vec![0; bytes];
    let frame = reader.next_frame(&mut pixels).map_err(|e| e.to_string())?;
    pixels.truncate(frame.buffer_size());
    let pixels = match frame.color_type {
        ColorType::Rgba => pixels,
        ColorType::Rgb => pixels.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect(),
        ColorType::GrayscaleAlpha => pixels.as_chunks::<2>().0.iter().flat_map(|&[v, a]| [v, v, v, a]).collect(),
        ColorType::Grayscale => pixels.iter().flat_map(|&v| [v, v, v, 255]).collect(),
        ColorType::Indexed => return Err("its palette is missing".into()),
    };
    Ok(Rgba { width, height, pixels })
}

/// The texts by keyword in the PNG at `path`, as [`encode`] writes them; none in what is no PNG.
pub fn texts(path: &Path) -> Vec<(String, String)> {
    let Ok(file) = fs::read(path) else { return Vec::new() };
    let Ok(reader) = Decoder::new_with_limits(std::io::Cursor::new(file), Limits { bytes: 1 << 20 }).read_info() else {
        return Vec::new();
    };
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let unicode = info.utf8_text.iter().filter_map(|chunk| Some((chunk.keyword.clone(), chunk.get_text().ok()?)));
    latin.chain(unicode).collect()
}

/// The picture as a PNG with `texts` by keyword; its alpha, which is opaque everywhere, is left out.
pub fn encode(picture: &Rgba, texts: &[(&str, String)]) -> Result<Vec<u8>, EncodingError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, picture.width as u32, picture.height as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    for (keyword, text) in texts {
        // Plain text chunks know Latin-1 only.
        match text.chars().all(|c| matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}')) {
            true => encoder.add_text_chunk((*keyword).to_owned(), text.clone())?,
            false => encoder.add_itxt_chunk((*keyword).to_owned(), text.clone())?,
        }
    }
    let mut writer = encoder.write_header()?;
    let rgb: Vec<u8> = picture.pixels.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG of the kind, with `bytes` as they are stored.
    fn png(color: ColorType, depth: BitDepth, [width, height]: [u32; 2], bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![1, 2, 3, 40, 50, 60]);
            encoder.set_trns(vec![255, 7]);
        }
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        file
    }

    #[test]
    fn every_kind_of_png_is_read() {
        use BitDepth::{Eight, One, Sixteen};
        use ColorType::{Grayscale, GrayscaleAlpha, Indexed};
        for (color, depth, stored, expected) in [
            (Grayscale, One, vec![0b0100_0000], [0, 0, 0, 255, 255, 255, 255, 255]),
            (Grayscale, Eight, vec![9, 200], [9, 9, 9, 255, 200, 200, 200, 255]),
            (Grayscale, Sixteen, vec![9, 255, 200, 0], [9, 9, 9, 255, 200, 200, 200, 255]),
            (GrayscaleAlpha, Eight, vec![9, 8, 7, 6], [9, 9, 9, 8, 7, 7, 7, 6]),
            (ColorType::Rgb, Eight, vec![1, 2, 3, 4, 5, 6], [1, 2, 3, 255, 4, 5, 6, 255]),
            (ColorType::Rgba, Eight, vec![1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]),
            (Indexed, Eight, vec![1, 0], [40, 50, 60, 7, 1, 2, 3, 255]),
            (Indexed, One, vec![0b1000_0000], [40, 50, 60, 7, 1, 2, 3, 255]),
        ] {
            let picture = decode(&png(color, depth, [2, 1], &stored)).unwrap();
            assert_eq!((picture.width, picture.height, picture.pixels), (2, 1, expected.into()), "{color:?} {depth:?}");
        }
    }

    #[test]
    fn folders_are_searched_with_those_inside_in_the_order_of_bytes() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("b/inside")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        for name in ["b.png", "B.PNG", "b/inside/a.png", "b/2.png", "b/10.png", "notes.txt"] {
            fs::write(path(name), "").unwrap();
        }
        let expected = ["B.PNG", "b.png", "b/10.png", "b/2.png", "b/inside/a.png"].map(PathBuf::from);
        assert_eq!(folder(root.path(), "").unwrap(), expected);
        let given = [path("notes.txt"), path("b")];
        let inside = ["b/10.png", "b/2.png", "b/inside/a.png"].map(&path);
        assert_eq!(files(&given).unwrap(), [&given[..1], &inside[..]].concat());
        let error = folder(&path("empty"), ", nor a model").unwrap_err().to_string();
        assert!(error.ends_with("empty: there is no PNG in this folder or in those inside, nor a model"), "{error}");
    }

    #[test]
    fn size_and_texts_are_read_without_the_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let picture = Rgba { width: 3, height: 2, pixels: vec![9; 24] };
        let given = [("parameters", "a fox".to_owned()), ("undiffuse", "{\"prompt\":\"лиса\"}".to_owned())];
        fs::write(&path, encode(&picture, &given).unwrap()).unwrap();
        assert_eq!(pixels(&path), 6);
        let found = texts(&path);
        assert!(found.iter().map(|(keyword, text)| (&keyword[..], text)).eq(given.iter().map(|(k, t)| (*k, t))));
        fs::write(&path, b"GIF89a").unwrap();
        assert_eq!((pixels(&path), texts(&path)), (0, vec![]));
    }

    #[test]
    fn no_damage_makes_it_panic_or_hold_more_than_arrived() {
        let whole = png(ColorType::Rgb, BitDepth::Eight, [16, 16], &[77; 768]);
        for length in 0..whole.len() - 12 {
            assert!(decode(&whole[..length]).is_err(), "cut after {length} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = decode(&damaged);
        }
        // A header that claims 30000×30000 pixels, with the checksum that it has to have.
        let mut large = png(ColorType::Rgba, BitDepth::Eight, [1, 1], &[0; 4]);
        let mut encoded = Vec::new();
        Encoder::new(&mut encoded, 30_000, 30_000).write_header().map(|_| ()).unwrap();
        large[8..33].copy_from_slice(&encoded[8..33]);
        assert!(decode(&large).unwrap_err().contains("30000×30000 pixels"));
    }
}
