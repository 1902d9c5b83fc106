//! `glowflow` under the launchers of installed MPI libraries.

// Each test binary compiles this file and uses a part of it.
#![allow(dead_code)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[path = "../../../glowflow-ranks/tests/common/mod.rs"]
pub mod jobs;

use jobs::{Engine, Job};

/// Timeout of a job that does not wait for a limit.
pub const JOB: Duration = Duration::from_secs(120);
/// Files that are determined by the computation alone.
const FILES: [&str; 5] =
    ["model.safetensors", "best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "config.toml"];

/// The command line of a run in the folder `out`, on the CPU, with a record of each step.
pub fn train(out: &str, rest: &str) -> String {
    let tiny = crate::common::TINY;
    format!("train --device cpu --data portraits --out {out} {tiny} --set train.log_every=1 {rest}")
}

/// `glowflow` on `size` ranks with the arguments in `line`, in `folder`.
pub fn start(engine: &Engine, size: usize, folder: &Path, line: &str) -> Job {
    start_with(engine.command(), size, folder, line)
}

/// The same, with a launcher and its options.
pub fn start_with(mut launcher: Command, size: usize, folder: &Path, line: &str) -> Job {
    launcher.args(["-n", &size.to_string(), env!("CARGO_BIN_EXE_glowflow")]).args(line.split_whitespace());
    Job::start(launcher.current_dir(folder))
}

/// A folder name for an engine and a case.
pub fn name(engine: &Engine, case: &str) -> String {
    format!("{}-{case}", engine.name.replace(' ', "-"))
}

/// The processes of two ranks that train in the folder `out`, which no other run uses.
pub fn processes(out: &str) -> Vec<String> {
    vec![process(out, 0), process(out, 1)]
}

fn process(out: &str, rank: usize) -> String {
    let begin = Instant::now();
    while begin.elapsed() < JOB {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
            let (line, variables) = (read("cmdline"), read("environ"));
            let has = |text: &[u8], word: &str| text.split(|&byte| byte == 0).any(|x| x == word.as_bytes());
            let numbered = |name: &str| has(&variables, &format!("{name}={rank}"));
            if has(&line, out)
                && line.starts_with(env!("CARGO_BIN_EXE_glowflow").as_bytes())
                && (numbered("OMPI_COMM_WORLD_RANK") || numbered("PMI_RANK"))
            {
                return entry.file_name().to_string_lossy().into_owned();
            }
        }
        sleep(Duration::from_millis(20));
    }
    panic!("rank {rank} of {out} did not start")
}

/// Waits until a run has recorded steps.
pub fn wait_for_steps(run: &Path) {
    let begin = Instant::now();
    let lines = || fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count();
    while lines() < 5 {
        assert!(begin.elapsed() < JOB, "{} has {} records", run.display(), lines());
        sleep(Duration::from_millis(10));
    }
}

#[track_caller]
pub fn assert_same_files(folder: &Path, have: &str, want: &str) {
    for name in FILES {
        let read = |run: &str| fs::read(folder.join(run).join(name)).unwrap();
        assert!(read(have) == read(want), "{have}: {name}");
    }
}

/// Asserts equal weights and moments. The step of the best model may differ, because stops add evaluations.
#[track_caller]
pub fn assert_same_state(folder: &Path, have: &str, want: &str) {
    let [have, want] = [have, want].map(|run| state(&folder.join(run)));
    assert!(have.weights == want.weights && have.first == want.first && have.second == want.second);
    assert!(have.ema == want.ema && have.buffers == want.buffers);
    assert_eq!(have.progress.step, want.progress.step);
}

/// The state in a run's checkpoint.
pub fn state(run: &Path) -> glowflow::train::TrainState {
    glowflow::train::checkpoint::load(&run.join("checkpoint.safetensors")).unwrap().1
}

/// Asserts that a run resumes from its last complete step, and that this is not its first.
#[track_caller]
pub fn assert_resumes(folder: &Path, out: &str) {
    let step = state(&folder.join(out)).progress.step;
    assert!(step > 0, "{out}");
    let line = format!("train --device cpu --resume {out} --threads 2 --steps {}", step + 1);
    crate::common::run(folder, &line).ok();
    assert_eq!(state(&folder.join(out)).progress.step, step + 1, "{out}");
}
