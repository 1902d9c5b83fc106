//! Waits for uninterruptible work, until a stop is requested.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::Error;

/// Interval between checks for a request.
const INTERVAL: Duration = Duration::from_millis(20);

/// Performs `work` in a separate thread. On a stop, that thread is detached, so `work` must only read.
///
/// # Errors
/// [`Error::Stopped`], and those of `work`.
pub fn unless_stopped<T: Send + 'static>(
    stop: &AtomicBool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = channel();
    let worker = thread::Builder::new().name("waited for".into()).spawn(move || _ = sender.send(work()));
    let worker = worker.map_err(Error::io("a new thread"))?;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        match receiver.recv_timeout(INTERVAL) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) => {}
            // It ended without a result, so it panicked.
            Err(RecvTimeoutError::Disconnected) => match worker.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(Error::Stopped),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_work_or_a_stop() {
        let stop = AtomicBool::new(false);
        assert_eq!(unless_stopped(&stop, || Ok(3)).unwrap(), 3);
        assert!(matches!(
            unless_stopped::<()>(&stop, || Err(Error::Input("no".into()))),
            Err(Error::Input(_))
        ));
        thread::scope(|scope| {
            scope.spawn(|| stop.store(true, Ordering::Relaxed));
            let endless = || loop {
                thread::sleep(INTERVAL);
            };
            assert!(matches!(unless_stopped::<()>(&stop, endless), Err(Error::Stopped)));
        });
    }
}
