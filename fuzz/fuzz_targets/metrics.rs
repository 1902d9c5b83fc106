//! The log of a run, `metrics.jsonl`. It never prevents the run from resuming, and contains only records
//! afterwards.

#![no_main]

use std::fs;

use glowflow_report::metrics::{MetricsLog, points, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // A damaged log is copied to an unused name, so each run uses a new folder.
    let folder = tempfile::tempdir().expect("no temporary folder");
    let path = folder.path().join("metrics.jsonl");
    fs::write(&path, bytes).expect("the file cannot be written");
    if let Ok(records) = read(&path) {
        points(&records, "train_bits_per_dim");
    }
    MetricsLog::open(&path, Some(4)).expect("a run resumes");
    let records = read(&path).expect("the resumed log holds records");
    assert!(points(&records, "step").iter().all(|&(step, _)| step <= 4.0));
});
