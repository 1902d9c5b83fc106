//! Long work in a thread of its own, while the calling thread serves its requests and handles signals.
//!
//! Python handles signals in its main thread alone, and only between two of its instructions. So the calling thread, without
//! the GIL between two looks, waits for the requests of the work, such as a callback, and looks for signals meanwhile. An
//! exception, Ctrl-C included, sets the flag that stops the work; requests after it are dropped.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// Time between two looks for signals.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(50);

/// The end of some work.
pub struct Done<T> {
    /// Its result.
    pub result: T,
    /// The exception, other than that of Ctrl-C, that stopped it.
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
