//! Signals that end the server.

#[cfg(unix)]
pub(crate) use unix::Signals;

#[cfg(unix)]
mod unix {
    use std::future::poll_fn;
    use std::io;
    use std::task::Poll;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// Ctrl-C, SIGTERM and SIGHUP, from here on.
    pub(crate) struct Signals(Vec<Signal>);

    impl Signals {
        /// Listens to all of them but those that are ignored, as nohup and shells with jobs in the background
        /// want it.
        pub fn listen() -> io::Result<Self> {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let ignored = ignored(&status);
            let terminal = SignalKind::hangup();
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), terminal];
            // Without the mask, a hang-up keeps the disposition from the start.
            let mask = ignored.unwrap_or(bit(terminal));
            let kinds = kinds.into_iter().filter(|&kind| mask & bit(kind) == 0);
            Ok(Self(kinds.map(signal).collect::<io::Result<_>>()?))
        }

        /// Waits for the next one.
        pub async fn next(&mut self) {
            poll_fn(|context| {
                let got = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
                if got { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    fn bit(kind: SignalKind) -> u64 {
        1 << (kind.as_raw_value() - 1)
    }

    /// The mask of ignored signals in Linux' description of a process.
    fn ignored(status: &str) -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens to Ctrl-C.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
