//! Training on several processes under the launchers of installed MPI libraries.
//!
//! Launchers that are missing are skipped with a message, or fail the test if `GLOWFLOW_TEST_MPI` is 1.
//! `GLOWFLOW_TEST_MPI_STANDARD` names the folder of an installation with the standard ABI, such as a Python
//! environment with the package `mpich`.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{TINY, command, outcome, run};

/// Longest time of a job that does not wait for a limit.
const JOB: Duration = Duration::from_secs(120);
/// Files that hold nothing but what a run computed.
const FILES: [&str; 5] =
    ["model.safetensors", "best.safetensors", "checkpoint.safetensors", "metrics.jsonl", "config.toml"];

/// A launcher, with the library that belongs to it.
struct Engine {
    name: &'static str,
    launcher: PathBuf,
    library: PathBuf,
    options: &'static [&'static str],
}

/// One job at a time: machines for tests have few cores.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn engines() -> Vec<Engine> {
    let open_mpi = find("mpirun.openmpi").map(|launcher| Engine {
        name: "Open MPI",
        launcher,
        library: "libmpi.so.40".into(),
        options: &["--oversubscribe", "--bind-to", "none"],
    });
    let mpich = find("mpiexec.hydra").map(|launcher| Engine {
        name: "MPICH",
        launcher,
        library: "libmpich.so.12".into(),
        options: &[],
    });
    let standard = std::env::var_os("GLOWFLOW_TEST_MPI_STANDARD").map(|folder| Engine {
        name: "standard ABI",
        launcher: Path::new(&folder).join("bin/mpiexec"),
        library: Path::new(&folder).join("lib/libmpi_abi.so.1"),
        options: &[],
    });
    let required = std::env::var("GLOWFLOW_TEST_MPI").is_ok_and(|value| value == "1");
    let mut found = vec![];
    for (engine, missing) in [
        (open_mpi, "Open MPI: no mpirun.openmpi"),
        (mpich, "MPICH: no mpiexec.hydra"),
        (standard, "standard ABI: GLOWFLOW_TEST_MPI_STANDARD is not set"),
    ] {
        match engine {
            Some(engine) => found.push(engine),
            None if required => panic!("{missing}"),
            None => eprintln!("skipped: {missing}"),
        }
    }
    found
}

/// A job under a launcher.
struct Job {
    child: Child,
    output: PathBuf,
    /// A word in the command line of its processes alone.
    mark: String,
}

impl Job {
    /// `glowflow` with the arguments in `line` on `size` ranks. `mark` is the folder of the run.
    fn start(engine: &Engine, size: usize, folder: &Path, line: &str, mark: &str) -> Self {
        let output = folder.join(format!("output-{mark}"));
        let file = File::create(&output).unwrap();
        let mut launcher = Command::new(&engine.launcher);
        launcher
            .args(engine.options)
            .args(["-n", &size.to_string(), env!("CARGO_BIN_EXE_glowflow")])
            .args(line.split_whitespace())
            .current_dir(folder)
            .env("GLOWFLOW_MPI_LIBRARY", &engine.library)
            .env("GLOWFLOW_DEVICE", "cpu")
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Self { child: launcher.spawn().unwrap(), output, mark: mark.to_owned() }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// The process of a rank.
    fn process(&self, rank: usize) -> String {
        let begin = Instant::now();
        while begin.elapsed() < JOB {
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
                let (line, variables) = (read("cmdline"), read("environ"));
                let has = |text: &[u8], word: &str| text.split(|&byte| byte == 0).any(|x| x == word.as_bytes());
                let numbered = |name: &str| has(&variables, &format!("{name}={rank}"));
                if has(&line, &self.mark)
                    && line.starts_with(env!("CARGO_BIN_EXE_glowflow").as_bytes())
                    && (numbered("OMPI_COMM_WORLD_RANK") || numbered("PMI_RANK"))
                {
                    return entry.file_name().to_string_lossy().into_owned();
                }
            }
            sleep(Duration::from_millis(20));
        }
        panic!("rank {rank} did not start: {}", self.text())
    }

    /// Waits for the launcher, and ends it after `limit`.
    fn end(mut self, limit: Duration) -> (Option<i32>, String) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.text());
            }
            if begin.elapsed() > limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("the job did not end within {limit:?}: {}", self.text());
            }
            sleep(Duration::from_millis(10));
        }
    }
}

fn wait_for(file: &Path) {
    let begin = Instant::now();
    while !file.exists() {
        assert!(begin.elapsed() < JOB, "{} was not written", file.display());
        sleep(Duration::from_millis(10));
    }
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

/// Whether a process is gone, or a zombie.
fn is_gone(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
}

fn assert_gone(processes: &[String], within: Duration) {
    let begin = Instant::now();
    while let Some(process) = processes.iter().find(|process| !is_gone(process)) {
        assert!(begin.elapsed() < within, "process {process} is still there");
        sleep(Duration::from_millis(10));
    }
}

fn train(out: &str, rest: &str) -> String {
    format!("train --data portraits --out {out} {TINY} {rest}")
}

#[track_caller]
fn assert_same_files(folder: &Path, have: &str, want: &str, what: &str) {
    for name in FILES {
        let read = |run: &str| fs::read(folder.join(run).join(name)).unwrap();
        assert!(read(have) == read(want), "{what}: {name}");
    }
}

#[test]
fn any_number_of_ranks_over_any_mpi_writes_the_same_files() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rest = "--set train.accumulate=4 --set train.log_every=1 --set train.eval_every=3 --steps 6";
    run(folder, &train("alone", rest)).ok();
    for engine in engines() {
        for size in [2, 4] {
            let out = format!("{}-{size}", engine.name.replace(' ', "-"));
            let (code, text) = Job::start(&engine, size, folder, &train(&out, rest), &out).end(JOB);
            assert_eq!(code, Some(0), "{}, {size} ranks: {text}", engine.name);
            assert!(text.contains(&format!("4 images a step = {size} ranks × {}", 4 / size)), "{text}");
            assert_same_files(folder, &out, "alone", &format!("{}, {size} ranks", engine.name));
        }
        // 2, then 4, then 1 rank.
        let out = format!("{}-resumed", engine.name.replace(' ', "-"));
        let begin = train(&out, &rest.replace("--steps 6", "--steps 2"));
        assert_eq!(Job::start(&engine, 2, folder, &begin, &out).end(JOB).0, Some(0));
        let resume = format!("train --resume {out} --threads 2 --steps 4");
        assert_eq!(Job::start(&engine, 4, folder, &resume, &out).end(JOB).0, Some(0));
        run(folder, &format!("train --resume {out} --threads 2 --steps 6")).ok();
        assert_same_checkpoints(folder, &out, "alone");
    }
}

/// The step of the best model may differ: stops add evaluations. Weights and moments may not.
#[track_caller]
fn assert_same_checkpoints(folder: &Path, have: &str, want: &str) {
    let read = |run: &str| glowflow::train::checkpoint::load(&folder.join(run).join("checkpoint.safetensors"));
    let ((_, have), (_, want)) = (read(have).unwrap(), read(want).unwrap());
    assert!(have.weights == want.weights && have.first == want.first && have.second == want.second);
    assert!(have.ema == want.ema);
    assert_eq!(have.progress.step, want.progress.step);
}

/// A hanging rank ends the job within the limit, and costs no step.
#[test]
fn a_stopped_rank_ends_the_job_and_rank_0_saves() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = format!("{}-stopped", engine.name.replace(' ', "-"));
        let line = train(&out, "--set train.accumulate=2 --steps 1000000 --ranks-limit 3");
        let job = Job::start(&engine, 2, folder, &line, &out);
        let processes = [0, 1].map(|rank| job.process(rank));
        wait_for(&folder.join(&out).join("checkpoint.safetensors"));
        sleep(Duration::from_secs(1));
        signal("-STOP", &processes[1]);
        let (code, text) = job.end(Duration::from_secs(30));
        assert_ne!(code, Some(0), "{}: {text}", engine.name);
        assert!(text.contains("rank 1") && text.contains("does not answer"), "{}: {text}", engine.name);
        assert_gone(&processes, Duration::from_secs(5));
        let path = folder.join(&out).join("checkpoint.safetensors");
        let (_, state) = glowflow::train::checkpoint::load(&path).unwrap();
        assert!(state.progress.step > 0, "{}: {text}", engine.name);
        run(folder, &format!("train --resume {out} --threads 2 --steps {}", state.progress.step + 1)).ok();
    }
}

#[test]
fn a_killed_rank_ends_the_job() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = format!("{}-killed", engine.name.replace(' ', "-"));
        let line = train(&out, "--set train.accumulate=2 --set train.checkpoint_every=5 --steps 1000000");
        let job = Job::start(&engine, 2, folder, &line, &out);
        let processes = [0, 1].map(|rank| job.process(rank));
        wait_for(&folder.join(&out).join("checkpoint.previous.safetensors"));
        signal("-KILL", &processes[1]);
        let (code, text) = job.end(Duration::from_secs(20));
        assert_ne!(code, Some(0), "{}: {text}", engine.name);
        assert_gone(&processes, Duration::from_secs(2));
        run(folder, &format!("train --resume {out} --threads 2 --minutes 0")).ok();
    }
}

/// Schedulers may signal any process.
#[test]
fn a_signal_to_one_rank_stops_all_after_the_same_step() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = format!("{}-signal", engine.name.replace(' ', "-"));
        let line = train(&out, "--set train.accumulate=2 --steps 1000000");
        let job = Job::start(&engine, 2, folder, &line, &out);
        let processes = [0, 1].map(|rank| job.process(rank));
        wait_for(&folder.join(&out).join("checkpoint.safetensors"));
        signal("-USR1", &processes[1]);
        let (_, text) = job.end(JOB);
        assert!(text.contains("stopped; continue with: glowflow train --resume"), "{}: {text}", engine.name);
        assert_gone(&processes, Duration::from_secs(5));
    }
}

#[test]
fn parts_that_ranks_cannot_share_end_all_ranks() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    for engine in engines() {
        let out = format!("{}-refused", engine.name.replace(' ', "-"));
        let line = train(&out, "--set train.accumulate=2 --steps 1");
        let (code, text) = Job::start(&engine, 4, folder.path(), &line, &out).end(JOB);
        assert_ne!(code, Some(0), "{}: {text}", engine.name);
        assert!(text.contains("cannot be distributed over 4 ranks"), "{}: {text}", engine.name);
        assert!(text.contains("1, 2 ranks fit"), "{}: {text}", engine.name);
    }
}

#[test]
fn torchrun_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &train("run", "--steps 1"));
    command.env("RANK", "1").env("WORLD_SIZE", "2");
    let outcome = outcome(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("torchrun") && outcome.stderr.contains("mpirun"), "{outcome:?}");
    assert!(!folder.path().join("run").exists());
}
