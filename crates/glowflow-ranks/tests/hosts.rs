//! Two hosts on one machine: network namespaces with a link between them, which is cut during a job.
//!
//! Needs root and `ip`; skipped with a message otherwise. MPICH's transport would use shared memory between
//! the namespaces, so that it is restricted to TCP, and the test checks that the sums crossed the link.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Engine, JOB, Job, assert_gone, engines, one_at_a_time};
use tempfile::TempDir;

/// Two namespaces, removed at the end.
struct Hosts {
    names: [String; 2],
    folder: TempDir,
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}

/// The address of a host.
fn address(host: usize) -> String {
    format!("10.99.0.{}", host + 1)
}

impl Hosts {
    /// `None` if this process may not make namespaces.
    fn new(test: &str) -> Option<Self> {
        let names = [0, 1].map(|host| format!("ranks-{}-{test}-{host}", std::process::id()));
        let hosts = Self { names, folder: tempfile::tempdir().unwrap() };
        let made = hosts.names.iter().all(|name| ip(&["netns", "add", name]));
        let [a, b] = &hosts.names;
        let linked = made
            && ip(&["link", "add", "v0", "netns", a, "type", "veth", "peer", "name", "v1", "netns", b])
            && (0..2).all(|host| {
                let (name, link) = (&hosts.names[host], format!("v{host}"));
                ip(&["-n", name, "addr", "add", &format!("{}/24", address(host)), "dev", &link])
                    && ip(&["-n", name, "link", "set", &link, "up"])
                    && ip(&["-n", name, "link", "set", "lo", "up"])
            });
        if !linked {
            eprintln!("skipped: cannot make network namespaces (needs root and `ip`)");
            return None;
        }
        // The kernel reports a new link as up with a delay of up to a second, and UCX uses no link before.
        (0..2).for_each(|host| hosts.wait_for_link(host));
        let script = format!(
            "#!/bin/sh\n# Runs a command on a host: options, address, command.\n\
             while [ \"${{1#-}}\" != \"$1\" ]; do shift; done\n\
             case $1 in {}) host=0 name={a} ;; *) host=1 name={b} ;; esac\nshift\n\
             exec ip netns exec $name unshare --uts sh -c \"hostname host$host; exec sh -c \\\"\\$*\\\"\" sh \"$@\"\n",
            address(0)
        );
        let agent = hosts.folder.path().join("agent");
        fs::write(&agent, script).unwrap();
        fs::set_permissions(agent, fs::Permissions::from_mode(0o755)).unwrap();
        Some(hosts)
    }

    /// The launcher on the first host, for a rank on each.
    fn command(&self, engine: &Engine) -> Command {
        let inner = engine.command();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[0], "unshare", "--uts", "sh", "-c"]);
        command.args(["hostname host0; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let agent = self.folder.path().join("agent");
        let hosts = [0, 1].map(address);
        if engine.name == "Open MPI" {
            command.args(["--mca", "plm_rsh_agent"]).arg(agent);
            command.args(["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "10.99.0.0/24"]);
            command.args(["--mca", "oob_tcp_if_include", "10.99.0.0/24"]);
            command.args(["-H", &hosts.map(|host| host + ":1").join(",")]);
            for name in ["GLOWFLOW_MPI_LIBRARY", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] {
                command.args(["-x", name]);
            }
        } else {
            command.args(["-launcher", "ssh", "-launcher-exec"]).arg(agent);
            command.args(["-hosts", &hosts.join(",")]);
            command.env("UCX_TLS", "tcp,self").env("FI_PROVIDER", "tcp");
        }
        command
    }

    /// What the kernel reports about a host's link.
    fn link(&self, host: usize, file: &str) -> String {
        let file = format!("/sys/class/net/v{host}/{file}");
        let output = Command::new("ip").args(["netns", "exec", &self.names[host], "cat", &file]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).trim().to_string()
    }

    fn wait_for_link(&self, host: usize) {
        let begin = Instant::now();
        while self.link(host, "operstate") != "up" {
            assert!(begin.elapsed() < JOB, "the link of host {host} is {}", self.link(host, "operstate"));
            sleep(Duration::from_millis(20));
        }
    }

    /// Bytes that the first host has received over the link.
    fn received(&self) -> u64 {
        self.link(0, "statistics/rx_bytes").parse().unwrap()
    }

    /// Makes the link lose everything, without a signal to either side.
    fn silence(&self) {
        for host in 0..2 {
            let (name, link, other) = (&self.names[host], format!("v{host}"), address(1 - host));
            let nobody = "02:00:00:00:00:99";
            let entry = ["neigh", "replace", &other, "lladdr", nobody, "dev", &link, "nud", "permanent"];
            assert!(ip(&[&["-n", name][..], &entry].concat()));
        }
    }

    fn cut(&self) {
        assert!(ip(&["-n", &self.names[1], "link", "set", "v1", "down"]));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // Daemons of a launcher survive a cut on the other host.
            let pids = Command::new("ip").args(["netns", "pids", name]).output();
            let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            for pid in pids.unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", pid]).status();
            }
            ip(&["netns", "delete", name]);
        }
    }
}

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
    for engine in engines() {
        for (kind, cut) in [("down", Hosts::cut as fn(&Hosts)), ("silent", Hosts::silence)] {
            let Some(hosts) = Hosts::new(kind) else { return };
            let arguments = ["--parts", "2", "--steps", "100000", "--pause", "20", "--limit", "3"];
            let job = Job::of(hosts.command(&engine), 2, &arguments);
            let processes = job.processes(2);
            sleep(Duration::from_millis(500));
            cut(&hosts);
            // The limit, and the times for a save, for the launcher, and for an `MPI_Abort` that hangs.
            let begin = Instant::now();
            assert_gone(&processes, Duration::from_secs_f64(3.0 + 0.5 + 0.25 + 2.0 + 1.0));
            let time = begin.elapsed().as_secs_f64();
            eprintln!("{}: both ranks gone {time:.1} s after the link was {kind}", engine.name);
            // In files: a launcher that has lost a host may lose the output, too.
            for rank in 0..2 {
                let error = job.read(&format!("error-{rank}")).unwrap_or_default();
                let want = format!("after 3.0 s rank {0} on host{0} does not answer", 1 - rank);
                assert!(error.contains(&want), "{}, {kind}: {error}", engine.name);
            }
            job.stop();
        }
    }
}
