//! The examples that a user of the library would copy, run as they stand.

#[allow(dead_code)] // Its `main` reads a command line.
#[path = "../examples/bytes.rs"]
mod bytes;
#[allow(dead_code)]
#[path = "../examples/draw.rs"]
mod draw;
#[allow(dead_code)]
#[path = "../examples/schedule.rs"]
mod schedule;

use std::path::Path;

fn emoji64() -> String {
    format!("{}/www/models/emoji64", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_picture_is_drawn_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("panda.png");
    draw::draw(&emoji64(), "panda, noto style", &out).unwrap();
    let png = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(out).unwrap())).read_info().unwrap();
    assert_eq!((png.info().width, png.info().height), (64, 64));
}

#[test]
fn a_schedule_is_read() {
    let config = std::fs::read_to_string(format!("{}/scheduler/scheduler_config.json", emoji64())).unwrap();
    let run = schedule::run_of(&config, 10).unwrap();
    assert_eq!(run.len(), 10);
    assert!(run.windows(2).all(|pair| pair[0].0 > pair[1].0 && pair[0].1 < pair[1].1), "{run:?}");
}

#[test]
fn a_checkpoint_is_opened_from_bytes() {
    assert_eq!(bytes::what_it_is(Path::new(&emoji64())).unwrap().height, 64);
}
