//! Memory available to this process.

use std::fs;
use std::path::Path;

/// Bytes of memory available to this process: the minimum over the machine, the process's control groups
/// (containers) and its address-space limit. `None` if the system reports none of them.
///
/// ```
/// if let Some(bytes) = glowflow_data::available_memory() {
///     println!("{} MiB", bytes >> 20);
/// }
/// ```
pub fn available_memory() -> Option<u64> {
    available_in(Path::new("/"))
}

/// Like [`available_memory`], reading the `proc` and `sys` file systems under `root`.
fn available_in(root: &Path) -> Option<u64> {
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().filter_map(|line| left_in_cgroup(root, line));
    limits.chain(left_of_machine(root)).chain(left_of_address_space(root)).min()
}

fn left_of_machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    Some(value_of(&text, "MemAvailable:")? << 10)
}

/// The remainder of the `ulimit -v` limit.
fn left_of_address_space(root: &Path) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let limit = value_of(&limits, "Max address space")?;
    let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
    Some(limit.saturating_sub(value_of(&status, "VmSize:").unwrap_or(0) << 10))
}

/// The minimum over a control group and its ancestors. `line` is a line of `/proc/self/cgroup`: `0::PATH` in
/// version 2, `NUMBER:CONTROLLERS:PATH` in version 1.
fn left_in_cgroup(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, files) = match controllers {
        "" => ("sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file"]),
        _ if controllers.split(',').any(|name| name == "memory") => (
            "sys/fs/cgroup/memory",
            ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
        ),
        _ => return None,
    };
    let [limit, usage, cache] = files;
    // In a container the path can be the host's. Its ancestors end at the mount point, which is then the
    // container's own group.
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let left = |group: &Path| {
        let folder = root.join(mount).join(group);
        let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        // A group without a limit contains the word "max".
        let limit = number(limit)?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let reclaimable = value_of(&stat, cache).unwrap_or(0);
        Some(limit.saturating_sub(number(usage).unwrap_or(0).saturating_sub(reclaimable)))
    };
    groups.filter_map(left).min()
}

/// The number that follows `key` at the start of a line.
fn value_of(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix([' ', '\t']))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and contents.
    type Files<'a> = &'a [(&'a str, &'a str)];

    fn system(files: Files) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_applies() {
        let meminfo = ("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:   4000 kB\n");
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let cases: &[(Files, Option<u64>)] = &[
            (&[], None),
            (&[meminfo], Some(4000 << 10)),
            (&[meminfo, v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some(4000 << 10)),
            // The limit of an ancestor group.
            (&[meminfo, v2, ("sys/fs/cgroup/a/memory.max", "1000\n")], Some(1000)),
            (&[meminfo, v2, ("sys/fs/cgroup/memory.max", "1000\n")], Some(1000)),
            // Used memory is unavailable, except for the page cache.
            (
                &[
                    v2,
                    ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
                    ("sys/fs/cgroup/a/b/memory.current", "700\n"),
                    ("sys/fs/cgroup/a/b/memory.stat", "anon 500\ninactive_file 200\n"),
                ],
                Some(500),
            ),
            (
                &[
                    meminfo,
                    ("proc/self/cgroup", "7:cpu,cpuacct:/\n4:memory:/docker/x\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
                ],
                Some(2000),
            ),
            (
                &[
                    ("proc/self/limits", "Limit  Soft  Hard\nMax address space  5000000  unlimited  bytes\n"),
                    ("proc/self/status", "VmPeak:\t 9 kB\nVmSize:\t    1000 kB\n"),
                ],
                Some(5_000_000 - (1000 << 10)),
            ),
            (&[("proc/self/limits", "Max address space  unlimited  unlimited  bytes\n")], None),
            (&[("proc/meminfo", "garbage"), ("proc/self/cgroup", "\n::\n0\n")], None),
        ];
        for (files, expected) in cases {
            assert_eq!(available_in(system(files).path()), *expected, "{files:?}");
        }
    }
}
