//! Computes results ahead of use in background threads and delivers them in order.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// Finished results that a thread may queue in addition to the one in progress.
const WAITING: usize = 1;

/// An iterator over `make(first)`, `make(first + 1)`, … up to the first `None`.
///
/// With T threads, thread t computes every T-th result and sends it through its own bounded queue; reading
/// the queues round-robin restores the order. Neither the order nor the values depend on thread timing or on
/// the number of threads. Dropping the iterator ends the threads.
pub(crate) struct Ahead<T> {
    lanes: Vec<Lane<T>>,
    turn: usize,
}

struct Lane<T> {
    results: Receiver<T>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts `threads` threads, at least one.
    pub fn start(
        threads: usize,
        first: u64,
        make: impl Fn(u64) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        let threads = threads.max(1);
        let make = Arc::new(make);
        let lane = |lane: usize| {
            let make = make.clone();
            let (sender, results) = sync_channel(WAITING);
            let thread = thread::spawn(move || {
                let numbers = (first.saturating_add(lane as u64)..=u64::MAX).step_by(threads);
                // Sending fails once the receiver is gone.
                let _ = numbers.map_while(|number| make(number)).try_for_each(|result| sender.send(result));
            });
            Lane { results, thread }
        };
        Self { lanes: (0..threads).map(lane).collect(), turn: 0 }
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let turn = self.turn % self.lanes.len().max(1);
        if let Ok(result) = self.lanes.get(turn)?.results.recv() {
            self.turn = turn + 1;
            return Some(result);
        }
        // The end of the sequence, or a panic in the thread, which must not be mistaken for the end.
        let lane = self.lanes.swap_remove(turn);
        self.lanes.clear();
        if let Err(panic) = lane.thread.join() {
            resume_unwind(panic);
        }
        None
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        for Lane { results, thread } in self.lanes.drain(..) {
            // A thread blocked in `send` wakes up when its receiver is dropped.
            drop(results);
            let _ = thread.join();
        }
    }
}
