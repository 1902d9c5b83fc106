//! Memory used by this process (Linux).

/// Largest resident size of the process so far, in bytes (the kernel's high-water mark).
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Peak memory since a point in time.
pub struct PeakMemory {
    /// True if the system reset the mark.
    began: bool,
}

impl PeakMemory {
    /// Starts measuring: resets the high-water mark to the current size.
    pub fn begin() -> Self {
        Self { began: std::fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// Largest resident size since then; `None` if the system does not report it.
    pub fn peak(&self) -> Option<u64> {
        peak_rss().filter(|_| self.began)
    }
}
