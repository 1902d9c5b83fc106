//! Work done ahead of its use in other threads, delivered in order.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// How many finished results a thread may have waiting, besides the one it works on.
const WAITING: usize = 1;

/// An iterator over `make(first)`, `make(first + 1)`, … up to the first `None`.
///
/// With T threads, thread t makes every T-th result and has a bounded queue of its own; taking from
/// the queues in turn restores the order. The order of results thus does not depend on the threads'
/// speed, nor their values on the number of threads. Dropping the iterator ends the threads.
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
                // Sending fails when nobody will receive any more.
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
        // The end, or a panic that must not pass for it.
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
            // A thread that waits to send wakes up when its receiver goes.
            drop(results);
            let _ = thread.join();
        }
    }
}
