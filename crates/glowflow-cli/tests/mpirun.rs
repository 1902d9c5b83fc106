//! Training on several processes under the launchers of installed MPI libraries.
//!
//! Missing launchers are skipped with a message, or fail the test if `GLOWFLOW_TEST_MPI` is 1.
//! `GLOWFLOW_TEST_MPI_STANDARD` is the folder of an installation with the standard ABI, such as a Python
//! environment with the package `mpich`.
#![cfg(target_os = "linux")]

mod common;
mod ranks;

use std::fs;
use std::time::Duration;

use common::{command, outcome, run};
use ranks::jobs::{assert_gone, engines, one_at_a_time, signal};
use ranks::{
    JOB, assert_resumes, assert_same_files, assert_same_state, name, processes, start, train, wait_for_steps,
};

/// The arguments of a run with another architecture.
fn realnvp(line: &str) -> String {
    line.replace("--set model.steps=2", "--set model.architecture=realnvp --set model.blocks=1")
}

#[test]
fn any_number_of_ranks_over_any_mpi_writes_the_same_files() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rest = "--set train.accumulate=4 --set train.eval_every=3 --steps 6";
    run(folder, &train("alone", rest)).ok();
    run(folder, &realnvp(&train("realnvp-alone", rest))).ok();
    for engine in engines() {
        for size in [2, 4] {
            let out = name(&engine, &size.to_string());
            let end = start(&engine, size, folder, &train(&out, rest)).end(JOB);
            assert_eq!(end.code, Some(0), "{}, {size} ranks: {}", engine.name, end.output);
            let line = format!("4 images per step = {size} ranks × {}", 4 / size);
            assert!(end.output.contains(&line), "{}", end.output);
            assert!(end.output.contains(" ms for other ranks"), "{}", end.output);
            assert_same_files(folder, &out, "alone");
        }
        let out = name(&engine, "realnvp");
        let end = start(&engine, 2, folder, &realnvp(&train(&out, rest))).end(JOB);
        assert_eq!(end.code, Some(0), "{}, RealNVP: {}", engine.name, end.output);
        assert_same_files(folder, &out, "realnvp-alone");
    }
}

#[test]
fn a_run_resumes_on_another_number_of_ranks() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rest = "--set train.accumulate=4 --set train.eval_every=3";
    run(folder, &train("alone", &format!("{rest} --steps 6"))).ok();
    for engine in engines() {
        let out = name(&engine, "resumed");
        let resume = |steps: u32| format!("train --device cpu --resume {out} --threads 2 --steps {steps}");
        for (size, line) in [(2, train(&out, &format!("{rest} --steps 2"))), (4, resume(4))] {
            let end = start(&engine, size, folder, &line).end(JOB);
            assert_eq!(end.code, Some(0), "{}, {size} ranks: {}", engine.name, end.output);
        }
        run(folder, &resume(6)).ok();
        assert_same_state(folder, &out, "alone");
    }
}

/// A hanging rank ends the job within the time limit, and no step is lost.
#[test]
fn a_stopped_rank_ends_the_job_and_rank_0_saves() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = name(&engine, "stopped");
        let rest = "--set train.accumulate=2 --set train.checkpoint_every=1000000 --steps 1000000";
        let job = start(&engine, 2, folder, &train(&out, &format!("{rest} --ranks-limit 5")));
        let processes = processes(&out);
        wait_for_steps(&folder.join(&out));
        signal("-STOP", &processes[1]);
        let end = job.end(Duration::from_secs(5 + 30));
        let text = &end.output;
        assert_eq!(end.code, Some(75), "{}: {text}", engine.name);
        assert!(text.contains("after 5.0 s rank 1 on "), "{}: {text}", engine.name);
        assert!(text.contains("does not answer; continue with: glowflow train --resume"), "{text}");
        assert_gone(&processes, Duration::from_secs(5));
        eprintln!("{}: over {:.1} s after a rank was stopped", engine.name, end.time.as_secs_f64());
        assert_resumes(folder, &out);
    }
}

/// Schedulers restart jobs that end with status 75. A restarted run would diverge again.
#[test]
fn a_diverged_run_ends_the_job_with_status_1() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    for engine in engines() {
        let out = name(&engine, "diverged");
        let rest = "--set train.accumulate=2 --set train.lr=1e30 --set train.warmup=0 --steps 1000000";
        let end = start(&engine, 2, folder.path(), &train(&out, rest)).end(JOB);
        assert_eq!(end.code, Some(1), "{}: {}", engine.name, end.output);
        assert!(end.output.contains("--set train.lr=RATE"), "{}: {}", engine.name, end.output);
    }
}

#[test]
fn a_killed_rank_ends_the_job() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = name(&engine, "killed");
        let rest = "--set train.accumulate=2 --set train.checkpoint_every=2 --steps 1000000";
        let job = start(&engine, 2, folder, &train(&out, rest));
        let processes = processes(&out);
        wait_for_steps(&folder.join(&out));
        signal("-KILL", &processes[1]);
        let end = job.end(Duration::from_secs(20));
        assert_ne!(end.code, Some(0), "{}: {}", engine.name, end.output);
        assert_gone(&processes, Duration::from_secs(5));
        eprintln!("{}: over {:.1} s after a rank was killed", engine.name, end.time.as_secs_f64());
        assert_resumes(folder, &out);
    }
}

/// Schedulers may send the signal to any process.
#[test]
fn a_signal_to_one_rank_stops_all_after_the_same_step() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let out = name(&engine, "signal");
        let job = start(&engine, 2, folder, &train(&out, "--set train.accumulate=2 --steps 1000000"));
        let processes = processes(&out);
        wait_for_steps(&folder.join(&out));
        signal("-USR1", &processes[1]);
        let end = job.end(JOB);
        let want = "stopped; continue with: glowflow train --resume";
        assert!(end.output.contains(want), "{}: {}", engine.name, end.output);
        assert_gone(&processes, Duration::from_secs(5));
        assert_resumes(folder, &out);
    }
}

#[test]
fn parts_that_ranks_cannot_share_end_all_ranks() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    for engine in engines() {
        let out = name(&engine, "refused");
        let line = train(&out, "--set train.accumulate=2 --steps 1");
        let end = start(&engine, 4, folder.path(), &line).end(JOB);
        let text = &end.output;
        assert_ne!(end.code, Some(0), "{}: {text}", engine.name);
        assert!(text.contains("cannot be distributed over 4 ranks"), "{}: {text}", engine.name);
        assert!(text.contains("valid numbers of ranks: 1, 2"), "{}: {text}", engine.name);
        assert!(!folder.path().join(&out).exists(), "{}: {text}", engine.name);
    }
}

/// Otherwise each process would train alone, in the same folder.
#[test]
fn a_library_of_another_launcher_is_rejected() {
    let _lock = one_at_a_time();
    let engines = engines();
    let pair = ["Open MPI", "MPICH"].map(|name| engines.iter().find(|engine| engine.name == name));
    let [Some(open_mpi), Some(mpich)] = pair else {
        eprintln!("skipped: it needs Open MPI and MPICH");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (launcher, other, want) in [
        (open_mpi, mpich, "mpirun of Open MPI started 2 ranks, but MPICH"),
        (mpich, open_mpi, "mpiexec.hydra started 2 ranks, but Open MPI"),
    ] {
        let mut command = launcher.command();
        command.env("GLOWFLOW_MPI_LIBRARY", &other.library);
        let line = train("run", "--steps 1");
        let end = ranks::start_with(command, 2, folder.path(), &line).end(JOB);
        assert_ne!(end.code, Some(0), "{}", end.output);
        assert!(end.output.contains(want) && end.output.contains("found 1"), "{}", end.output);
        assert!(!folder.path().join("run").exists(), "{}", end.output);
    }
}

#[test]
fn torchrun_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &train("run", "--steps 1"));
    command.env("RANK", "1").env("WORLD_SIZE", "2");
    let outcome = outcome(command);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("torchrun") && outcome.stderr.contains("mpirun"), "{outcome:?}");
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_run_on_one_process_opens_no_library() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), &train("run", "--steps 1000000"));
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for_steps(&folder.path().join("run"));
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let maps = maps.unwrap();
    assert!(maps.contains("libc.so") && !maps.contains("libmpi"), "{maps}");
}
