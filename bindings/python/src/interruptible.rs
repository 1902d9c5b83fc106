//! Long-running work in a separate thread, while the calling thread serves its requests and handles signals.
//!
//! Python handles signals only in its main thread, between two instructions. Therefore the calling thread
//! waits for requests of the work, such as callbacks, without the GIL, and checks for signals at intervals.
//! An exception, including Ctrl-C, sets the flag that stops the work; later requests are dropped.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// Time between two signal checks.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(50);

/// Outcome of the work.
pub struct Done<T> {
    /// Return value of the work.
    pub result: T,
    /// The exception that stopped it, unless it was Ctrl-C.
    pub exception: Option<PyErr>,
}

/// Runs `work`, which sends requests to `serve`. Sets `stop` after Ctrl-C and after an exception of `serve`.
pub fn run<Q: Send, T: Send>(
    py: Python<'_>,
    stop: &AtomicBool,
    work: impl FnOnce(Sender<Q>) -> T + Send,
    mut serve: impl FnMut(Q) -> PyResult<()>,
) -> Done<T> {
    let (sender, receiver) = mpsc::channel();
    // Shared with code that runs without the GIL.
    let receiver = Mutex::new(receiver);
    let mut exception: Option<PyErr> = None;
    let mut stopped_by = |error: PyErr| {
        stop.store(true, Ordering::Relaxed);
        if exception.is_none() && !error.is_instance_of::<PyKeyboardInterrupt>(py) {
            exception = Some(error);
        }
    };
    let result = thread::scope(|scope| {
        let worker = scope.spawn(move || work(sender));
        loop {
            let request = py.detach(|| match receiver.lock() {
                Ok(receiver) => receiver.recv_timeout(BETWEEN_SIGNALS),
                Err(_) => Err(RecvTimeoutError::Disconnected),
            });
            let served = match request {
                Ok(_) if stop.load(Ordering::Relaxed) => Ok(()),
                Ok(request) => serve(request),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(error) = served.and_then(|()| py.check_signals()) {
                stopped_by(error);
            }
        }
        py.detach(|| worker.join()).unwrap_or_else(|panic| resume_unwind(panic))
    });
    Done { result, exception }
}
