//! Signals that stop the server.

#[cfg(unix)]
pub(crate) use unix::Signals;
#[cfg(unix)]
pub use unix::ignored_signals;

#[cfg(unix)]
mod unix {
    use std::future::poll_fn;
    use std::io;
    use std::task::Poll;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// Ctrl-C, SIGTERM and SIGHUP, from creation on.
    pub(crate) struct Signals(Vec<Signal>);

    impl Signals {
        /// Listens to all of them except [ignored ones](ignored_signals).
        pub fn listen() -> io::Result<Self> {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let ignored = ignored_signals();
            let kinds = kinds.into_iter().filter(|&kind| ignored & bit(kind) == 0);
            Ok(Self(kinds.map(signal).collect::<io::Result<_>>()?))
        }

        /// Waits for the next signal.
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

    /// The signals that the program was started to ignore, for example by nohup or by a shell for background
    /// jobs. Signal 1 is the lowest bit. If the system does not report them, as without `/proc`, this is
    /// SIGHUP, which then keeps its disposition.
    pub fn ignored_signals() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").ok();
        status.and_then(|status| ignored(&status)).unwrap_or(bit(SignalKind::hangup()))
    }

    /// The mask of ignored signals in Linux's process status.
    fn ignored(status: &str) -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_signal_mask_is_read_if_reported() {
            assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\n"), Some(0x1001));
            assert_eq!(ignored(""), None);
            assert_eq!(ignored("SigIgn:\tnone"), None);
        }
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

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
