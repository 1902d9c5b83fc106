//! Processes under the launchers of Open MPI, MPICH, and an MPI with the standard ABI.
//!
//! The example program `sum` is started with each launcher that is installed; others are skipped with a message, or
//! fail the test if `GLOWFLOW_TEST_MPI` is 1. `GLOWFLOW_TEST_MPI_STANDARD` names the folder of an installation with the
//! standard ABI, such as a Python environment with the package `mpich`.
#![cfg(unix)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest time of a job that does not wait for a limit.
const JOB: Duration = Duration::from_secs(60);

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

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap(); // target/release/deps/mpi-…
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/sum");
    assert!(path.exists(), "{} is missing; `cargo test -p glowflow-ranks` builds it", path.display());
    path
}

fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let files =
        std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    files.into_iter().find(|file| file.is_file())
}

fn engines() -> Vec<Engine> {
    let open_mpi = find(&["mpirun.openmpi"]).map(|launcher| Engine {
        name: "Open MPI",
        launcher,
        library: "libmpi.so.40".into(),
        options: &["--oversubscribe", "--bind-to", "none"],
    });
    let mpich = find(&["mpiexec.hydra"]).map(|launcher| Engine {
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
    let mut found = Vec::new();
    let missing = [
        "Open MPI: no mpirun.openmpi",
        "MPICH: no mpiexec.hydra",
        "standard ABI: GLOWFLOW_TEST_MPI_STANDARD is not set",
    ];
    for (engine, missing) in [open_mpi, mpich, standard].into_iter().zip(missing) {
        match engine {
            Some(engine) => found.push(engine),
            None if required => panic!("{missing}"),
            None => eprintln!("skipped: {missing}"),
        }
    }
    found
}

/// A job under a launcher. Its output is in files, which processes that remain cannot keep open.
struct Job {
    child: Child,
    folder: TempDir,
    begin: Instant,
}

/// The end of a job.
struct End {
    code: Option<i32>,
    output: String,
    time: Duration,
    folder: TempDir,
}

impl Job {
    fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("output")).unwrap();
        command.env("OUT", folder.path()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        Self { child, folder, begin: Instant::now() }
    }

    fn with(engine: &Engine, size: usize, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = engine.command();
        command.arg("-n").arg(size.to_string()).arg(program()).args(arguments);
        command.arg("--out").arg(folder.path());
        let mut job = Self::start(&mut command);
        // Files of the program are next to the output.
        let output = job.folder.path().join("output");
        fs::hard_link(output, folder.path().join("output")).unwrap();
        job.folder = folder;
        job
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join(file)).ok().filter(|text| !text.is_empty())
    }

    /// Process numbers of the ranks, when all have started.
    fn processes(&self, size: usize) -> Vec<String> {
        loop {
            let all: Option<Vec<_>> = (0..size).map(|rank| self.read(&format!("process-{rank}"))).collect();
            if let Some(all) = all {
                return all;
            }
            assert!(self.begin.elapsed() < JOB, "ranks did not start: {:?}", self.read("output"));
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the launcher, and ends it after `limit`.
    fn end(mut self, limit: Duration) -> End {
        let begin = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if begin.elapsed() > limit {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("the job did not end within {limit:?}: {}", self.read("output").unwrap_or_default());
            }
            sleep(Duration::from_millis(10));
        };
        let output = self.read("output").unwrap_or_default();
        End { code, output, time: begin.elapsed(), folder: self.folder }
    }
}

impl End {
    fn hashes(&self, size: usize) -> Vec<String> {
        (0..size)
            .map(|rank| fs::read_to_string(self.folder.path().join(format!("hash-{rank}"))))
            .map(|text| text.unwrap_or_else(|_| panic!("a rank wrote no hash: {}", self.output)))
            .collect()
    }
}

impl Engine {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.launcher);
        command.args(self.options).env("GLOWFLOW_MPI_LIBRARY", &self.library);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command
    }
}

/// The program without a launcher.
fn plain(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    command
}

fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

/// Whether a process is gone, or a zombie that nobody waits for.
fn is_gone(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
}

fn assert_gone(processes: &[String]) {
    let begin = Instant::now();
    while let Some(process) = processes.iter().find(|process| !is_gone(process)) {
        assert!(begin.elapsed() < Duration::from_secs(2), "process {process} is still there");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn sums_have_the_same_bits_on_any_number_of_ranks_and_any_mpi() {
    let _lock = one_at_a_time();
    // 100,003 values: no number of ranks divides the last bucket. The broadcast takes two pieces.
    let arguments = ["--parts", "8", "--values", "100003", "--bucket", "9000", "--broadcast", "70000000"];
    let folder = tempfile::tempdir().unwrap();
    let status = plain(&arguments).arg("--out").arg(folder.path()).status().unwrap();
    assert!(status.success());
    let want = fs::read_to_string(folder.path().join("hash-0")).unwrap();
    for engine in engines() {
        for size in [1, 2, 4, 8] {
            let end = Job::with(&engine, size, &[&arguments[..], &["--always-mpi"]].concat()).end(JOB);
            assert_eq!(end.code, Some(0), "{}, {size} ranks: {}", engine.name, end.output);
            assert_eq!(end.hashes(size), vec![want.clone(); size], "{}, {size} ranks", engine.name);
        }
    }
}

#[test]
fn three_ranks_add_in_the_tree_of_their_parts() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let hashes = [3, 6].map(|size| {
            let end = Job::with(&engine, size, &["--parts", "12", "--values", "101", "--bucket", "1"]);
            end.end(JOB).hashes(size)
        });
        assert!(hashes.concat().iter().all(|hash| *hash == hashes[0][0]), "{}: {hashes:?}", engine.name);
    }
}

#[test]
fn a_killed_rank_ends_the_job() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let job = Job::with(&engine, 4, &["--steps", "100000", "--pause", "20", "--limit", "5"]);
        let processes = job.processes(4);
        sleep(Duration::from_millis(300));
        signal("-KILL", &processes[1]);
        let end = job.end(Duration::from_secs(10));
        assert_ne!(end.code, Some(0), "{}: {}", engine.name, end.output);
        assert_gone(&processes);
        eprintln!("{}: over {:.2} s after a rank was killed", engine.name, end.time.as_secs_f64());
    }
}

#[test]
fn a_stopped_rank_ends_the_job_within_the_limit() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let job =
            Job::with(&engine, 3, &["--parts", "3", "--steps", "100000", "--pause", "20", "--limit", "3"]);
        let processes = job.processes(3);
        sleep(Duration::from_millis(300));
        signal("-STOP", &processes[1]);
        let end = job.end(Duration::from_secs(8));
        let output = &end.output;
        assert!(output.contains(" after 3.0 s rank 1 on "), "{}: {output}", engine.name);
        assert!(output.contains(" does not answer"), "{}: {output}", engine.name);
        assert!(!output.contains(", rank 0") && !output.contains(", rank 2"), "{}: {output}", engine.name);
        assert_eq!(end.code, Some(75), "{}: {output}", engine.name);
        assert_gone(&processes);
        eprintln!("{}: over {:.2} s after a rank was stopped", engine.name, end.time.as_secs_f64());
    }
}

#[test]
fn a_late_rank_is_named_with_its_step() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let arguments = ["--steps", "9", "--pause", "100", "--slow", "1", "--slow-step", "2", "--limit", "2"];
        let end = Job::with(&engine, 2, &arguments).end(Duration::from_secs(20));
        assert!(end.output.contains("step 2: after 2.0 s rank 1 on "), "{}: {}", engine.name, end.output);
        assert!(end.output.contains(" has not finished step 2"), "{}: {}", engine.name, end.output);
        assert_eq!(end.code, Some(75), "{}: {}", engine.name, end.output);
    }
}

#[test]
fn a_late_rank_within_the_limit_changes_nothing() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let hashes = [0, 20].map(|pause| {
            let pause = pause.to_string(); // 2 s in one step: over half the limit, so that ranks ask for the late one
            let arguments = ["--pause", &pause, "--slow", "1", "--slow-step", "1", "--limit", "3.5"];
            let end = Job::with(&engine, 2, &arguments).end(JOB);
            assert_eq!(end.code, Some(0), "{}: {}", engine.name, end.output);
            end.hashes(2)
        });
        assert_eq!(hashes[0], hashes[1], "{}", engine.name);
    }
}

#[test]
fn a_rank_with_other_settings_is_refused() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let mut command = engine.command();
        command.args(["-n", "1"]).arg(program()).args(["--values", "10", ":", "-n", "1"]);
        command.arg(program()).args(["--values", "11"]);
        let end = Job::start(&mut command).end(JOB);
        let want = "rank 1 has a different number of values than rank 0";
        assert!(end.output.contains(want), "{}: {}", engine.name, end.output);
        assert_ne!(end.code, Some(0), "{}", engine.name);
    }
}

#[test]
fn a_library_of_another_launcher_is_refused() {
    let _lock = one_at_a_time();
    let engines = engines();
    let pair = ["Open MPI", "MPICH"].map(|name| engines.iter().find(|engine| engine.name == name));
    let [Some(open_mpi), Some(mpich)] = pair else {
        eprintln!("skipped: it needs Open MPI and MPICH");
        return;
    };
    for (launcher, other, name) in [
        (open_mpi, mpich, "mpirun of Open MPI started 2 ranks, but MPICH"),
        (mpich, open_mpi, "mpiexec.hydra started 2 ranks, but Open MPI"),
    ] {
        let mut command = launcher.command();
        command.env("GLOWFLOW_MPI_LIBRARY", &other.library).args(["-n", "2"]).arg(program());
        let end = Job::start(&mut command).end(JOB);
        assert!(end.output.contains(name), "{}", end.output);
        assert!(end.output.contains("found 1"), "{}", end.output);
        assert!(!end.output.contains("hash"), "{}", end.output);
    }
}

#[test]
fn torchrun_is_refused() {
    let output = plain(&[]).env("RANK", "1").env("WORLD_SIZE", "2").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("number 1 of 2 of torchrun") && text.contains("mpirun"), "{text}");
}

#[test]
fn a_missing_library_is_named_with_the_launcher() {
    let output =
        plain(&[]).env("PMI_SIZE", "2").env("GLOWFLOW_MPI_LIBRARY", "/none/libmpi.so").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("mpiexec.hydra") && text.contains("/none/libmpi.so"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_alone_opens_no_library() {
    let folder = tempfile::tempdir().unwrap();
    // With one rank, a launcher needs no MPI either.
    for size in [None, Some("1")] {
        let mut command = plain(&["--pause", "100000"]);
        command.arg("--out").arg(folder.path());
        command.envs(size.map(|size| ("PMI_SIZE", size)));
        let mut child = command.spawn().unwrap();
        let begin = Instant::now();
        let file = folder.path().join("process-0");
        while !file.exists() && begin.elapsed() < JOB {
            sleep(Duration::from_millis(10));
        }
        let maps = fs::read_to_string(format!("/proc/{}/maps", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        let maps = maps.unwrap();
        assert!(maps.contains("libc.so") && !maps.contains("mpi"), "{maps}");
        fs::remove_file(file).unwrap();
    }
}
