//! Training on the GPUs of several processes, under the launchers of installed MPI libraries. GPUs and NCCL
//! are emulated.
#![cfg(target_os = "linux")]

mod common;
#[path = "../../glowflow-ranks/tests/common/mod.rs"]
mod jobs;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{TINY, command, outcome};
use jobs::{End, Engine, Job, assert_gone, engines, one_at_a_time, signal};

/// Longest time of a job that does not wait for a limit. Kernels may have to be compiled.
const JOB: Duration = Duration::from_secs(300);
/// Files that hold nothing but what a run computed.
const FILES: [&str; 4] = ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl", "config.toml"];

/// The environment of emulated GPUs with NCCL; `None` if they cannot be had.
fn emulated(command: &mut Command) -> Option<()> {
    let folders: OsString =
        std::env::join_paths([cuda_emulator::libraries()?, cuda_emulator::nccl()?]).unwrap();
    command
        .env("GLOWFLOW_CUDA_LIBRARIES", folders)
        .env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"))
        .env("CUDA_EMULATOR_DEVICES", "2")
        .env_remove("GLOWFLOW_NCCL");
    Some(())
}

fn train(out: &str, rest: &str) -> String {
    let options = "--precision f32 --set train.accumulate=2 --set train.log_every=1";
    format!("train --data portraits --out {out} {TINY} {options} {rest}")
}

/// Trains on one emulated GPU.
fn alone(folder: &Path, line: &str) -> Option<()> {
    let mut command = command(folder, &format!("{line} --device cuda:0"));
    emulated(&mut command)?;
    outcome(command).ok();
    Some(())
}

/// Starts to train on two ranks.
fn start(engine: &Engine, folder: &Path, line: &str, variables: &[(&str, &str)]) -> Option<Job> {
    let mut launcher = engine.command();
    emulated(&mut launcher)?;
    launcher
        .args(["-n", "2", env!("CARGO_BIN_EXE_glowflow")])
        .args(line.split_whitespace())
        .env("GLOWFLOW_DEVICE", "auto")
        .envs(variables.iter().copied())
        .current_dir(folder);
    Some(Job::start(&mut launcher))
}

/// Trains on two ranks.
fn job(engine: &Engine, folder: &Path, line: &str, variables: &[(&str, &str)]) -> Option<End> {
    Some(start(engine, folder, line, variables)?.end(JOB))
}

/// The process of a rank that trains in the folder `out`, which no other run uses.
fn process(out: &str, rank: usize) -> String {
    let begin = Instant::now();
    while begin.elapsed() < JOB {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
            let has = |text: &[u8], word: &str| text.split(|&byte| byte == 0).any(|x| x == word.as_bytes());
            let (line, variables) = (read("cmdline"), read("environ"));
            let numbered = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"]
                .iter()
                .any(|name| has(&variables, &format!("{name}={rank}")));
            if numbered && has(&line, out) && line.starts_with(env!("CARGO_BIN_EXE_glowflow").as_bytes()) {
                return entry.file_name().to_string_lossy().into_owned();
            }
        }
        sleep(Duration::from_millis(20));
    }
    panic!("rank {rank} of {out} did not start")
}

/// Waits until a run has recorded this number of steps, and returns the number.
#[track_caller]
fn steps_recorded(run: &Path, least: usize) -> usize {
    let begin = Instant::now();
    loop {
        let steps = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count();
        if steps >= least {
            return steps;
        }
        assert!(begin.elapsed() < JOB, "{} makes no steps", run.display());
        sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_same_files(folder: &Path, have: &str, want: &str) {
    for name in FILES {
        let read = |run: &str| fs::read(folder.join(run).join(name)).unwrap();
        assert!(read(have) == read(want), "{have}: {name}");
    }
}

#[test]
fn gpus_of_two_processes_write_the_files_of_one() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rest = "--steps 5";
    if alone(folder, &train("alone", rest)).is_none() {
        return;
    }
    let connected = "sums over ranks stay on the devices: NCCL 2.30.7, 2 ranks";
    let hosts = "sums over ranks pass through the memory of hosts";
    for engine in engines() {
        // A GPU for each process with NCCL, without it, or with an old version; one GPU for both, which NCCL
        // refuses.
        for (case, device, variables, says) in [
            ("nccl", "auto", &[][..], Some(connected)),
            ("off", "auto", &[("GLOWFLOW_NCCL", "off")][..], None),
            ("old", "auto", &[("NCCL_EMULATOR_VERSION", "21304")][..], Some(hosts)),
            ("shared", "cuda:0", &[][..], Some(hosts)),
        ] {
            let out = format!("{}-{case}", engine.name.replace(' ', "-"));
            let line = train(&out, &format!("{rest} --device {device}"));
            let end = job(&engine, folder, &line, variables).unwrap();
            assert_eq!(end.code, Some(0), "{out}: {}", end.output);
            for sentence in [connected, hosts] {
                assert_eq!(end.output.contains(sentence), says == Some(sentence), "{out}: {}", end.output);
            }
            assert_same_files(folder, &out, "alone");
        }
    }
}

/// One of two ranks hangs in a sum. Both end within the limit, and the last whole step is kept.
#[test]
fn a_sum_that_does_not_end_ends_the_job() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = format!("{}-hangs", engine.name.replace(' ', "-"));
        let line = train(&out, "--steps 1000 --ranks-limit 8 --device auto");
        // A sum of one slice has two groups of transfers.
        let silent = [("NCCL_EMULATOR_SILENT", "1:9")];
        let Some(end) = job(&engine, folder, &line, &silent) else { return };
        let text = &end.output;
        assert_ne!(end.code, Some(0), "{}: {text}", engine.name);
        assert!(text.contains("a sum over GPUs was not complete after 6.0 s"), "{}: {text}", engine.name);
        let path = folder.join(&out).join("checkpoint.safetensors");
        let (_, state) = glowflow::train::checkpoint::load(&path).unwrap();
        assert_eq!(state.progress.step, 4, "{}: {text}", engine.name);
    }
}

/// A process that is stopped is named, and costs no step.
#[test]
fn a_stopped_process_is_named() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = format!("{}-stopped", engine.name.replace(' ', "-"));
        let rest = "--set train.checkpoint_every=1000000 --steps 1000000 --ranks-limit 6 --device auto";
        let Some(job) = start(&engine, folder, &train(&out, rest), &[]) else { return };
        let process = process(&out, 1);
        steps_recorded(&folder.join(&out), 5);
        signal("-STOP", &process);
        let end = job.end(Duration::from_secs(6 + 60));
        let text = &end.output;
        assert_ne!(end.code, Some(0), "{}: {text}", engine.name);
        assert!(text.contains("rank 1 on ") && text.contains("does not answer"), "{}: {text}", engine.name);
        assert_gone(&[process], Duration::from_secs(5));
        let path = folder.join(&out).join("checkpoint.safetensors");
        let (_, state) = glowflow::train::checkpoint::load(&path).unwrap();
        assert!(state.progress.step > 0, "{}: {text}", engine.name);
    }
}

/// Schedulers suspend jobs, here for longer than the limit.
#[test]
fn a_suspended_job_continues() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let steps = 60;
    for engine in engines() {
        let out = format!("{}-suspended", engine.name.replace(' ', "-"));
        let line = train(&out, &format!("--steps {steps} --ranks-limit 8 --device auto"));
        let Some(job) = start(&engine, folder, &line, &[]) else { return };
        let processes = [0, 1].map(|rank| process(&out, rank));
        let recorded = steps_recorded(&folder.join(&out), 3);
        // Rank 0 is suspended, and continues, in a wait for rank 1.
        for process in processes.iter().rev() {
            signal("-STOP", process);
            sleep(Duration::from_millis(500));
        }
        sleep(Duration::from_secs(8));
        for process in &processes {
            signal("-CONT", process);
            sleep(Duration::from_millis(500));
        }
        assert!(recorded < steps, "the job was over");
        let end = job.end(JOB);
        assert_eq!(end.code, Some(0), "{}: {}", engine.name, end.output);
    }
}
