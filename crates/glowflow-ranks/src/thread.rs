//! The thread that owns MPI.
//!
//! It receives [`Command`]s and posts results to the [`Board`]. A bucket of `n` values is summed in three
//! steps:
//!
//! 1. exchange: rank `r` receives the `r`-th of `size` slices from every rank (`MPI_Ialltoall`);
//! 2. it adds them in the [tree](crate::Tree);
//! 3. collection: every rank receives all summed slices (`MPI_Iallgather`).
//!
//! The last slice is padded with zeros. Each rank sends and receives `2 n (size - 1) / size` values, as in
//! the best all-reduce.
//!
//! Operations only advance while MPI is called. The thread tests them every [`BUSY`], which leaves the core
//! to the computation, and checks for messages of other ranks every [`IDLE`] if there are no operations.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use crate::abi::{Handle, Table};
use crate::board::{Board, Position, Ready};
use crate::mpi::{self, Lane, Pending, Session};
use crate::operations::Operation;
use crate::{Bucket, Launcher, RanksError, tree};

/// Pause between tests of operations in progress.
const BUSY: Duration = Duration::from_micros(50);
/// Pause between checks for messages.
const IDLE: Duration = Duration::from_millis(10);

/// Kind of a message that requests the receiver's position. It contains the sender's.
const QUESTION: u64 = 0;
/// Kind of a message that reports the sender's position.
const ANSWER: u64 = 1;

/// A request to the thread.
#[derive(Debug)]
pub(crate) enum Command {
    Sum(Bucket),
    Gather(Vec<u8>),
    Broadcast(Vec<u8>),
    Finish,
    /// Request the positions of all other ranks.
    Ask,
    /// End the job with this exit status.
    Abort(u8),
}

/// Runs MPI until it is finalised or all command senders are dropped.
pub(crate) fn run<H: Handle>(
    table: Table<H>,
    launcher: Option<&Launcher>,
    commands: &Receiver<Command>,
    board: &Board,
) {
    let failed = match start(table, launcher, board) {
        Err(error) => {
            board.fail(error);
            return;
        }
        Ok(session) => Worker::new(session, board).serve(commands),
    };
    let Some((session, error)) = failed else { return };
    board.fail(RanksError::Engine(error));
    while let Ok(command) = commands.recv() {
        if let Command::Abort(code) = command {
            session.abort(code.into());
        }
    }
}

/// Initialises MPI, and compares its size with the launcher's.
fn start<H: Handle>(
    table: Table<H>,
    launcher: Option<&Launcher>,
    board: &Board,
) -> Result<Session<H>, RanksError> {
    let library = mpi::version(&table);
    let mut session = Session::init(table).map_err(RanksError::Engine)?;
    if let Some((launcher, promised)) = launcher.and_then(|launcher| Some((launcher.name, launcher.size?)))
        && promised != session.size
    {
        let found = session.size;
        // Each process is a separate job, so this does not wait for others.
        let _ = session.finalize();
        return Err(RanksError::Mismatch { launcher: launcher.into(), promised, library, found });
    }
    session.separate_lanes().map_err(RanksError::Engine)?;
    let ready = Ready { rank: session.rank, size: session.size, host: session.host(), library };
    board.update(|state| {
        state.heard = vec![None; ready.size];
        state.ready = Some(ready);
    });
    Ok(session)
}

/// A bucket in flight.
struct Flight<H> {
    at: usize,
    length: usize,
    pending: Pending<H, f32>,
}

struct Worker<'a, H: Handle> {
    session: Session<H>,
    board: &'a Board,
    exchanges: VecDeque<Flight<H>>,
    collections: VecDeque<Flight<H>>,
    control: VecDeque<Command>,
    operation: Option<Operation<H>>,
    messages: Vec<Pending<H, u64>>,
    /// The next rank to check for messages.
    next: usize,
    finishing: bool,
    /// Buffers of earlier buckets, for reuse.
    spare: Vec<Vec<f32>>,
}

impl<'a, H: Handle> Worker<'a, H> {
    fn new(session: Session<H>, board: &'a Board) -> Self {
        Self {
            session,
            board,
            exchanges: VecDeque::new(),
            collections: VecDeque::new(),
            control: VecDeque::new(),
            operation: None,
            messages: Vec::new(),
            next: 0,
            finishing: false,
            spare: Vec::new(),
        }
    }

    /// Executes commands until the end, or until a failure, which is returned with the session.
    fn serve(mut self, commands: &Receiver<Command>) -> Option<(Session<H>, String)> {
        let mut advanced = false;
        loop {
            let idle = self.is_idle();
            let command = match (advanced, idle) {
                (true, _) => commands.try_recv().map_err(|error| error == TryRecvError::Disconnected),
                (false, _) => commands
                    .recv_timeout(if idle { IDLE } else { BUSY })
                    .map_err(|error| error == RecvTimeoutError::Disconnected),
            };
            let done = match command {
                Ok(command) => self.accept(command),
                // The caller has exited without `finish`. The process is about to end.
                Err(true) => return None,
                Err(false) => Ok(()),
            };
            match done.and_then(|()| self.advance(idle)) {
                Ok(progress) => advanced = progress,
                Err(error) => return Some((self.session, error)),
            }
            if self.finishing && self.operation.is_none() {
                self.board.update(|state| state.together = true);
                match self.align().and_then(|()| self.session.finalize()) {
                    Ok(()) => self.board.update(|state| state.finalized = true),
                    Err(error) => self.board.fail(RanksError::Engine(error)),
                }
                return None;
            }
        }
    }

    /// Waits for all ranks again, without pauses, so that they enter `MPI_Finalize` at the same time. In
    /// MPICH 4.0 over UCX and TCP, a rank may otherwise hang, waiting for the answer of another that no
    /// longer calls UCX.
    fn align(&self) -> Result<(), String> {
        let mut barrier = self.session.barrier(Lane::Control)?;
        while !self.session.test(&mut barrier)? {}
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.exchanges.is_empty() && self.collections.is_empty() && self.operation.is_none()
    }

    fn accept(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Sum(bucket) => self.exchange(bucket)?,
            Command::Ask => {
                let (mine, size) = (self.session.rank, self.session.size);
                (0..size).filter(|&rank| rank != mine).try_for_each(|rank| self.report(QUESTION, rank))?;
            }
            Command::Abort(code) => self.session.abort(code.into()),
            command => self.control.push_back(command),
        }
        Ok(())
    }

    fn exchange(&mut self, bucket: Bucket) -> Result<(), String> {
        let Bucket { at, mut values } = bucket;
        let length = values.len();
        values.resize(length.next_multiple_of(self.session.size), 0.0);
        let mut receive = self.spare.pop().unwrap_or_default();
        receive.resize(values.len(), 0.0);
        let pending = self.session.all_to_all(Lane::Exchange, values, receive)?;
        self.exchanges.push_back(Flight { at, length, pending });
        Ok(())
    }

    /// Advances all operations. Returns whether one of them made progress.
    fn advance(&mut self, idle: bool) -> Result<bool, String> {
        let mut progress = self.collect()?;
        progress |= self.complete()?;
        progress |= self.control()?;
        for _ in 0..if idle { self.session.size } else { 1 } {
            self.look_for_message()?;
        }
        Ok(progress)
    }

    /// Adds exchanged slices, and starts collecting the sums, in the order of buckets.
    fn collect(&mut self) -> Result<bool, String> {
        let Some(flight) = self.exchanges.front_mut() else { return Ok(false) };
        if !self.session.test(&mut flight.pending)? {
            return Ok(false);
        }
        let (mut slices, receive) = (flight.pending.take_received(), flight.pending.take_sent());
        let (at, length) = (flight.at, flight.length);
        self.exchanges.pop_front();
        tree::sum_in_place(&mut slices, self.session.size);
        slices.truncate(slices.len() / self.session.size);
        let pending = self.session.all_gather(Lane::Collect, slices, receive)?;
        self.collections.push_back(Flight { at, length, pending });
        Ok(true)
    }

    /// Posts the summed buckets.
    fn complete(&mut self) -> Result<bool, String> {
        let Some(flight) = self.collections.front_mut() else { return Ok(false) };
        if !self.session.test(&mut flight.pending)? {
            return Ok(false);
        }
        let (mut values, spare) = (flight.pending.take_received(), flight.pending.take_sent());
        values.truncate(flight.length);
        let bucket = Bucket { at: flight.at, values };
        self.collections.pop_front();
        self.spare.push(spare);
        self.board.update(|state| state.summed.push_back(bucket));
        Ok(true)
    }

    /// Starts and completes control operations, one at a time.
    fn control(&mut self) -> Result<bool, String> {
        if let Some(operation) = &mut self.operation {
            let Some(result) = operation.poll(&self.session)? else { return Ok(false) };
            self.operation = None;
            if !self.finishing {
                self.board.update(|state| state.reply = Some(result));
            }
            return Ok(true);
        }
        self.operation = match self.control.pop_front() {
            Some(Command::Gather(mine)) => Some(Operation::gather(&self.session, mine)?),
            Some(Command::Broadcast(bytes)) => Some(Operation::broadcast(&self.session, bytes)?),
            Some(Command::Finish) => {
                self.finishing = true;
                Some(Operation::barrier(&self.session)?)
            }
            _ => None,
        };
        Ok(self.operation.is_some())
    }

    /// Checks for a message of the next rank. A query is answered regardless of this rank's computation.
    fn look_for_message(&mut self) -> Result<(), String> {
        let from = self.next;
        self.next = (from + 1) % self.session.size;
        if from == self.session.rank {
            return Ok(());
        }
        if let Some([kind, waits, step]) = self.session.receive(from)? {
            self.board.update(|state| state.heard[from] = Some(Position { waits, step }));
            if kind == QUESTION {
                self.report(ANSWER, from)?;
            }
        }
        Ok(())
    }

    /// Sends this rank's position.
    fn report(&mut self, kind: u64, to: usize) -> Result<(), String> {
        let Position { waits, step } = self.board.lock().mine;
        let mut messages = std::mem::take(&mut self.messages);
        for mut message in messages.drain(..) {
            if !self.session.test(&mut message)? {
                self.messages.push(message);
            }
        }
        self.messages.push(self.session.send(to, [kind, waits, step])?);
        Ok(())
    }
}
