//! Two hosts on one machine: network namespaces with a link between them, which is cut during a job.
#![cfg(target_os = "linux")]

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::hosts::Hosts;
use common::{Engine, JOB, Job, assert_gone, engines, one_at_a_time};

#[test]
fn two_hosts_have_the_bits_of_one() {
    let _lock = one_at_a_time();
    let arguments = ["--parts", "4", "--values", "1000000", "--bucket", "100000", "--limit", "10"];
    for engine in engines() {
        let Some(hosts) = Hosts::new("sum") else { return };
        let one = Job::with(&engine, 1, &arguments).end(JOB).hashes(1);
        let end = Job::of(hosts.command(&engine), 2, &[&arguments[..], &["--always-mpi"]].concat()).end(JOB);
        assert_eq!(end.code, Some(0), "{}: {}", engine.name, end.output);
        for rank in 0..2 {
            let want = format!("rank {rank} of 2 (0 of 1 on host{rank})");
            assert!(end.output.contains(&want), "{}: {}", engine.name, end.output);
        }
        assert_eq!(end.hashes(2), vec![one[0].clone(); 2], "{}", engine.name);
        // Three steps of a million values: half of each vector is exchanged, and half is collected.
        let received = hosts.received();
        assert!(received > 12_000_000, "{}: {received} bytes crossed the link", engine.name);
    }
}

#[test]
fn both_sides_of_a_cut_link_end_within_the_limit() {
    let _lock = one_at_a_time();
    for engine in &engines() {
        // Most of the time is spent waiting.
        std::thread::scope(|scope| {
            scope.spawn(|| both_sides_end(engine, "down", Hosts::cut));
            scope.spawn(|| both_sides_end(engine, "silent", Hosts::silence));
        });
    }
}

fn both_sides_end(engine: &Engine, kind: &str, cut: fn(&Hosts)) {
    let Some(hosts) = Hosts::new(kind) else { return };
    let arguments = ["--parts", "2", "--steps", "100000", "--pause", "20", "--limit", "3"];
    let job = Job::of(hosts.command(engine), 2, &arguments);
    let processes = job.processes(2);
    sleep(Duration::from_millis(500));
    cut(&hosts);
    // The limit, plus the time for a save, for the launcher, and for an `MPI_Abort` that hangs.
    let begin = Instant::now();
    assert_gone(&processes, Duration::from_secs_f64(3.0 + 0.5 + 0.25 + 2.0 + 3.0));
    let time = begin.elapsed().as_secs_f64();
    eprintln!("{}: both ranks gone {time:.1} s after the link was {kind}", engine.name);
    // Results are in files: a launcher that has lost a host may lose the output as well.
    for rank in 0..2 {
        let error = job.read(&format!("error-{rank}")).unwrap_or_default();
        let want = format!("after 3.0 s rank {0} on host{0} does not answer", 1 - rank);
        assert!(error.contains(&want), "{}, {kind}: {error}", engine.name);
    }
    job.stop();
}
