//! The log of a resumed run equals that of an uninterrupted one.

use glowflow_report::Error;
use glowflow_report::metrics::{MetricsLog, points, read};
use serde_json::json;
use std::{fs, io::Write, path::Path};

fn log_steps(log: &mut MetricsLog, steps: impl Iterator<Item = u64>) {
    for step in steps {
        let record = json!({ "step": step, "train": 8.0 / step as f64, "what": "größer" });
        log.append(&record).unwrap();
    }
}

fn append_bytes(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn resuming_cuts_back_to_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, resumed] = ["whole", "resumed"].map(|name| folder.path().join(name));
    log_steps(&mut MetricsLog::open(&whole, None).unwrap(), 1..=10);

    log_steps(&mut MetricsLog::open(&resumed, None).unwrap(), 1..=7);
    // Killed while writing step 8, in the middle of the letter ö.
    append_bytes(&resumed, b"{\"step\":8,\"train\":1.0,\"what\":\"gr\xc3");
    assert_eq!(read(&resumed).unwrap().len(), 7);
    log_steps(&mut MetricsLog::open(&resumed, Some(5)).unwrap(), 6..=10);

    assert_eq!(fs::read(&resumed).unwrap(), fs::read(&whole).unwrap());
}

#[test]
fn without_a_checkpoint_the_log_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    log_steps(&mut MetricsLog::open(&path, None).unwrap(), 1..=3);
    MetricsLog::open(&path, None).unwrap();
    assert!(read(&path).unwrap().is_empty());
    // A checkpoint that precedes the first record.
    fs::remove_file(&path).unwrap();
    MetricsLog::open(&path, Some(4)).unwrap();
    assert!(read(&path).unwrap().is_empty());
}

#[test]
fn records_come_back_as_points() {
    #[derive(serde::Serialize)]
    struct Evaluation {
        step: u64,
        test: f32,
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut log = MetricsLog::open(&path, None).unwrap();
    log.append(&Evaluation { step: 1, test: 3.5 }).unwrap();
    log.append(&json!({ "step": 2, "train": 3.0 })).unwrap();
    let test = f32::NAN;
    log.append(&Evaluation { step: 3, test }).unwrap();
    let records = read(&path).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(points(&records, "test"), [(1.0, 3.5)]);
    assert_eq!(points(&records, "train"), [(2.0, 3.0)]);
}

#[test]
fn values_that_are_not_records_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut log = MetricsLog::open(&path, None).unwrap();
    for bad in [json!(3), json!({ "train": 1.0 }), json!({ "step": -1 })] {
        assert!(matches!(log.append(&bad), Err(Error::Record { .. })));
    }
    log_steps(&mut log, 1..=1);
    let sound = std::fs::read(&path).unwrap();
    // At the end it counts as the result of a power failure.
    for torn in [&b"oops\n"[..], b"\0\0\0\n", b"\xff\xfe\n{\"step\":\n{\"st"] {
        append_bytes(&path, torn);
        assert_eq!(read(&path).unwrap().len(), 1);
        drop(MetricsLog::open(&path, Some(1)).unwrap());
        assert!(std::fs::read(&path).unwrap() == sound, "{torn:?} stays");
    }
    append_bytes(&path, b"oops\n{\"step\":2}\n");
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("line 2") && message.contains("metrics.jsonl"));
}

#[test]
fn a_damaged_log_is_set_aside_and_its_sound_records_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    log_steps(&mut MetricsLog::open(&path, None).unwrap(), 1..=4);
    assert!(MetricsLog::open(&path, Some(4)).unwrap().set_aside().is_none(), "it is sound");
    let sound = fs::read_to_string(&path).unwrap();
    for (count, garbage) in ["oops", "{\"step\":-1}", "\0\0\0", "\u{fffd}{\"step\":3}"].iter().enumerate() {
        let lines: Vec<&str> = sound.lines().collect();
        let damaged = [lines[0], garbage, lines[1], lines[3], ""].join("\n");
        fs::write(&path, &damaged).unwrap();
        let log = MetricsLog::open(&path, Some(3)).unwrap();
        let aside = log.set_aside().expect("the damaged log").to_owned();
        assert_eq!(fs::read_to_string(&aside).unwrap(), damaged);
        assert!(aside.to_str().unwrap().contains("metrics.jsonl.damaged"), "{aside:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2 + count, "each has a different name");
        assert_eq!(fs::read_to_string(&path).unwrap(), [lines[0], lines[1], ""].join("\n"));
    }
    // Nothing of it is left.
    fs::write(&path, b"\x89PNG and so on, without an end").unwrap();
    assert!(MetricsLog::open(&path, Some(3)).unwrap().set_aside().is_some());
    // A folder at the log's path.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(MetricsLog::open(&path, Some(3)).unwrap().set_aside().is_some_and(Path::is_dir));
    assert!(read(&path).unwrap().is_empty());
}
