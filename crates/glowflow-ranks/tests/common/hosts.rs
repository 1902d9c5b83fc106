//! Two hosts on one machine: network namespaces with a link between them.
//!
//! Requires root and `ip`; skipped with a message otherwise. MPICH would use shared memory between the
//! namespaces, so its transport is restricted to TCP.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Engine, JOB};

/// Two namespaces, removed at the end.
pub struct Hosts {
    names: [String; 2],
    folder: TempDir,
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}

/// Address of a host.
fn address(host: usize) -> String {
    format!("10.99.0.{}", host + 1)
}

impl Hosts {
    /// Creates the namespaces; `None` if this process lacks the permission.
    pub fn new(test: &str) -> Option<Self> {
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
        // The kernel reports a new link as up with a delay of up to a second, and UCX does not use a link
        // until then.
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

    /// Command of the launcher on the first host, for one rank on each.
    pub fn command(&self, engine: &Engine) -> Command {
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

    /// Reads a property of a host's link from the kernel.
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

    /// Number of bytes that the first host has received over the link.
    pub fn received(&self) -> u64 {
        self.link(0, "statistics/rx_bytes").parse().unwrap()
    }

    /// Makes the link drop all packets, without a signal to either side.
    pub fn silence(&self) {
        for host in 0..2 {
            let (name, link, other) = (&self.names[host], format!("v{host}"), address(1 - host));
            let nobody = "02:00:00:00:00:99";
            let entry = ["neigh", "replace", &other, "lladdr", nobody, "dev", &link, "nud", "permanent"];
            assert!(ip(&[&["-n", name][..], &entry].concat()));
        }
    }

    pub fn cut(&self) {
        assert!(ip(&["-n", &self.names[1], "link", "set", "v1", "down"]));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // A launcher's daemons on the other host survive the cut.
            let pids = Command::new("ip").args(["netns", "pids", name]).output();
            let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            for pid in pids.unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", pid]).status();
            }
            ip(&["netns", "delete", name]);
        }
    }
}
