//! NCCL: sums over the GPUs of several processes.
//!
//! `libnccl.so.2` is opened when ranks with GPUs connect, and is not needed otherwise. It moves bytes and
//! never adds: a kernel of our own adds, in a fixed tree (`sums.rs`), so that bits depend neither on NCCL's
//! choice of algorithms nor on the number of ranks.

mod communicator;
mod library;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::communicator::Peers;
use self::library::Library;
use super::Cuda;
use crate::communicator::{Communicator, Place, Transport};
use crate::device::DeviceError;

/// The environment variable that, set to `off`, keeps NCCL from being used: sums pass through the host's
/// memory.
pub const NCCL: &str = "GLOWFLOW_NCCL";

/// The oldest version with non-blocking communicators: 2.14.
const MIN_VERSION: i32 = 21400;

/// NCCL for a GPU.
struct Nccl {
    library: Library,
    /// Name of the GPU, for errors.
    device: String,
}

/// Opens NCCL for a GPU; `None` if the environment forbids it. `folders` are searched first.
///
/// # Errors
/// [`DeviceError::Unavailable`] if it is missing or too old.
pub fn open(device: &str, folders: &[PathBuf]) -> Result<Option<Arc<dyn Transport<Cuda>>>, DeviceError> {
    let unavailable = |reason| DeviceError::Unavailable { device: device.into(), reason };
    match std::env::var_os(NCCL) {
        Some(value) if value == "off" => return Ok(None),
        Some(value) if !value.is_empty() => {
            let reason = format!("the environment variable {NCCL} is {value:?}; it must be off");
            return Err(unavailable(reason));
        }
        _ => {}
    }
    let library = Library::open(folders).map_err(unavailable)?;
    if library.version() < MIN_VERSION {
        let reason = format!(
            "{} is too old to sum over GPUs; {} or newer is needed",
            name_of(library.version()),
            name_of(MIN_VERSION)
        );
        return Err(unavailable(reason));
    }
    Ok(Some(Arc::new(Nccl { library, device: device.into() })))
}

/// `NCCL 2.30.7` for 23007.
fn name_of(version: i32) -> String {
    format!("NCCL {}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

impl Transport<Cuda> for Nccl {
    fn name(&self) -> String {
        name_of(self.library.version())
    }

    fn unique_id(&self) -> Result<Vec<u8>, DeviceError> {
        self.library.unique_id().map_err(|reason| DeviceError::Failed { device: self.device.clone(), reason })
    }

    fn connect(
        &self,
        device: &Cuda,
        id: &[u8],
        place: Place,
        limit: Duration,
    ) -> Result<Arc<dyn Communicator<Cuda>>, DeviceError> {
        place.check();
        Ok(Arc::new(Peers::connect(&self.library, &device.queue.gpu, id, place, limit)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_names() {
        assert_eq!([name_of(MIN_VERSION), name_of(23007)], ["NCCL 2.14.0", "NCCL 2.30.7"]);
    }
}
