//! A run that is stopped in any way and resumed writes the same bytes as an uninterrupted run.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{self, Random, TINY, command, run};

/// Checkpoints, records and evaluations at different intervals, some of which coincide; images are augmented.
const SETTINGS: &str = "--set train.log_every=5 --set train.eval_every=20 --set train.checkpoint_every=7 \
                        --set train.steps=63 --set data.flip=true --set data.shift=0.1";

/// Files that must be equal. TensorBoard's logs are excluded, because they contain the time of day.
const FILES: [&str; 5] =
    ["model.safetensors", "best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "samples.png"];

fn start(threads: usize) -> String {
    let tiny = TINY.replace("--threads 2", &format!("--threads {threads}"));
    format!("train --data portraits --out run {tiny} {SETTINGS}")
}

fn resume() -> &'static str {
    "train --threads 2 --resume run"
}

/// An uninterrupted run.
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

fn kill(child: &Child, signal: &str) {
    let kill = format!("kill -{signal} {}", child.id());
    Command::new("sh").args(["-c", &kill]).output().unwrap();
}

/// Waits until a file contains `text`.
#[track_caller]
fn wait_for(file: &Path, text: &str) {
    let began = Instant::now();
    while !std::fs::read_to_string(file).is_ok_and(|have| have.contains(text)) {
        assert!(began.elapsed() < Duration::from_secs(120), "{text:?} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn killed_twenty_times() {
    let within = reference().seconds / 4.0;
    let mut random = Random(20);
    let (mut kills, mut runs) = (0, 0);
    while kills < 20 {
        // A run may finish before all kills are used; then another one starts.
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
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        // On a fast machine a run may finish before the signal arrives.
        let stopped = (0..10).find_map(|_| {
            let folder = tempfile::tempdir().unwrap();
            let child = command(folder.path(), &format!("{} --minutes 60", start(2)))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let metrics = folder.path().join("run/metrics.jsonl");
            let began = Instant::now();
            while std::fs::metadata(&metrics).map_or(0, |file| file.len()) == 0 {
                assert!(began.elapsed() < Duration::from_secs(60), "it does not train");
                std::thread::sleep(Duration::from_millis(1));
            }
            kill(&child, signal);
            let output = child.wait_with_output().unwrap();
            (output.status.code() != Some(0)).then_some((folder, output))
        });
        let (folder, output) = stopped.expect("a run that is still at work when the signal comes");
        let folder = folder.path();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("glowflow train --resume run"), "{stdout}");
        // With what remains of the limit.
        assert!(stdout.contains(" --minutes "), "{stdout}");
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

/// Resuming a finished run adds nothing: neither a step nor a second record of its last evaluation.
#[test]
fn resumed_after_its_end() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &start(2)).ok();
    let summary = run(folder.path(), &format!("{} --json", resume())).ok().json();
    assert_eq!(summary["steps"], 63);
    assert_same(folder.path(), "being resumed after its end");
}

/// Training in parts, also from inside the run's folder, with the file name of the checkpoint.
#[test]
fn in_parts() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &format!("{} --steps 21", start(2))).ok();
    // 25 steps of 4 images.
    let inside = folder.path().join("run");
    run(&inside, "train --threads 2 --resume checkpoint.safetensors --images 100").ok();
    run(folder.path(), resume()).ok();
    // Each part adds an evaluation to the records, which must not affect the weights.
    for file in ["model.safetensors", "samples.png"] {
        let read = |folder: &Path| std::fs::read(folder.join("run").join(file)).unwrap();
        assert!(read(folder.path()) == read(&reference().folder), "{file} has other bytes");
    }
}

/// A stop cancels an evaluation, and the resumed run repeats it.
#[test]
fn stopped_during_an_evaluation() {
    let long = "train --data portraits --out run --threads 2 --set model.image=[64,64,3] --set model.levels=2 --set model.steps=2 \
                --set model.hidden=8 --set train.batch=4 --set train.eval_images=300 --set train.eval_every=3 \
                --set train.log_every=1 --set train.checkpoint_every=1000 --steps 4";
    let whole = tempfile::tempdir().unwrap();
    run(whole.path(), long).ok();
    // The evaluation may finish before the signal arrives; then try again.
    let stopped = (0..10).find_map(|_| {
        let stopped = tempfile::tempdir().unwrap();
        let child =
            command(stopped.path(), long).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let metrics = stopped.path().join("run/metrics.jsonl");
        wait_for(&metrics, "\"step\":3");
        // Ctrl-C at a terminal reaches the program and a wrapper, which sends another signal.
        kill(&child, "INT");
        kill(&child, "TERM");
        let output = child.wait_with_output().unwrap();
        let in_time = !std::fs::read_to_string(&metrics).unwrap().contains("test_bits_per_dim");
        in_time.then_some((stopped, output))
    });
    let (stopped, output) = stopped.expect("a signal during the evaluation");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert_eq!(stderr.matches("stopping").count(), 1, "{stderr}");
    let summary = run(stopped.path(), &format!("{} --steps 4 --json", resume())).ok().json();
    assert_eq!((&summary["steps"], &summary["saved_step"]), (&4.into(), &4.into()));
    for file in FILES {
        let read = |folder: &Path| std::fs::read(folder.join("run").join(file)).unwrap();
        assert!(read(stopped.path()) == read(whole.path()), "{file} has other bytes");
    }
}

/// Signals that are ignored at the start stay ignored, as under `nohup` and for background jobs of shells.
#[test]
#[cfg(target_os = "linux")]
fn ignored_signals_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("{} --steps 40", start(2));
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP INT; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_glowflow")])
        .args(line.split_whitespace())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&folder.path().join("run/metrics.jsonl"), "\"step\":5");
    kill(&child, "HUP");
    kill(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A stop before training takes effect, and leaves no files.
#[test]
fn stopped_before_training_begins() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|made| made.success()) {
        eprintln!("skipped: there is no mkfifo");
        return;
    }
    let line = format!("train --data portraits --config pipe --out new/run {TINY}");
    let child = command(folder.path(), &line).stderr(Stdio::piped()).spawn().unwrap();
    // Returns once the program reads its configuration.
    let config = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
    kill(&child, "TERM");
    std::thread::sleep(Duration::from_millis(200));
    drop(config);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("before training began"), "{output:?}");
    assert!(!folder.path().join("new").exists(), "a folder is left");
}

/// A damaged log is set aside, and the resumed run writes the same bytes.
#[test]
fn resumed_with_a_damaged_log() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &format!("{} --steps 30", start(2))).ok();
    let log = folder.path().join("run/metrics.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen('\n', "\ngarbage\n", 2)).unwrap();
    let outcome = run(folder.path(), resume()).ok();
    assert!(outcome.stderr.contains("metrics.jsonl.damaged"), "{}", outcome.stderr);
    assert!(
        std::fs::read_to_string(folder.path().join("run/metrics.jsonl.damaged")).unwrap().contains("garbage")
    );
    for file in ["model.safetensors", "samples.png"] {
        let read = |folder: &Path| std::fs::read(folder.join("run").join(file)).unwrap();
        assert!(read(folder.path()) == read(&reference().folder), "{file} has other bytes");
    }
}

/// A failure to create TensorBoard's log folder does not stop the run either.
#[test]
fn resumed_without_room_for_events() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &format!("{} --steps 10", start(2))).ok();
    let events = folder.path().join("run/events");
    std::fs::remove_dir_all(&events).unwrap();
    std::fs::write(&events, "no folder").unwrap();
    let outcome = run(folder.path(), resume()).ok();
    assert!(outcome.stderr.contains("without a log for TensorBoard"), "{}", outcome.stderr);
}

/// A limit on file sizes emulates a full disk: after any failed write, the next attempt accepts the folder.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_a_folder_that_the_next_run_accepts() {
    let size = |name: &str| std::fs::metadata(reference().folder.join("run").join(name)).unwrap().len();
    let (model, checkpoint) = (size("model.safetensors"), size("checkpoint.safetensors"));
    assert!(model < checkpoint);
    for bytes in [0, 300, 3000, model / 2, model + 2048, (model + checkpoint) / 2, checkpoint - 2048] {
        let folder = tempfile::tempdir().unwrap();
        // A write beyond the limit fails, because the signal is ignored. Blocks have 512 bytes.
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", bytes / 512);
        let output = Command::new("sh")
            .args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_glowflow")])
            .args(format!("{} --steps 2", start(2)).split_whitespace())
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{bytes} bytes: {output:?}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(left.is_empty(), "after {bytes} bytes there is {left:?}");
        run(folder.path(), &format!("{} --steps 2", start(2))).ok();
    }
}
