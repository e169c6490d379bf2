//! Pictures as PNG files: a user's own are read, drawn ones are written with what they were made with.

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, Encoder, EncodingError, Info, Limits, Transformations};
use undiffuse::pipeline::Rgba;

use super::output::note;
use super::{Error, input};

/// Longest side of a picture: no network takes a larger one.
const MAX_SIDE: u32 = 1 << 13;

/// Most bytes of a file: a picture of the longest sides that cannot be compressed has half as many.
const MAX_FILE: u64 = 1 << 30;

/// Most bytes of what is in a file besides pixels.
const MAX_OTHER: usize = 1 << 26;

/// Most bytes of a text that is looked at.
const MAX_TEXT: usize = 1 << 20;

/// A byte of a compressed picture stands for at most this many: deflate's best.
const MOST_FROM_A_BYTE: u64 = 1032;

/// The pixels of a PNG of any kind, 8 bits a channel, turned as its EXIF data says, which is how diffusers' `load_image` reads it.
pub fn read(path: &Path) -> Result<Rgba, Error> {
    let (picture, orientation) = read_with_orientation(path)?;
    Ok(turned(picture, orientation))
}

/// The pixels as they are stored, which is how pytorch-fid reads them.
pub fn read_as_stored(path: &Path) -> Result<Rgba, Error> {
    read_with_orientation(path).map(|(picture, _)| picture)
}

fn read_with_orientation(path: &Path) -> Result<(Rgba, u32), Error> {
    let file = input::read(path, MAX_FILE)?;
    if !file.starts_with(b"\x89PNG") {
        return Err(Error::path(path, "this is not a PNG, the one format that is read; convert the picture first"));
    }
    decode(&file).map_err(|message| Error::path(path, format!("this PNG cannot be read: {message}")))
}

/// How many pixels the PNG at `path` says that it has; 0 where it says nothing, and reading it will tell why.
pub fn pixels(path: &Path) -> usize {
    // The signature, and the length and the name of the first chunk, stand before width and height.
    let mut beginning = [0; 24];
    let read = input::open(path).and_then(|mut file| file.read_exact(&mut beginning));
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

/// The pixels as they are stored, and EXIF's number for how they are to be turned.
fn decode(file: &[u8]) -> Result<(Rgba, u32), String> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MAX_OTHER });
    // Palettes become colours, few bits become 8, and so do 16.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_iccp_chunk(true);
    let Info { width, height, .. } = *decoder.read_header_info().map_err(|e| e.to_string())?;
    if width.max(height) > MAX_SIDE {
        return Err(format!(
            "it has {width}×{height} pixels, expected sides of at most {MAX_SIDE}; make it smaller first"
        ));
    }
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let info = reader.info();
    // As it is stored, a bit a pixel in the smallest case. Interlaced lines are in parts, which takes no less.
    let stored = u64::from(height) * (u64::from(width) * info.bits_per_pixel() as u64).div_ceil(8);
    if stored / MOST_FROM_A_BYTE > file.len() as u64 {
        return Err(format!("it says that it has {width}×{height} pixels, which is more than it can hold"));
    }
    // The decoder takes for granted that colours are whole.
    if info.palette.as_ref().is_some_and(|palette| !palette.len().is_multiple_of(3)) {
        return Err("its palette ends in the middle of a colour".into());
    }
    let bytes = reader.output_buffer_size().ok_or("it is too large")?;
    let (width, height) = (width as usize, height as usize);
    let mut pixels = vec![0; 4 * width * height];
    let frame = reader.next_frame(pixels.get_mut(..bytes).ok_or("it is too large")?).map_err(|e| e.to_string())?;
    if [frame.width as usize, frame.height as usize] != [width, height] {
        return Err("its pixels are those of a part of the picture".into());
    }
    match frame.color_type {
        ColorType::Rgba => {}
        ColorType::Rgb => widen(&mut pixels, |&[r, g, b]| [r, g, b, 255]),
        ColorType::GrayscaleAlpha => widen(&mut pixels, |&[v, a]| [v, v, v, a]),
        ColorType::Grayscale => widen(&mut pixels, |&[v]| [v, v, v, 255]),
        ColorType::Indexed => return Err("its palette is missing".into()),
    }
    // EXIF data may come behind the pixels. What else is wrong there does them no harm.
    let _ = reader.finish();
    Ok((Rgba { width, height, pixels }, orientation(reader.info()).unwrap_or(1)))
}

/// Makes RGBA of pixels of `N` bytes that fill the first part of `pixels`, in place.
fn widen<const N: usize>(pixels: &mut [u8], rgba: impl Fn(&[u8; N]) -> [u8; 4]) {
    // From the last one on, so that none is written over before it was read.
    for index in (0..pixels.len() / 4).rev() {
        let (narrow, _) = pixels[N * index..].split_first_chunk().unwrap_or((&[0; N], &[]));
        let wide = rgba(narrow);
        pixels[4 * index..4 * index + 4].copy_from_slice(&wide);
    }
}

/// EXIF's orientation, looked for where Pillow does: in the EXIF chunk, or the text that other tools write it to, then in XMP.
fn orientation(info: &Info) -> Option<u32> {
    let exif = match &info.exif_metadata {
        Some(exif) => Some(exif.to_vec()),
        None => text(info, "Raw profile type exif").map(|text| hexadecimal(&text)),
    };
    exif.and_then(|exif| exif_orientation(&exif)).or_else(|| {
        let xmp = text(info, "XML:com.adobe.xmp")?;
        xmp.split("tiff:Orientation").skip(1).find_map(|rest| {
            let value = rest.strip_prefix("=\"").or(rest.strip_prefix('>'))?;
            value.chars().next()?.to_digit(10)
        })
    })
}

/// The bytes that stand as hexadecimal digits behind the first three lines of a text.
fn hexadecimal(text: &str) -> Vec<u8> {
    let digits = text.split('\n').skip(3).flat_map(str::chars).filter_map(|c| c.to_digit(16));
    let digits: Vec<u8> = digits.map(|digit| digit as u8).collect();
    digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect()
}

/// The tag `Orientation` of the first directory of EXIF data, which is a TIFF file without a picture.
fn exif_orientation(exif: &[u8]) -> Option<u32> {
    const ORIENTATION: u32 = 0x0112;
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let big_endian = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let number = |at: usize, length: usize| -> Option<u32> {
        let bytes = tiff.get(at..at.checked_add(length)?)?.iter();
        let shift = |number: u32, &byte: &u8| number << 8 | u32::from(byte);
        Some(if big_endian { bytes.fold(0, shift) } else { bytes.rev().fold(0, shift) })
    };
    let directory = number(4, 4)? as usize;
    let entries = (0..number(directory, 2)? as usize).map(|index| directory + 2 + 12 * index);
    let entry = { entries }.find(|&entry| number(entry, 2) == Some(ORIENTATION))?;
    // A byte, two or four, of which there is one.
    let length = match (number(entry + 2, 2)?, number(entry + 4, 4)?) {
        (1, 1) => 1,
        (3, 1) => 2,
        (4, 1) => 4,
        _ => return None,
    };
    number(entry + 8, length)
}

/// The picture turned from EXIF's `orientation` to one that stands upright.
fn turned(picture: Rgba, orientation: u32) -> Rgba {
    let Rgba { width: w, height: h, .. } = picture;
    if !(2..=8).contains(&orientation) {
        return picture;
    }
    let (width, height) = if orientation < 5 { (w, h) } else { (h, w) };
    let stored = picture.pixels.as_chunks::<4>().0;
    let mut pixels = Vec::with_capacity(picture.pixels.len());
    for y in 0..height {
        for x in 0..width {
            let (column, row) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            pixels.extend(stored[row * w + column]);
        }
    }
    Rgba { width, height, pixels }
}

/// Whether the PNG at `path` holds these `texts` by keyword, as [`encode`] writes them.
pub fn has_texts(path: &Path, texts: &[(&str, String)]) -> bool {
    let Ok(file) = input::read(path, MAX_FILE) else { return false };
    let decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MAX_OTHER });
    let Ok(reader) = decoder.read_info() else { return false };
    texts.iter().all(|(keyword, expected)| text(reader.info(), keyword).as_ref() == Some(expected))
}

/// The text by this keyword, of any of the three kinds of chunks; none if it is damaged or too long.
fn text(info: &Info, keyword: &str) -> Option<String> {
    let latin = || info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword);
    let compressed = || {
        let mut chunk = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword)?.clone();
        chunk.decompress_text_with_limit(MAX_TEXT).ok()?;
        chunk.get_text().ok()
    };
    let unicode = || {
        let mut chunk = info.utf8_text.iter().find(|chunk| chunk.keyword == keyword)?.clone();
        chunk.decompress_text_with_limit(MAX_TEXT).ok()?;
        chunk.get_text().ok()
    };
    latin().map(|chunk| chunk.text.clone()).or_else(compressed).or_else(unicode)
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
            let (picture, _) = decode(&png(color, depth, [2, 1], &stored)).unwrap();
            assert_eq!((picture.width, picture.height, picture.pixels), (2, 1, expected.into()), "{color:?} {depth:?}");
        }
    }

    /// A PNG of one chunk after the other.
    fn chunks(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
        let crc = |bytes: &[u8]| {
            !bytes.iter().fold(!0u32, |crc, &byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
            })
        };
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, content) in chunks {
            let named = [&name[..], content].concat();
            file.extend([&(content.len() as u32).to_be_bytes(), &named[..], &crc(&named).to_be_bytes()].concat());
        }
        file
    }

    /// The chunks of a PNG.
    fn chunks_of(png: &[u8]) -> Vec<(&[u8; 4], Vec<u8>)> {
        let (mut chunks, mut rest) = (Vec::new(), &png[8..]);
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (name, after) = after.split_first_chunk::<4>().unwrap();
            let (content, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            chunks.push((name, content.to_vec()));
            rest = &after[4..];
        }
        chunks
    }

    #[test]
    fn a_palette_of_any_length_is_read_or_refused() {
        for depth in [BitDepth::One, BitDepth::Two, BitDepth::Four, BitDepth::Eight] {
            let whole = png(ColorType::Indexed, depth, [1, 1], &[0]);
            for length in 3..=768 {
                let mut chunked = chunks_of(&whole);
                chunked.retain(|(name, _)| *name != b"tRNS");
                chunked.iter_mut().find(|(name, _)| *name == b"PLTE").unwrap().1 = vec![9; length];
                let decoded = decode(&chunks(&chunked));
                match length % 3 {
                    0 => assert_eq!(decoded.unwrap().0.pixels, [9, 9, 9, 255], "{length}"),
                    _ => assert!(decoded.unwrap_err().contains("palette"), "{length}"),
                }
            }
        }
    }

    #[test]
    fn flat_pictures_of_every_kind_are_read_however_few_bytes_they_take() {
        use BitDepth::{Eight, Four, One, Sixteen, Two};
        use ColorType::{Grayscale, GrayscaleAlpha, Indexed};
        const SIDE: usize = 1024;
        for (color, depth, samples) in [
            (Grayscale, One, 1),
            (Grayscale, Two, 1),
            (Grayscale, Four, 1),
            (Grayscale, Eight, 1),
            (Grayscale, Sixteen, 1),
            (GrayscaleAlpha, Eight, 2),
            (GrayscaleAlpha, Sixteen, 2),
            (Indexed, One, 1),
            (Indexed, Two, 1),
            (Indexed, Four, 1),
            (Indexed, Eight, 1),
            (ColorType::Rgb, Eight, 3),
            (ColorType::Rgb, Sixteen, 3),
            (ColorType::Rgba, Eight, 4),
            (ColorType::Rgba, Sixteen, 4),
        ] {
            let row = SIDE * samples * depth as usize / 8;
            let stored = vec![0; row * SIDE];
            let file = png(color, depth, [SIDE as u32; 2], &stored);
            let (picture, _) = decode(&file).unwrap_or_else(|error| panic!("{color:?} {depth:?}: {error}"));
            assert_eq!(picture.pixels.len(), 4 * SIDE * SIDE);
            // The best that deflate can do, with a filter's byte before each row.
            let least = [(row + 1) * SIDE / 1032 + 64, file.len()].into_iter().min().unwrap();
            let padded = [&file[..], &vec![0; least.saturating_sub(file.len())]].concat();
            assert!(decode(&padded).is_ok());
        }
    }

    /// 3×2 pixels that are their own numbers, and where these are once the picture is turned, by Pillow's `exif_transpose`.
    const TURNED: [(u32, [usize; 2], [u8; 6]); 9] = [
        (1, [3, 2], [0, 1, 2, 3, 4, 5]),
        (2, [3, 2], [2, 1, 0, 5, 4, 3]),
        (3, [3, 2], [5, 4, 3, 2, 1, 0]),
        (4, [3, 2], [3, 4, 5, 0, 1, 2]),
        (5, [2, 3], [0, 3, 1, 4, 2, 5]),
        (6, [2, 3], [3, 0, 4, 1, 5, 2]),
        (7, [2, 3], [5, 2, 4, 1, 3, 0]),
        (8, [2, 3], [2, 5, 1, 4, 0, 3]),
        (9, [3, 2], [0, 1, 2, 3, 4, 5]),
    ];

    #[test]
    fn pictures_are_turned_as_their_orientation_says_wherever_it_is_written() {
        let stored = png(ColorType::Grayscale, BitDepth::Eight, [3, 2], &[0, 1, 2, 3, 4, 5]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        for (orientation, size, expected) in TURNED {
            let number = orientation as u8;
            let little = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[number, 0, 0, 0][..], &[0; 4]].concat();
            let big = [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", &[0, number, 0, 0][..], &[0; 4]].concat();
            let digits: String = little.iter().map(|byte| format!("{byte:02x}")).collect();
            let profile =
                format!("Raw profile type exif\0\nexif\n{:8}\n{}\n{}\n", little.len(), &digits[..20], &digits[20..]);
            let xmp = format!("XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation=\"{number}\"/>");
            for (index, (name, content, behind)) in [
                (b"eXIf", little.clone(), false),
                (b"eXIf", big, false),
                (b"eXIf", [b"Exif\0\0", &little[..]].concat(), true),
                (b"tEXt", profile.into_bytes(), false),
                (b"iTXt", xmp.into_bytes(), true),
            ]
            .into_iter()
            .enumerate()
            {
                let mut all = chunks_of(&stored);
                let at = if behind { all.len() - 1 } else { 1 };
                all.insert(at, (name, content));
                fs::write(&path, chunks(&all)).unwrap();
                let picture = read(&path).unwrap();
                let grey: Vec<u8> = picture.pixels.iter().step_by(4).copied().collect();
                assert_eq!(
                    ([picture.width, picture.height], &grey[..]),
                    (size, &expected[..]),
                    "{orientation}, {index}"
                );
                let as_stored = read_as_stored(&path).unwrap();
                assert_eq!(([as_stored.width, as_stored.height], as_stored.pixels[4]), ([3, 2], 1));
            }
        }
    }

    #[test]
    fn no_damage_of_exif_data_makes_it_panic() {
        let whole = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        assert_eq!(exif_orientation(whole), Some(6));
        for length in 0..18 {
            assert_eq!(exif_orientation(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = *whole;
                damaged[at] = value;
                let _ = exif_orientation(&damaged);
            }
        }
        let endless = [b"MM\0*\xff\xff\xff\xff", &[0xff; 64][..]].concat();
        assert_eq!(exif_orientation(&endless), None);
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
        assert!(has_texts(&path, &given));
        assert!(!has_texts(&path, &[("parameters", "a cat".to_owned())]));
        assert!(!has_texts(&path, &[("comment", "a fox".to_owned())]));
        fs::write(&path, b"GIF89a").unwrap();
        assert_eq!((pixels(&path), has_texts(&path, &given)), (0, false));
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
        assert!(decode(&large).unwrap_err().contains("it has 30000×30000 pixels, expected sides of at most 8192"));
        Encoder::new(
            {
                encoded.clear();
                &mut encoded
            },
            8192,
            8192,
        )
        .write_header()
        .map(|_| ())
        .unwrap();
        large[8..33].copy_from_slice(&encoded[8..33]);
        assert!(decode(&large).unwrap_err().contains("more than it can hold"));
    }
}
