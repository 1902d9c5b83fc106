//! The functions and constants of an MPI library, for each of the three binary interfaces.
//!
//! | interface | libraries | handles | recognised by |
//! | --- | --- | --- | --- |
//! | MPI 5.0 standard | `libmpi_abi.so.1` of MPICH 5, Intel MPI 2021.19 | pointers | `MPI_Abi_get_version` |
//! | Open MPI | `libmpi.so.40` of Open MPI 4 and 5 | addresses of symbols | symbol `ompi_mpi_comm_world` |
//! | MPICH | `libmpi.so.12` of MPICH, Intel, Cray, MVAPICH | `int` | otherwise |
//!
//! Functions are declared once, generic in the type of handles: `int`, or `usize` for pointers, which have
//! the same C calling convention. Layouts of `MPI_Status` differ, so a status is never read. Only bytes are
//! sent, so no other datatype is needed.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Handle of a communicator, a datatype, an error handler or a request.
pub(crate) trait Handle: Copy + Send + 'static {}

impl Handle for c_int {}
impl Handle for usize {}

/// An open MPI library.
pub(crate) enum Abi {
    /// Handles are integers.
    Integers(Table<c_int>),
    /// Handles are pointers.
    Pointers(Table<usize>),
}

/// Functions and constants of a library.
pub(crate) struct Table<H> {
    pub functions: Functions<H>,
    pub constants: Constants<H>,
}

/// Constants of an interface.
#[derive(Clone, Copy)]
pub(crate) struct Constants<H> {
    /// `MPI_COMM_WORLD`
    pub world: H,
    /// `MPI_BYTE`
    pub byte: H,
    /// `MPI_ERRORS_RETURN`
    pub errors_return: H,
    /// `MPI_REQUEST_NULL`
    pub request_null: H,
    /// `MPI_STATUS_IGNORE`
    pub status_ignore: usize,
    /// `MPI_THREAD_FUNNELED`
    pub funneled: c_int,
}

const MPICH: Constants<c_int> = Constants {
    world: 0x4400_0000,
    byte: 0x4c00_010d,
    errors_return: 0x5400_0001,
    request_null: 0x2c00_0000,
    status_ignore: 1,
    funneled: 1,
};

const STANDARD: Constants<usize> = Constants {
    world: 0x101,
    byte: 0x247,
    errors_return: 0x142,
    request_null: 0x180,
    status_ignore: 0,
    funneled: 1024,
};

/// Declares the table of functions, each with its symbol and the types of its arguments. All return an error
/// code.
macro_rules! functions {
    ($($name:ident: $symbol:literal ($($argument:ty),*);)*) => {
        /// Functions of an MPI library, named as in MPI.
        pub(crate) struct Functions<H> {
            $(pub $name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl<H: Handle> Functions<H> {
            /// # Safety
            /// The library must be an MPI library whose handles are `H`.
            unsafe fn load(library: &Library) -> Result<Self, String> {
                // SAFETY: these are the types of MPI's functions, with the handles of this library.
                Ok(Self { $($name: unsafe { symbol(library, $symbol) }?,)* })
            }
        }
    };
}

functions! {
    init_thread: "MPI_Init_thread"(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int);
    finalize: "MPI_Finalize"();
    abort: "MPI_Abort"(H, c_int);
    comm_rank: "MPI_Comm_rank"(H, *mut c_int);
    comm_size: "MPI_Comm_size"(H, *mut c_int);
    comm_dup: "MPI_Comm_dup"(H, *mut H);
    comm_set_errhandler: "MPI_Comm_set_errhandler"(H, H);
    error_string: "MPI_Error_string"(c_int, *mut c_char, *mut c_int);
    get_library_version: "MPI_Get_library_version"(*mut c_char, *mut c_int);
    get_processor_name: "MPI_Get_processor_name"(*mut c_char, *mut c_int);
    all_to_all: "MPI_Ialltoall"(*const c_void, c_int, H, *mut c_void, c_int, H, H, *mut H);
    all_gather: "MPI_Iallgather"(*const c_void, c_int, H, *mut c_void, c_int, H, H, *mut H);
    broadcast: "MPI_Ibcast"(*mut c_void, c_int, H, c_int, H, *mut H);
    barrier: "MPI_Ibarrier"(H, *mut H);
    send: "MPI_Isend"(*const c_void, c_int, H, c_int, c_int, H, *mut H);
    probe: "MPI_Iprobe"(c_int, c_int, H, *mut c_int, *mut c_void);
    receive: "MPI_Recv"(*mut c_void, c_int, H, c_int, c_int, H, *mut c_void);
    test: "MPI_Test"(*mut H, *mut c_int, *mut c_void);
}

/// # Safety
/// `F` must be the type of the function with this name.
unsafe fn symbol<F: Copy>(library: &Library, name: &str) -> Result<F, String> {
    // SAFETY: the caller states the type.
    unsafe { library.get::<F>(name) }.map(|symbol| *symbol).map_err(|_| format!("no function {name}"))
}

impl Abi {
    /// Opens a library, which stays open until the process ends. The error names the file.
    pub fn open(path: &Path) -> Result<Self, String> {
        // MPI libraries open plugins that need the library's own symbols, so these are made global.
        // SAFETY: opening a library runs its initialisers. These are MPI's, or those of the file that the
        // user specified.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let library = library.map_err(|error| reason(path, &error))?;
        let abi = Self::of(&library).map_err(|error| format!("{}: {error}", path.display()));
        std::mem::forget(library);
        abi
    }

    fn of(library: &Library) -> Result<Self, String> {
        // SAFETY: the signature is that of the MPI standard. The handle type of each library is that of its
        // constants.
        unsafe {
            type AbiVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
            if let Ok(abi_version) = symbol::<AbiVersion>(library, "MPI_Abi_get_version") {
                let (mut major, mut minor) = (0, 0);
                if abi_version(&mut major, &mut minor) == 0 && major >= 1 {
                    return Ok(Self::Pointers(Table::load(library, STANDARD)?));
                }
            }
            match open_mpi(library) {
                Some(constants) => Ok(Self::Pointers(Table::load(library, constants)?)),
                None => Ok(Self::Integers(Table::load(library, MPICH)?)),
            }
        }
    }
}

impl<H: Handle> Table<H> {
    /// # Safety
    /// The library's handles must be those of `constants`.
    unsafe fn load(library: &Library, constants: Constants<H>) -> Result<Self, String> {
        // SAFETY: the caller states the type of handles.
        Ok(Self { functions: unsafe { Functions::load(library) }?, constants })
    }
}

/// Constants of Open MPI, which are addresses of its objects; `None` for other libraries.
fn open_mpi(library: &Library) -> Option<Constants<usize>> {
    let address = |name: &str| {
        // SAFETY: the symbol is taken as an address and never read.
        let symbol = unsafe { library.get::<*const c_void>(name) }.ok()?;
        Some(symbol.as_raw_ptr() as usize).filter(|&address| address != 0)
    };
    Some(Constants {
        world: address("ompi_mpi_comm_world")?,
        byte: address("ompi_mpi_byte")?,
        errors_return: address("ompi_mpi_errors_return")?,
        request_null: address("ompi_request_null")?,
        status_ignore: 0,
        funneled: 1,
    })
}

/// The system's reason why a library cannot be opened, with the file name mentioned once.
fn reason(path: &Path, error: &libloading::Error) -> String {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let name = path.display().to_string();
    if cause.contains(&name) { cause } else { format!("{name}: {cause}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_mpi_is_refused_by_name() {
        for (file, want) in
            [("libnone.so.9", "libnone.so.9"), ("libc.so.6", "libc.so.6: no function MPI_Init_thread")]
        {
            let error = Abi::open(Path::new(file)).err().unwrap();
            assert!(error.contains(want), "{error}");
        }
    }
}
