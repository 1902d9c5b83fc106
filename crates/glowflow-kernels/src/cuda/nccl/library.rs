//! NCCL's functions, made safe: a library opened at run time, and non-blocking communicators.
//!
//! The table holds only what is used here, as `nccl.h` has it from 2.14 to 2.30. Calls on a non-blocking
//! communicator return before it has finished. It must not be used again until [`Handle::is_ready`] returns
//! true, and only from one thread at a time.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use cudarc::driver::sys::CUstream;

use super::schedule::{Transfer, Way};
use crate::cuda::driver::Stream;
use crate::cuda::library::files;

type Result<T> = std::result::Result<T, String>;

/// `ncclComm_t`.
type Raw = *mut c_void;
/// `ncclResult_t`.
type Status = c_int;

const SUCCESS: Status = 0;
const IN_PROGRESS: Status = 7;
/// `ncclFloat32`.
const FLOAT32: c_int = 7;

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId {
    internal: [c_char; 128],
}

/// `ncclConfig_t` of version 2.14, with which later ones begin. A library reads `size` bytes of it at most,
/// and uses its defaults for fields that `version` lacks.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    /// In place of padding: NCCL's "undefined".
    rest: c_int,
}

#[derive(Clone, Copy)]
struct Functions {
    get_version: unsafe extern "C" fn(*mut c_int) -> Status,
    get_error_string: unsafe extern "C" fn(Status) -> *const c_char,
    get_last_error: unsafe extern "C" fn(Raw) -> *const c_char,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Status,
    init_rank_config: unsafe extern "C" fn(*mut Raw, c_int, UniqueId, c_int, *mut Config) -> Status,
    get_async_error: unsafe extern "C" fn(Raw, *mut Status) -> Status,
    abort: unsafe extern "C" fn(Raw) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Raw, CUstream) -> Status,
    receive: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Raw, CUstream) -> Status,
}

/// A function of a library.
///
/// # Safety
/// `F` must be the type of the function.
#[allow(unsafe_code)]
unsafe fn function<F: Copy>(library: &libloading::Library, name: &str) -> Result<F> {
    // SAFETY: the caller states the type.
    unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| format!("it has no function {name}"))
}

impl Functions {
    #[allow(unsafe_code)]
    fn open(path: &Path) -> Result<Self> {
        let described = |reason: String| format!("{}: {reason}", path.display());
        // SAFETY: opening a library runs its initialisers. These are NVIDIA's, or what the user put in their
        // place.
        let library = unsafe { libloading::Library::new(path) }.map_err(|e| described(e.to_string()))?;
        // SAFETY: the types are those of nccl.h; its enums are ints, its handles pointers.
        let functions = unsafe { Self::find(&library) }.map_err(described)?;
        // Its functions stay for the whole process.
        std::mem::forget(library);
        Ok(functions)
    }

    /// # Safety
    /// The library must be NCCL.
    #[allow(unsafe_code)]
    unsafe fn find(library: &libloading::Library) -> Result<Self> {
        // SAFETY: the fields have the types of these functions.
        unsafe {
            Ok(Self {
                get_version: function(library, "ncclGetVersion")?,
                get_error_string: function(library, "ncclGetErrorString")?,
                get_last_error: function(library, "ncclGetLastError")?,
                get_unique_id: function(library, "ncclGetUniqueId")?,
                init_rank_config: function(library, "ncclCommInitRankConfig")?,
                get_async_error: function(library, "ncclCommGetAsyncError")?,
                abort: function(library, "ncclCommAbort")?,
                group_start: function(library, "ncclGroupStart")?,
                group_end: function(library, "ncclGroupEnd")?,
                send: function(library, "ncclSend")?,
                receive: function(library, "ncclRecv")?,
            })
        }
    }

    /// Returns an error unless a call succeeded or is in progress. `communicator` may be null.
    #[allow(unsafe_code)]
    fn check(&self, status: Status, what: &str, communicator: Raw) -> Result<()> {
        if status == SUCCESS || status == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: NCCL returns terminated strings for every status and communicator, that of the last error
        // from its own memory. They are copied at once.
        let [text, last] = unsafe {
            [(self.get_error_string)(status), (self.get_last_error)(communicator)].map(|text| words(text))
        };
        let last = last.trim();
        let detail = if last.is_empty() { String::new() } else { format!(": {last}") };
        Err(format!("{what}: NCCL: {text}{detail}"))
    }
}

/// # Safety
/// `text` must be null or a terminated string.
#[allow(unsafe_code)]
unsafe fn words(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it is not null, and terminated as the caller states.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// An open library.
pub struct Library {
    functions: Functions,
    version: i32,
}

impl Library {
    /// Opens the first library that can be used. The error lists the reasons for each that was tried.
    #[allow(unsafe_code)]
    pub fn open(folders: &[PathBuf]) -> Result<Self> {
        let mut failed = vec![];
        for path in files(folders, "nccl", "libnccl.so.2") {
            match Functions::open(&path) {
                Ok(functions) => {
                    let mut version = 0;
                    // SAFETY: the out-pointer is to a live variable.
                    let status = unsafe { (functions.get_version)(&mut version) };
                    functions.check(status, "asking for the version", ptr::null_mut())?;
                    return Ok(Self { functions, version });
                }
                Err(reason) => failed.push(reason),
            }
        }
        let reasons = failed.join("; ");
        Err(format!(
            "NCCL was not found (libnccl.so.2); install it, or the Python package nvidia-nccl-cu13 and name \
             its folder in GLOWFLOW_CUDA_LIBRARIES ({reasons})"
        ))
    }

    /// 23007 for 2.30.7.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// See [`Transport::unique_id`](crate::communicator::Transport::unique_id).
    #[allow(unsafe_code)]
    pub fn unique_id(&self) -> Result<Vec<u8>> {
        let mut id = UniqueId { internal: [0; 128] };
        // SAFETY: the out-pointer is to a live variable of NCCL's type.
        let status = unsafe { (self.functions.get_unique_id)(&mut id) };
        self.functions.check(status, "making an id", ptr::null_mut())?;
        Ok(id.internal.map(|byte| byte as u8).to_vec())
    }

    /// Begins to connect the GPU whose context the calling thread has entered.
    #[allow(unsafe_code)]
    pub fn begin(&self, id: &[u8], rank: usize, size: usize) -> Result<Handle> {
        let bytes: [u8; 128] =
            id.try_into().map_err(|_| format!("{} bytes are not an id of NCCL", id.len()))?;
        let id = UniqueId { internal: bytes.map(|byte| byte as c_char) };
        let mut config = Config {
            size: size_of::<Config>(),
            magic: 0xcafe_beef,
            version: 21400,
            blocking: 0,
            rest: c_int::MIN,
        };
        let mut raw = ptr::null_mut();
        // SAFETY: out-pointers are to live variables of NCCL's types. It copies the configuration.
        let status = unsafe {
            (self.functions.init_rank_config)(&mut raw, size as c_int, id, rank as c_int, &mut config)
        };
        let handle = Handle { functions: self.functions, raw };
        match self.functions.check(status, "connecting the GPUs", raw) {
            Ok(()) if raw.is_null() => Err("connecting the GPUs: NCCL made no communicator".into()),
            Ok(()) => Ok(handle),
            Err(reason) => {
                handle.abort();
                Err(reason)
            }
        }
    }
}

/// A non-blocking communicator.
pub struct Handle {
    functions: Functions,
    raw: Raw,
}

// SAFETY: NCCL lets any thread use a communicator, one at a time: all calls on it need the only handle, which
// is not shared between threads.
#[allow(unsafe_code)]
unsafe impl Send for Handle {}

impl Handle {
    /// Returns whether all earlier calls are done: connecting, or enqueuing work on a stream. Also reports
    /// failures of work on the GPU since then.
    #[allow(unsafe_code)]
    pub fn is_ready(&self) -> Result<bool> {
        let mut status = SUCCESS;
        // SAFETY: the communicator lives as long as `self`, and the out-pointer is to a live variable.
        let asked = unsafe { (self.functions.get_async_error)(self.raw, &mut status) };
        self.functions.check(asked, "asking for errors", self.raw)?;
        self.functions.check(status, "communicating with other GPUs", self.raw)?;
        Ok(status != IN_PROGRESS)
    }

    /// Starts queueing transfers of `f32` on a stream, as one group.
    #[allow(unsafe_code)]
    pub fn begin_group(&self, transfers: &[Transfer], stream: &Stream) -> Result<()> {
        let Self { functions, raw } = self;
        let what = "queueing transfers between GPUs";
        // SAFETY: no pointers are passed.
        functions.check(unsafe { (functions.group_start)() }, what, *raw)?;
        let mut queued = Ok(());
        for &Transfer { way, address, count, peer } in transfers {
            let peer = peer as c_int;
            // SAFETY: communicator and stream are live. Callers give addresses of `count` numbers in memory
            // of the GPU, which stay valid while the stream, or a capture of it, has the transfer.
            let status = unsafe {
                match way {
                    Way::Send => {
                        let from = address as *const c_void;
                        (functions.send)(from, count, FLOAT32, peer, *raw, stream.raw)
                    }
                    Way::Receive => {
                        let to = address as *mut c_void;
                        (functions.receive)(to, count, FLOAT32, peer, *raw, stream.raw)
                    }
                }
            };
            queued = queued.and_then(|()| functions.check(status, what, *raw));
        }
        // A group that was begun has to end in any case.
        // SAFETY: no pointers are passed.
        let ended = functions.check(unsafe { (functions.group_end)() }, what, *raw);
        queued.and(ended)
    }

    /// Aborts the communicator and its pending work. May block until captured graphs of that work are dropped.
    #[allow(unsafe_code)]
    pub fn abort(self) {
        if !self.raw.is_null() {
            // SAFETY: this is the only handle, and it is given up. There is nothing to do about an error.
            let _ = unsafe { (self.functions.abort)(self.raw) };
        }
    }
}
