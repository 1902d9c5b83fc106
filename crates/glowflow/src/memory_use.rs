//! Memory that this process has used (Linux).

/// Largest resident size of the process so far, in bytes: the kernel's high-water mark.
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Peak memory since a moment.
pub struct PeakMemory {
    /// The system took the mark back.
    began: bool,
}

impl PeakMemory {
    /// Begins to measure, and sets the high-water mark back to the current size.
    pub fn begin() -> Self {
        Self { began: std::fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// Largest resident size since then; `None` if the system does not report it.
    pub fn peak(&self) -> Option<u64> {
        peak_rss().filter(|_| self.began)
    }
}
