//! Jobs under the launchers of installed MPI libraries.
#![allow(dead_code)] // each test file uses a part

#[cfg(target_os = "linux")]
pub mod hosts;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Maximum time of a job that does not wait for a limit.
pub const JOB: Duration = Duration::from_secs(60);

/// A launcher, with its MPI library.
pub struct Engine {
    pub name: &'static str,
    pub launcher: PathBuf,
    pub library: PathBuf,
    pub options: &'static [&'static str],
}

/// Runs one job at a time: test machines have few cores.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap(); // target/release/deps/mpi-…
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/sum");
    assert!(path.exists(), "{} is missing; `cargo test -p glowflow-ranks` builds it", path.display());
    path
}

pub fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let files =
        std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    files.into_iter().find(|file| file.is_file())
}

pub fn engines() -> Vec<Engine> {
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

/// A job under a launcher. Its output goes to files, which remaining processes cannot keep open.
pub struct Job {
    child: Child,
    folder: TempDir,
    begin: Instant,
}

/// Result of a job.
pub struct End {
    pub code: Option<i32>,
    pub output: String,
    pub time: Duration,
    pub folder: TempDir,
}

impl Job {
    pub fn start(command: &mut Command) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), command)
    }

    fn start_in(folder: TempDir, command: &mut Command) -> Self {
        let file = File::create(folder.path().join("output")).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        Self { child, folder, begin: Instant::now() }
    }

    /// Starts `size` ranks of the program.
    pub fn with(engine: &Engine, size: usize, arguments: &[&str]) -> Self {
        Self::of(engine.command(), size, arguments)
    }

    /// The same, with a launcher and its options.
    pub fn of(mut launcher: Command, size: usize, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        launcher.arg("-n").arg(size.to_string()).arg(program()).args(arguments);
        launcher.arg("--out").arg(folder.path());
        Self::start_in(folder, &mut launcher)
    }

    pub fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join(file)).ok().filter(|text| !text.is_empty())
    }

    /// Process ids of the ranks, once all have started.
    pub fn processes(&self, size: usize) -> Vec<String> {
        loop {
            let all: Option<Vec<_>> = (0..size).map(|rank| self.read(&format!("process-{rank}"))).collect();
            if let Some(all) = all {
                return all;
            }
            assert!(self.begin.elapsed() < JOB, "ranks did not start: {:?}", self.read("output"));
            sleep(Duration::from_millis(20));
        }
    }

    /// Stops the launcher, which may wait for a host that is gone.
    pub fn stop(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Waits for the launcher, and stops it after `limit`.
    pub fn end(mut self, limit: Duration) -> End {
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
    pub fn hashes(&self, size: usize) -> Vec<String> {
        (0..size)
            .map(|rank| fs::read_to_string(self.folder.path().join(format!("hash-{rank}"))))
            .map(|text| text.unwrap_or_else(|_| panic!("a rank wrote no hash: {}", self.output)))
            .collect()
    }
}

impl Engine {
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.launcher);
        command.args(self.options).env("GLOWFLOW_MPI_LIBRARY", &self.library);
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        command
    }
}

pub fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args([name, process]).status().unwrap().success());
}

/// Returns whether a process has exited, possibly as a zombie.
pub fn is_gone(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
}

pub fn assert_gone(processes: &[String], within: Duration) {
    let begin = Instant::now();
    while let Some(process) = processes.iter().find(|process| !is_gone(process)) {
        assert!(begin.elapsed() < within, "process {process} is still there");
        sleep(Duration::from_millis(10));
    }
}
