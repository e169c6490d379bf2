//! Files in the place of a checkpoint's that are none: told by their first bytes, with what to do about them.

use super::Error;

/// Number of bytes that are looked at.
pub(super) const HEAD: usize = 256;

/// Beginnings of files, and what these are. A web page's and a server's answer may come after blanks, and in any case.
const KNOWN: [(&[u8], &str); 24] = [
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, which stands for the file; run `git lfs pull` where it was cloned, or download the file itself",
    ),
    (b"<!doctype html", WEB_PAGE),
    (b"<html", WEB_PAGE),
    (b"<?xml", ANSWER),
    (b"<error>", ANSWER),
    (b"\"error\"", ANSWER),
    (b"\"message\"", ANSWER),
    (b"\"detail\"", ANSWER),
    (b"PK\x03\x04", ARCHIVE),
    (b"\x1F\x8B\x08", ARCHIVE),
    (b"7z\xBC\xAF\x27\x1C", ARCHIVE),
    (b"Rar!\x1A\x07", ARCHIVE),
    (b"\x28\xB5\x2F\xFD", ARCHIVE),
    (b"\xFD7zXZ\0", ARCHIVE),
    (b"BZh", ARCHIVE),
    (b"%PDF-", "a PDF, and no part of a checkpoint"),
    (b"\x89PNG", PICTURE),
    (b"\xFF\xD8\xFF", PICTURE),
    (b"RIFF", PICTURE),
    (b"GIF8", PICTURE),
    (b"\x89HDF", "an HDF5 file, as Keras writes it, which is not supported; take the model as safetensors"),
    (b"\x93NUMPY", "a NumPy array, and no part of a checkpoint"),
    (b"tjgg", OLD_GGML),
    (b"lmgg", OLD_GGML),
];
const WEB_PAGE: &str =
    "a web page in place of the file; sign in there if it asks for that, and take the address of its download";
const ANSWER: &str = "what a server answered in place of the file";
const ARCHIVE: &str = "an archive; unpack it, and open what is in it";
const PICTURE: &str = "a picture, and no part of a checkpoint";
const OLD_GGML: &str = "a file of ggml from before GGUF, which is not supported; take the model as GGUF";

/// An error about `file`, which begins with `head`, if that is known to be something else than what is looked for.
pub(super) fn recognise(file: &str, head: &[u8]) -> Option<Error> {
    // torch.save writes a zip archive around a pickle; in its first versions it wrote pickles one after the other.
    let contains = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
    let zipped = head.starts_with(b"PK\x03\x04") && (head.len() < 30 || contains(b".pkl"));
    if zipped || matches!(head, [0x80, 2..=5, opcode, ..] if *opcode != 0) {
        return Some(Error::Pickle { file: file.to_owned() });
    }
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    // The first key of an object, and anything else as it is.
    let first = text.strip_prefix(b"{").map_or(text, <[u8]>::trim_ascii_start);
    let begins = |start: &[u8]| {
        head.starts_with(start) || first.get(..start.len()).is_some_and(|first| first.eq_ignore_ascii_case(start))
    };
    let found = KNOWN.iter().find(|(start, _)| begins(start)).map(|(_, what)| *what)?;
    let found = if found == ANSWER { format!("{found}: {}", beginning(text)) } else { found.to_owned() };
    Some(Error::Foreign { file: file.to_owned(), found })
}

/// The like for a file of tensors, which no text can be, nor zeros.
pub(super) fn recognise_in_place_of_tensors(file: &str, head: &[u8]) -> Option<Error> {
    let foreign = |found: String| Some(Error::Foreign { file: file.to_owned(), found });
    // The head may end within a letter.
    let is_text = |text: &[u8]| {
        let valid = str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
        let control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
        valid + 3 >= text.len() && !text.iter().any(control)
    };
    match head {
        _ if head.len() < 9 => recognise(file, head),
        _ if head.len() == HEAD && head.iter().all(|&byte| byte == 0) => {
            foreign("a file that begins with zeros: it was not downloaded to its end; download it again".to_owned())
        }
        _ => recognise(file, head).or_else(|| {
            let found = || format!("a text in place of tensors: {}; download the file itself", beginning(head));
            is_text(head).then(found).and_then(foreign)
        }),
    }
}

/// The first words of a text, quoted.
fn beginning(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(120).collect();
    format!("{text:?}")
}
