//! Waiting for work that cannot be interrupted, but only until a stop is requested.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::Error;

/// Time between two looks at the request.
const INTERVAL: Duration = Duration::from_millis(20);

/// Does `work` in a thread of its own. On a stop that thread is left to itself, so `work` must only read.
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
            // It ended without an answer, so by a panic.
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
    fn work_is_waited_for_until_a_stop() {
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
