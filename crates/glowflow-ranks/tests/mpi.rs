//! Processes under the launchers of Open MPI, MPICH, and an MPI with the standard ABI.
//!
//! The example program `sum` is started with each launcher that is installed; others are skipped with a
//! message, or fail the test if `GLOWFLOW_TEST_MPI` is 1. `GLOWFLOW_TEST_MPI_STANDARD` is the folder of an
//! installation with the standard ABI, such as a Python environment with the package `mpich`.
#![cfg(unix)]

mod common;

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{JOB, Job, assert_gone, engines, one_at_a_time, program, signal};

/// The program, without a launcher.
fn plain(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    command
}

#[test]
fn sums_have_the_same_bits_on_any_number_of_ranks_and_any_mpi() {
    let _lock = one_at_a_time();
    // 100,003 values: the last bucket is not divisible by any number of ranks. The broadcast needs two
    // pieces.
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
            for rank in 0..size {
                let place = format!("rank {rank} of {size} ({rank} of {size} on ");
                assert!(end.output.contains(&place), "{}: {}", engine.name, end.output);
            }
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
        assert_gone(&processes, Duration::from_secs(2));
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
        assert_gone(&processes, Duration::from_secs(2));
        eprintln!("{}: over {:.2} s after a rank was stopped", engine.name, end.time.as_secs_f64());
    }
}

/// Schedulers suspend jobs, and computers sleep.
#[test]
fn a_suspended_job_continues() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let job = Job::with(&engine, 2, &["--steps", "60", "--pause", "20", "--limit", "2"]);
        let processes = job.processes(2);
        sleep(Duration::from_millis(300));
        processes.iter().for_each(|process| signal("-STOP", process));
        sleep(Duration::from_secs(4));
        processes.iter().for_each(|process| signal("-CONT", process));
        let end = job.end(Duration::from_secs(20));
        assert_eq!(end.code, Some(0), "{}: {}", engine.name, end.output);
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
            // 2 s in one step: more than half the limit, so that ranks query the late one.
            let pause = pause.to_string();
            let arguments = ["--pause", &pause, "--slow", "1", "--slow-step", "1", "--limit", "3.5"];
            let end = Job::with(&engine, 2, &arguments).end(JOB);
            assert_eq!(end.code, Some(0), "{}: {}", engine.name, end.output);
            end.hashes(2)
        });
        assert_eq!(hashes[0], hashes[1], "{}", engine.name);
    }
}

#[test]
fn a_rank_that_never_connects_ends_the_job() {
    let _lock = one_at_a_time();
    for engine in engines() {
        let mut command = engine.command();
        command.args(["-n", "1"]).arg(program()).args(["--limit", "2", ":", "-n", "1", "sleep", "60"]);
        let end = Job::start(&mut command).end(Duration::from_secs(15));
        let want = "MPI did not connect all ranks within 2.0 s";
        assert!(end.output.contains(want), "{}: {}", engine.name, end.output);
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
fn a_library_of_another_launcher_is_rejected() {
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
fn torchrun_is_rejected() {
    let output = plain(&[]).env("RANK", "1").env("WORLD_SIZE", "2").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("torchrun (RANK=1, WORLD_SIZE=2)") && text.contains("mpirun"), "{text}");
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
    // With a single rank, a launcher needs no MPI either.
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
