//! A static file server for the site on this machine: what any static host does and, unless told not to, the headers that let the page
//! share memory between threads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result};

/// The longest request head that is read.
const HEAD_LIMIT: u64 = 16 * 1024;

/// The headers of a page that is cross-origin isolated.
const ISOLATION: &str = "Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Embedder-Policy: require-corp\r\n";

/// Serves `folder` on 127.0.0.1 until the process ends.
pub fn serve(folder: &Path, port: u16, is_isolated: bool) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
        format!("cannot listen on port {port}; pick another with --port, or a free one with --port 0")
    })?;
    println!("serving {} on http://{}/ (Ctrl-C ends it)", folder.display(), listener.local_addr()?);
    for stream in listener.incoming() {
        // One connection that could not be accepted is no reason to end.
        let Ok(stream) = stream else { continue };
        let folder = folder.to_owned();
        // A browser that closes early is no concern of the server's.
        thread::spawn(move || answer(&stream, &folder, is_isolated).ok());
    }
    Ok(())
}

/// Reads one request and answers it; the connection then closes.
fn answer(mut stream: &TcpStream, folder: &Path, is_isolated: bool) -> io::Result<()> {
    let Some(request) = Request::read(stream)? else {
        return respond(stream, "400 Bad Request", &[]);
    };
    if request.method != "GET" && request.method != "HEAD" {
        return respond(stream, "405 Method Not Allowed", &["Allow: GET, HEAD"]);
    }
    let Some(mut path) = resolve(folder, &request.target) else {
        return respond(stream, "404 Not Found", &[]);
    };
    if path.is_dir() {
        let bare = request.target.split(['?', '#']).next().unwrap_or_default();
        if !bare.ends_with('/') {
            // Relative URLs in the page resolve against the folder only with the slash.
            return respond(stream, "301 Moved Permanently", &[&format!("Location: {bare}/")]);
        }
        path.push("index.html");
    }
    let Ok(mut file) = File::open(&path) else {
        return respond(stream, "404 Not Found", &[]);
    };
    let metadata = file.metadata()?;
    let length = metadata.len();
    let etag = etag(length, metadata.modified()?);
    let etag_header = format!("ETag: {etag}");
    if request.if_none_match.as_deref() == Some(&etag) {
        return respond(stream, "304 Not Modified", &[&etag_header]);
    }
    let (status, range) = match request.range.as_deref().map(|range| parse_range(range, length)) {
        None | Some(Asked::Whole) => ("200 OK", 0..length),
        Some(Asked::Part(range)) => ("206 Partial Content", range),
        Some(Asked::Outside) => {
            return respond(stream, "416 Range Not Satisfiable", &[&format!("Content-Range: bytes */{length}")]);
        }
    };
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\nCache-Control: no-cache\r\n{etag_header}\r\nConnection: close\r\n",
        content_type(&path),
        range.end - range.start
    );
    if status.starts_with("206") {
        head += &format!("Content-Range: bytes {}-{}/{length}\r\n", range.start, range.end - 1);
    }
    if is_isolated {
        head += ISOLATION;
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "GET" {
        file.seek(SeekFrom::Start(range.start))?;
        io::copy(&mut file.take(range.end - range.start), &mut stream)?;
    }
    Ok(())
}

/// The name of a version of a file, by which a browser knows whether it has it, and whether the rest of a download belongs to its beginning.
fn etag(length: u64, modified: SystemTime) -> String {
    let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("\"{length:x}-{:x}\"", age.as_nanos())
}

/// An answer without a body.
fn respond(mut stream: &TcpStream, status: &str, headers: &[&str]) -> io::Result<()> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n")
}

/// The parts of a request that matter here.
struct Request {
    method: String,
    target: String,
    range: Option<String>,
    if_none_match: Option<String>,
}

impl Request {
    /// The request head, or nothing if this is not HTTP or is too long.
    fn read(stream: impl Read) -> io::Result<Option<Self>> {
        let mut lines = BufReader::new(stream.take(HEAD_LIMIT)).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let [method, target, "HTTP/1.0" | "HTTP/1.1"] = first.split(' ').collect::<Vec<_>>()[..] else {
            return Ok(None);
        };
        let mut request =
            Self { method: method.to_owned(), target: target.to_owned(), range: None, if_none_match: None };
        for line in lines {
            let line = line?;
            if line.is_empty() {
                return Ok(Some(request));
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.trim().to_owned()),
                "if-none-match" => request.if_none_match = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The file that a request's target names, if it lies below `folder`.
fn resolve(folder: &Path, target: &str) -> Option<PathBuf> {
    let path = percent_decode(target.split(['?', '#']).next()?)?;
    let path = Path::new(path.strip_prefix('/')?);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| folder.join(path))
}

/// The text that a percent-encoded one stands for, if it is UTF-8 without control characters.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

/// What a `Range` header asks of a file.
#[derive(Debug, PartialEq)]
enum Asked {
    /// Everything: the header is not one that this server understands, which HTTP allows to ignore.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Outside,
}

fn parse_range(header: &str, length: u64) -> Asked {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Asked::Whole,
    };
    if range.start < range.end { Asked::Part(range) } else { Asked::Outside }
}

/// The media type that browsers insist on: a module script or a streamed `.wasm` with another is refused.
fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_a_file_below_the_folder_whatever_its_query() {
        let folder = Path::new("site");
        assert_eq!(resolve(folder, "/"), Some(folder.to_owned()));
        assert_eq!(resolve(folder, "/pkg/index.js?v=1#x"), Some(folder.join("pkg/index.js")));
        assert_eq!(resolve(folder, "/a%20cat.png"), Some(folder.join("a cat.png")));
    }

    #[test]
    fn a_target_outside_the_folder_is_refused_however_it_is_written() {
        for target in [
            "/../Cargo.toml",
            "/%2e%2e/Cargo.toml",
            "/pkg/../../x",
            "//etc/passwd",
            "etc/passwd",
            "",
            "/%00",
            "/%2",
            "/%ff",
        ] {
            assert_eq!(resolve(Path::new("site"), target), None, "{target}");
        }
    }

    #[test]
    fn a_range_is_cut_to_the_file_and_refused_past_its_end() {
        assert_eq!(parse_range("bytes=0-3", 10), Asked::Part(0..4));
        assert_eq!(parse_range("bytes=4-", 10), Asked::Part(4..10));
        assert_eq!(parse_range("bytes=-3", 10), Asked::Part(7..10));
        assert_eq!(parse_range("bytes=8-99", 10), Asked::Part(8..10));
        assert_eq!(parse_range("bytes=10-", 10), Asked::Outside);
        assert_eq!(parse_range("bytes=0-", 0), Asked::Outside);
        assert_eq!(parse_range("bytes=0-1,4-5", 10), Asked::Whole);
        assert_eq!(parse_range("bytes=5-2", 10), Asked::Whole);
        assert_eq!(parse_range("lines=1-2", 10), Asked::Whole);
    }

    /// Sends one request to a server of a folder that holds `hello.json`; returns the whole answer.
    fn request(text: &str) -> String {
        request_to(false, text)
    }

    fn request_to(is_isolated: bool, text: &str) -> String {
        let folder =
            std::env::temp_dir().join(format!("undiffuse-serve-{}-{:?}", std::process::id(), thread::current().id()));
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(folder.join("hello.json"), "\"hello\"").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        answer(&listener.accept().unwrap().0, &folder, is_isolated).unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        reply
    }

    #[test]
    fn a_file_is_sent_with_its_type_and_length() {
        let reply = request("GET /hello.json HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(
            reply.contains("Content-Type: application/json\r\n") && reply.contains("Content-Length: 7\r\n"),
            "{reply}"
        );
        assert!(reply.ends_with("\r\n\r\n\"hello\""), "{reply}");
    }

    #[test]
    fn the_headers_for_shared_memory_are_sent_unless_told_not_to() {
        let text = "GET /hello.json HTTP/1.1\r\n\r\n";
        let reply = request_to(true, text);
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nCross-Origin-Opener-Policy: same-origin\r\n"), "{reply}");
        assert!(head.ends_with("\r\nCross-Origin-Embedder-Policy: require-corp"), "{reply}");
        assert_eq!(body, "\"hello\"");
        assert!(!request(text).contains("Cross-Origin"));
    }

    #[test]
    fn head_sends_no_body_and_a_range_sends_its_part() {
        assert!(request("HEAD /hello.json HTTP/1.1\r\n\r\n").ends_with("Connection: close\r\n\r\n"));
        let reply = request("GET /hello.json HTTP/1.1\r\nrange: bytes=1-3\r\n\r\n");
        assert!(reply.contains("206 Partial") && reply.contains("Content-Range: bytes 1-3/7\r\n"), "{reply}");
        assert!(reply.ends_with("\r\n\r\nhel"), "{reply}");
    }

    #[test]
    fn a_file_that_a_browser_has_is_not_sent_again_and_another_version_is() {
        let path = std::env::temp_dir().join(format!("undiffuse-serve-etag-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let file = path.join("hello.json");
        let ask = |more: &str| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(format!("GET /hello.json HTTP/1.1\r\n{more}\r\n").as_bytes()).unwrap();
            answer(&listener.accept().unwrap().0, &path, false).unwrap();
            let mut reply = String::new();
            client.read_to_string(&mut reply).unwrap();
            reply
        };
        std::fs::write(&file, "\"hello\"").unwrap();
        let first = ask("");
        let etag = first.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
        let again = ask(&format!("If-None-Match: {etag}\r\n"));
        assert!(again.starts_with("HTTP/1.1 304") && again.ends_with("\r\n\r\n"), "{again}");
        assert!(ask("Range: bytes=2-\r\n").contains(&etag));
        // As long, but written later.
        let later = SystemTime::now() + std::time::Duration::from_secs(1);
        std::fs::write(&file, "\"world\"").unwrap();
        File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
        let other = ask(&format!("If-None-Match: {etag}\r\n"));
        assert!(other.starts_with("HTTP/1.1 200") && other.ends_with("\"world\""), "{other}");
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_not_there_or_not_http_is_refused() {
        assert!(request("GET /missing HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(request("GET /../hello.json HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(request("POST /hello.json HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(request("hello\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(request("GET /sub HTTP/1.1\r\n\r\n").contains("Location: /sub/\r\n"));
    }
}
