//! Sums over the devices of several processes, in the devices' own memory.
//!
//! A [`Transport`] is the library that moves the bytes. It connects the devices of all processes by a
//! [`Communicator`], whose sums have the same bits for any number of ranks: parts are added in a fixed
//! balanced tree, `((p₀ + p₁) + (p₂ + p₃)) + …`, in which an aligned run of `2ᵏ` ranks is a subtree.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::device::{Device, DeviceError};

/// The place of a process among those whose devices communicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its rank, less than `size`.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
    /// Number of consecutive ranks that are added first, because their devices are in the same host: `size`,
    /// or a power of two that divides it.
    pub group: usize,
}

impl Place {
    /// Checks that sums can be added in the order of the tree.
    ///
    /// # Panics
    /// If not.
    pub fn check(self) {
        let Self { rank, size, group } = self;
        assert!(rank < size, "rank {rank} of {size}");
        let fits = group == size || group.is_power_of_two() && size.is_multiple_of(group);
        assert!(fits, "{size} ranks in groups of {group}");
    }
}

/// A library that moves bytes between the devices of several processes.
pub trait Transport<D: Device>: Send + Sync {
    /// Its name and version. All processes need the same.
    fn name(&self) -> String;

    /// An id under which the processes of one communicator find each other. One of them makes it, and hands
    /// it to the others.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] with the library's reason.
    fn unique_id(&self) -> Result<Vec<u8>, DeviceError>;

    /// Connects a device to those of the other processes. All of them call it at the same time, with the same
    /// id. It waits for them, and later for each sum, up to `limit`.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] with the library's reason, or after the limit.
    fn connect(
        &self,
        device: &D,
        id: &[u8],
        place: Place,
        limit: Duration,
    ) -> Result<Arc<dyn Communicator<D>>, DeviceError>;
}

/// A device's connection to those of other processes. All of them call [`sum`](Self::sum) in the same order,
/// for equally long slices.
///
/// A failure of the connection does not fail the device: nothing is summed after it, and
/// [`wait`](Self::wait) reports it.
pub trait Communicator<D: Device>: Send + Sync {
    /// Replaces a slice of a buffer by its sum over all ranks. It may be queued, and captured. Until
    /// [`join`](Self::join), no operation may use the slice.
    fn sum(&self, device: &D, buffer: &mut D::Buffer, at: Range<usize>);

    /// Later operations of the device wait for all sums.
    fn join(&self, device: &D);

    /// Waits until the device has done everything that was queued, sums included.
    ///
    /// # Errors
    /// The first failure of the connection, which is the limit if a rank is missing; the device's own.
    fn wait(&self, device: &D) -> Result<(), DeviceError>;
}
