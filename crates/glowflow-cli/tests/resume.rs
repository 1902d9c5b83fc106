//! A run that is stopped, in whatever way, and resumed ends with the bytes of a run that never was.
#![cfg(unix)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Random, TINY, command, run};

/// Checkpoints, records and evaluations at steps of their own, some of which meet; images are changed at random.
const SETTINGS: &str = "--set train.log_every=5 --set train.eval_every=20 --set train.checkpoint_every=7 \
                        --set train.steps=63 --set data.flip=true --set data.shift=0.1";

/// What a run leaves and another must leave too. The logs for TensorBoard hold the time of day.
const FILES: [&str; 5] =
    ["model.safetensors", "best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "samples.png"];

fn start(threads: usize) -> String {
    let tiny = TINY.replace("--threads 2", &format!("--threads {threads}"));
    format!("train --data portraits --out run {tiny} {SETTINGS}")
}

fn resume() -> &'static str {
    "train --threads 2 --resume run"
}

/// A run that was left alone.
struct Reference {
    folder: PathBuf,
    seconds: f64,
}

fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let folder = common::shared_folder("resume");
        let started = Instant::now();
        run(&folder, &start(2)).ok();
        Reference { folder, seconds: started.elapsed().as_secs_f64() }
    })
}

#[track_caller]
fn assert_same(folder: &Path, what: &str) {
    let read = |folder: &Path, file: &str| std::fs::read(folder.join("run").join(file)).unwrap();
    for file in FILES {
        let (have, want) = (read(folder, file), read(&reference().folder, file));
        if file == "metrics.jsonl" {
            assert_eq!(
                String::from_utf8(have).unwrap(),
                String::from_utf8(want).unwrap(),
                "{file} after {what}"
            );
        } else {
            assert!(have == want, "{file} has other bytes after {what}");
        }
    }
    let leftovers: Vec<_> = std::fs::read_dir(folder.join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp") || name.starts_with(".glowflow-"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?} are left after {what}");
}

fn spawn(folder: &Path, line: &str) -> Child {
    command(folder, line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn killed_twenty_times() {
    let within = reference().seconds / 4.0;
    let mut random = Random(20);
    let (mut kills, mut runs) = (0, 0);
    while kills < 20 {
        // A run may reach its end before all kills are spent; then comes another.
        let folder = tempfile::tempdir().unwrap();
        let mut finished = false;
        while kills < 20 && !finished {
            let begun = folder.path().join("run/config.toml").exists();
            let line = if begun { resume().to_owned() } else { start(2) };
            let mut child = spawn(folder.path(), &line);
            std::thread::sleep(Duration::from_secs_f64(within * random.uniform()));
            child.kill().unwrap();
            let status = child.wait().unwrap();
            finished = status.success();
            assert!(finished || status.code().is_none(), "neither killed nor done: {status}");
            kills += usize::from(!finished);
        }
        if !finished {
            run(folder.path(), resume()).ok();
        }
        runs += 1;
        assert_same(folder.path(), &format!("{kills} kills in {runs} runs"));
    }
}

#[test]
fn stopped_by_a_signal() {
    for signal in ["TERM", "INT"] {
        // On a fast machine a run may be over before the signal reaches it.
        let stopped = (0..10).find_map(|_| {
            let folder = tempfile::tempdir().unwrap();
            let child = command(folder.path(), &start(2))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let metrics = folder.path().join("run/metrics.jsonl");
            let patience = Instant::now();
            while std::fs::metadata(&metrics).map_or(0, |file| file.len()) == 0 {
                assert!(patience.elapsed() < Duration::from_secs(60), "it does not train");
                std::thread::sleep(Duration::from_millis(1));
            }
            let kill = format!("kill -{signal} {}", child.id());
            Command::new("sh").args(["-c", &kill]).output().unwrap();
            let output = child.wait_with_output().unwrap();
            (output.status.code() != Some(0)).then_some((folder, output))
        });
        let (folder, output) = stopped.expect("a run that is still at work when the signal comes");
        let folder = folder.path();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("glowflow train --resume run"), "{stdout}");
        let checkpoint = |name| std::fs::read(folder.join("run").join(name)).unwrap();
        assert_ne!(
            checkpoint("checkpoint.safetensors"),
            std::fs::read(reference().folder.join("run/checkpoint.safetensors")).unwrap()
        );
        run(folder, resume()).ok();
        assert_same(folder, signal);
    }
}

#[test]
fn other_numbers_of_threads() {
    for threads in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &start(threads)).ok();
        assert_same(folder.path(), &format!("training with {threads} threads"));
    }
}

/// A finished run has nothing to add: neither a step nor a second record of its last evaluation.
#[test]
fn resumed_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &start(2)).ok();
    let summary = run(folder.path(), &format!("{} --json", resume())).ok().json();
    assert_eq!(summary["steps"], 63);
    assert_same(folder.path(), "being resumed after its end");
}

/// In parts, and from inside the run's folder by the name of the checkpoint.
#[test]
fn in_parts() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &format!("{} --steps 21", start(2))).ok();
    // 25 steps of 4 images.
    let inside = folder.path().join("run");
    run(&inside, "train --threads 2 --resume checkpoint.safetensors --images 100").ok();
    run(folder.path(), resume()).ok();
    // Each part ends with an evaluation of its own, which is in the records; the weights must not know.
    for file in ["model.safetensors", "samples.png"] {
        let read = |folder: &Path| std::fs::read(folder.join("run").join(file)).unwrap();
        assert!(read(folder.path()) == read(&reference().folder), "{file} has other bytes");
    }
}
