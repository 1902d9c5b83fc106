//! Training on two hosts, emulated by network namespaces on one machine, whose link is cut during a run.
#![cfg(target_os = "linux")]

mod common;
mod ranks;

use std::time::{Duration, Instant};

use common::run;
use ranks::jobs::hosts::Hosts;
use ranks::jobs::{assert_gone, engines, one_at_a_time};
use ranks::{JOB, assert_resumes, assert_same_files, name, processes, start_with, train, wait_for_steps};

#[test]
fn two_hosts_write_the_files_of_one() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rest = "--set train.accumulate=2 --set train.eval_every=3 --steps 6";
    run(folder, &train("alone", rest)).ok();
    for engine in engines() {
        let Some(hosts) = Hosts::new("train") else { return };
        let out = name(&engine, "hosts");
        let end = start_with(hosts.command(&engine), 2, folder, &train(&out, rest)).end(JOB);
        assert_eq!(end.code, Some(0), "{}: {}", engine.name, end.output);
        assert_same_files(folder, &out, "alone");
        // Half of each step's gradient is exchanged, and half is gathered.
        let parameters = ranks::state(&folder.join(&out)).weights.len() as u64;
        let (received, least) = (hosts.received(), 6 * 4 * parameters);
        assert!(received > least, "{}: {received} bytes of {least} crossed the link", engine.name);
    }
}

#[test]
fn a_cut_link_ends_both_sides_and_loses_no_step() {
    let _lock = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for engine in engines() {
        let Some(hosts) = Hosts::new("cut") else { return };
        let out = name(&engine, "cut");
        let rest = "--set train.accumulate=2 --set train.checkpoint_every=1000000 --steps 1000000";
        let line = train(&out, &format!("{rest} --ranks-limit 5"));
        let job = start_with(hosts.command(&engine), 2, folder, &line);
        let processes = processes(&out);
        wait_for_steps(&folder.join(&out));
        hosts.cut();
        // The time limit, plus the time for a save, for the launcher, and for an `MPI_Abort` that hangs.
        let begin = Instant::now();
        assert_gone(&processes, Duration::from_secs_f64(5.0 + 5.0 / 4.0 + 0.25 + 2.0 + 5.0));
        eprintln!("{}: both ranks gone {:.1} s after the cut", engine.name, begin.elapsed().as_secs_f64());
        job.stop();
        assert_resumes(folder, &out);
    }
}
