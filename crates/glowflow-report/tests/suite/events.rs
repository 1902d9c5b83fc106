//! Decodes event files and compares them with one written by TensorBoard.

use glowflow_report::events::EventLog;
use image::{Rgb, RgbImage};
use std::fs;

/// Written by the `RecordWriter` of Python's `tensorboard`: the version, the start of a session
/// resumed from step 100, and the scalar 3.5 as `bits_per_dim/train` at step 300.
const KNOWN_GOOD: &[u8] = include_bytes!("known_good.tfevents");

/// CRC-32C bit by bit, masked.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The messages of a file without their leading time; also checks the framing.
fn messages(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = file.split_first_chunk::<8>() {
        let (length_crc, rest) = rest.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_le_bytes(*length_crc), masked_crc(length));
        let (message, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let (message_crc, rest) = rest.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_le_bytes(*message_crc), masked_crc(message));
        assert_eq!(message[0], 0x09, "field 1, eight bytes: the time");
        messages.push(message[9..].to_vec());
        file = rest;
    }
    assert!(file.is_empty());
    messages
}

#[test]
fn scalars_match_those_written_by_tensorboard() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("not/there/yet");
    let mut log = EventLog::create(&runs, Some(100)).unwrap();
    log.scalar("bits_per_dim/train", 3.5, 300).unwrap();
    assert!(log.path().to_str().unwrap().contains("tfevents"));
    assert_eq!(messages(&fs::read(log.path()).unwrap()), messages(KNOWN_GOOD));
}

#[test]
fn a_picture_is_a_png_inside_its_event() {
    let folder = tempfile::tempdir().unwrap();
    let picture = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, 9]));
    let mut log = EventLog::create(folder.path(), None).unwrap();
    log.picture("samples", &picture, 7).unwrap();
    let messages = messages(&fs::read(log.path()).unwrap());
    assert_eq!(messages.len(), 2);
    let start = messages[1].windows(4).position(|bytes| bytes == b"\x89PNG");
    let png = &messages[1][start.expect("a PNG file")..];
    assert_eq!(image::load_from_memory(png).unwrap().to_rgb8(), picture);
}

#[test]
fn every_log_is_a_separate_file() {
    let folder = tempfile::tempdir().unwrap();
    let first = EventLog::create(folder.path(), None).unwrap();
    let second = EventLog::create(folder.path(), Some(3)).unwrap();
    assert!(first.path() < second.path());
}

/// Names sort in the order of creation, regardless of the clock at the time of creation.
#[test]
fn a_new_log_sorts_after_all_existing_ones() {
    let others = [
        // A day ahead, far ahead, as TensorFlow names them, and by a clock that started in 1970.
        "events.out.tfevents.1999999999999999999.7.glowflow",
        "events.out.tfevents.9000000000000000000.7.glowflow",
        "events.out.tfevents.9100000000.host.7.0",
        "events.out.tfevents.92.7.glowflow",
        "events.out.tfevents.no time",
        "events.out.tfevents.99999999999999999999999999.7.glowflow",
    ];
    for other in &others[..5] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(other), "damaged").unwrap();
        let first = EventLog::create(folder.path(), Some(3)).unwrap();
        let second = EventLog::create(folder.path(), Some(4)).unwrap();
        assert!(first.path() < second.path(), "{other}");
        // A name without a time cannot be sorted after.
        if !other.ends_with("no time") {
            assert!(first.path() > folder.path().join(other).as_path(), "{other}: {:?}", first.path());
        }
    }
    // A log is created even if existing names are malformed.
    let folder = tempfile::tempdir().unwrap();
    others.iter().for_each(|other| fs::write(folder.path().join(other), "").unwrap());
    EventLog::create(folder.path(), None).unwrap();
}
