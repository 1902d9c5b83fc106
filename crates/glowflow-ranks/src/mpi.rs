//! MPI calls, for the one thread that owns MPI.
//!
//! A [`Session`] lasts from `MPI_Init_thread` to `MPI_Finalize` and cannot leave its thread
//! (`MPI_THREAD_FUNNELED`). An operation in progress is a [`Pending`], which owns its memory. Nothing here
//! blocks, except at start and end.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use crate::abi::{Handle, Table};

/// A message between two ranks.
pub(crate) type Message = [u64; 3];

const TAG: c_int = 1;

/// Values whose bytes MPI may read and write.
///
/// # Safety
/// Any bit pattern must be a valid value, without padding.
pub(crate) unsafe trait Plain: Copy + Default + 'static {}

// SAFETY: all bit patterns of a number are valid, without padding.
unsafe impl Plain for u8 {}
// SAFETY: all bit patterns of a number are valid, without padding.
unsafe impl Plain for u64 {}
// SAFETY: all bit patterns of a number are valid, without padding.
unsafe impl Plain for f32 {}

/// Independent sequences of operations. Each has a communicator, on which all ranks start the same operations
/// in the same order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// Exchanges of buckets, in the order of buckets.
    Exchange,
    /// Gathers of summed buckets, in the order of buckets. An exchange may be complete on one rank and not on
    /// another, so these have no common order with the exchanges.
    Collect,
    /// All other operations.
    Control,
}

/// MPI between initialisation and finalisation.
pub(crate) struct Session<H: Handle> {
    table: Table<H>,
    /// One communicator per lane.
    lanes: [H; 3],
    pub rank: usize,
    pub size: usize,
    /// MPI is only called by this thread.
    single_thread: PhantomData<*const ()>,
}

/// An operation in progress, with the memory that MPI reads and writes.
pub(crate) struct Pending<H, T> {
    request: H,
    send: Vec<T>,
    receive: Vec<T>,
    complete: bool,
}

impl<H, T> Pending<H, T> {
    /// The received data after completion; empty before that.
    pub fn take_received(&mut self) -> Vec<T> {
        if self.complete { std::mem::take(&mut self.receive) } else { Vec::new() }
    }

    /// The sent data after completion; empty before that.
    pub fn take_sent(&mut self) -> Vec<T> {
        if self.complete { std::mem::take(&mut self.send) } else { Vec::new() }
    }
}

impl<H, T> Drop for Pending<H, T> {
    fn drop(&mut self) {
        if !self.complete {
            // MPI may still use the memory.
            std::mem::forget((std::mem::take(&mut self.send), std::mem::take(&mut self.receive)));
        }
    }
}

/// Returns the text written by an MPI function: at most 8192 bytes in any interface.
fn text(write: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> String {
    let mut bytes = vec![0u8; 16384];
    let mut length = 0;
    if write(bytes.as_mut_ptr().cast(), &mut length) != 0 {
        return String::new();
    }
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').trim().to_string()
}

fn count_of<T>(values: usize) -> Result<c_int, String> {
    let bytes = values.checked_mul(size_of::<T>()).and_then(|bytes| c_int::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("a message of {values} values is over MPI's limit of 2 GiB"))
}

/// Name and version of a library, in the library's shortest form.
pub(crate) fn version<H: Handle>(table: &Table<H>) -> String {
    // SAFETY: may be called before initialisation; the memory is larger than any interface's maximum.
    let version = text(|into, length| unsafe { (table.functions.get_library_version)(into, length) });
    let first = version.split(['\n', ',']).next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<H: Handle> Session<H> {
    /// Initialises MPI, at most once per process.
    pub fn init(table: Table<H>) -> Result<Self, String> {
        let (functions, constants) = (&table.functions, table.constants);
        let mut provided = 0;
        // SAFETY: null is allowed for the program's arguments; `provided` outlives the call.
        let code = unsafe {
            (functions.init_thread)(ptr::null_mut(), ptr::null_mut(), constants.funneled, &mut provided)
        };
        if code != 0 {
            return Err(format!("MPI_Init_thread failed with code {code}"));
        }
        if provided < constants.funneled {
            return Err(format!("{} does not support programs with threads", version(&table)));
        }
        let world = constants.world;
        let mut session = Self { table, lanes: [world; 3], rank: 0, size: 0, single_thread: PhantomData };
        session.return_errors(world)?;
        let (mut rank, mut size) = (0, 0);
        // SAFETY: MPI is initialised, and the results outlive the calls.
        let codes = unsafe {
            let functions = &session.table.functions;
            [(functions.comm_rank)(world, &mut rank), (functions.comm_size)(world, &mut size)]
        };
        codes.into_iter().try_for_each(|code| session.check(code))?;
        (session.rank, session.size) = (rank as usize, size as usize);
        Ok(session)
    }

    /// Creates a separate communicator for each lane. All ranks take part.
    pub fn separate_lanes(&mut self) -> Result<(), String> {
        for lane in 0..self.lanes.len() {
            let mut copy = self.table.constants.world;
            // SAFETY: `copy` outlives the call.
            self.check(unsafe { (self.table.functions.comm_dup)(self.table.constants.world, &mut copy) })?;
            self.return_errors(copy)?;
            self.lanes[lane] = copy;
        }
        Ok(())
    }

    /// Makes functions return error codes instead of terminating the process.
    fn return_errors(&self, communicator: H) -> Result<(), String> {
        let handler = self.table.constants.errors_return;
        // SAFETY: both handles are valid.
        self.check(unsafe { (self.table.functions.comm_set_errhandler)(communicator, handler) })
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the memory is larger than any interface's maximum.
        let text = text(|into, length| unsafe { (self.table.functions.error_string)(code, into, length) });
        Err(if text.is_empty() { format!("MPI failed with code {code}") } else { text })
    }

    /// Name of this host.
    pub fn host(&self) -> String {
        // SAFETY: the memory is larger than any interface's maximum.
        text(|into, length| unsafe { (self.table.functions.get_processor_name)(into, length) })
    }

    /// Sends the `r`-th of `size` equal slices of `send` to rank `r`; `receive` gets this rank's slice from
    /// every rank.
    pub fn all_to_all<T: Plain>(
        &self,
        lane: Lane,
        send: Vec<T>,
        mut receive: Vec<T>,
    ) -> Result<Pending<H, T>, String> {
        assert!(send.len().is_multiple_of(self.size) && receive.len() == send.len(), "equal slices");
        let count = count_of::<T>(send.len() / self.size)?;
        let (from, into) = (send.as_ptr().cast(), receive.as_mut_ptr().cast());
        let byte = self.table.constants.byte;
        self.start(send, receive, |request| {
            // SAFETY: both ranges have `size * count` bytes, and `Pending` keeps them until completion.
            unsafe {
                let communicator = self.lanes[lane as usize];
                (self.table.functions.all_to_all)(from, count, byte, into, count, byte, communicator, request)
            }
        })
    }

    /// Gathers the `send` of every rank into `receive`, in the order of ranks.
    pub fn all_gather<T: Plain>(
        &self,
        lane: Lane,
        send: Vec<T>,
        mut receive: Vec<T>,
    ) -> Result<Pending<H, T>, String> {
        assert_eq!(receive.len(), send.len() * self.size, "one slice a rank");
        let count = count_of::<T>(send.len())?;
        let (from, into) = (send.as_ptr().cast(), receive.as_mut_ptr().cast());
        let byte = self.table.constants.byte;
        self.start(send, receive, |request| {
            // SAFETY: `count` and `size * count` bytes, which `Pending` keeps until completion.
            unsafe {
                let communicator = self.lanes[lane as usize];
                (self.table.functions.all_gather)(from, count, byte, into, count, byte, communicator, request)
            }
        })
    }

    /// Replaces `buffer` by that of rank 0, which has the same length.
    pub fn broadcast<T: Plain>(&self, lane: Lane, mut buffer: Vec<T>) -> Result<Pending<H, T>, String> {
        let count = count_of::<T>(buffer.len())?;
        let into = buffer.as_mut_ptr().cast();
        self.start(Vec::new(), buffer, |request| {
            let byte = self.table.constants.byte;
            // SAFETY: `count` bytes, which `Pending` keeps until completion.
            unsafe {
                (self.table.functions.broadcast)(into, count, byte, 0, self.lanes[lane as usize], request)
            }
        })
    }

    /// Starts a barrier, which completes after all ranks have called it.
    pub fn barrier(&self, lane: Lane) -> Result<Pending<H, u8>, String> {
        // SAFETY: no memory is involved except the request.
        self.start(Vec::new(), Vec::new(), |request| unsafe {
            (self.table.functions.barrier)(self.lanes[lane as usize], request)
        })
    }

    /// Sends a message to a rank.
    pub fn send(&self, to: usize, message: Message) -> Result<Pending<H, u64>, String> {
        let send = message.to_vec();
        let (from, count) = (send.as_ptr().cast(), count_of::<u64>(send.len())?);
        self.start(send, Vec::new(), |request| {
            let (byte, lane) = (self.table.constants.byte, self.lanes[Lane::Control as usize]);
            // SAFETY: `count` bytes, which `Pending` keeps until completion.
            unsafe { (self.table.functions.send)(from, count, byte, to as c_int, TAG, lane, request) }
        })
    }

    /// Returns the next message of a rank, if it has arrived.
    pub fn receive(&self, from: usize) -> Result<Option<Message>, String> {
        let ignore: *mut c_void = ptr::without_provenance_mut(self.table.constants.status_ignore);
        let (from, lane) = (from as c_int, self.lanes[Lane::Control as usize]);
        let mut flag = 0;
        // SAFETY: `flag` outlives the call, and the status is ignored.
        self.check(unsafe { (self.table.functions.probe)(from, TAG, lane, &mut flag, ignore) })?;
        if flag == 0 {
            return Ok(None);
        }
        let mut message = Message::default();
        let (into, count) = (message.as_mut_ptr().cast(), size_of::<Message>() as c_int);
        let byte = self.table.constants.byte;
        // SAFETY: `message` has `count` bytes and outlives the call.
        self.check(unsafe { (self.table.functions.receive)(into, count, byte, from, TAG, lane, ignore) })?;
        Ok(Some(message))
    }

    fn start<T: Plain>(
        &self,
        send: Vec<T>,
        receive: Vec<T>,
        call: impl FnOnce(*mut H) -> c_int,
    ) -> Result<Pending<H, T>, String> {
        let request = self.table.constants.request_null;
        let mut pending = Pending { request, send, receive, complete: false };
        self.check(call(&mut pending.request))?;
        Ok(pending)
    }

    /// Returns whether an operation is complete. The call also lets MPI make progress.
    pub fn test<T>(&self, pending: &mut Pending<H, T>) -> Result<bool, String> {
        if !pending.complete {
            let ignore: *mut c_void = ptr::without_provenance_mut(self.table.constants.status_ignore);
            let mut flag = 0;
            // SAFETY: the request is that of an operation in progress, and the status is ignored.
            self.check(unsafe { (self.table.functions.test)(&mut pending.request, &mut flag, ignore) })?;
            pending.complete = flag != 0;
        }
        Ok(pending.complete)
    }

    /// Requests that the launcher end all ranks. The call may or may not return.
    pub fn abort(&self, code: i32) {
        // SAFETY: MPI is initialised.
        unsafe { (self.table.functions.abort)(self.table.constants.world, code) };
    }

    /// Finalises MPI.
    pub fn finalize(self) -> Result<(), String> {
        // SAFETY: MPI is initialised, and is not called again.
        let code = unsafe { (self.table.functions.finalize)() };
        if code == 0 { Ok(()) } else { Err(format!("MPI_Finalize failed with code {code}")) }
    }
}

/// Exits the process immediately, without the exit handlers of libraries, which may wait for other ranks.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it accepts any code and does not return.
    unsafe { libc::_exit(code) }
}
