//! Sums of gradients in the memory of devices, if they have a library that connects them (NCCL).
//!
//! All ranks first agree that they can use the library, and that it is the same one. Rank 0 distributes the
//! connection's id. If any rank cannot use the library, all ranks sum through the host's memory.
//!
//! Sums are bit-identical to those through the host, because they are added in the same tree. In the usual case
//! of one part for each rank, they are a part of the captured pass, slice by slice as layers leave the backward
//! pass. With several parts, they follow the last pass.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glowflow_kernels::{Communicator, Device, Operations, Place, Transport};
use glowflow_ranks::{Ranks, RanksError};

use super::Trainer;
use crate::Error;
use crate::model::Flow;
use crate::models::Architecture;

/// Numbers in a slice, unless a layer has more: 32 MiB.
pub const SLICE: usize = 8 << 20;

/// The connection of this rank's device to those of the others.
pub struct Link<D: Device> {
    communicator: Arc<dyn Communicator<D>>,
    ranks: Arc<dyn Ranks>,
    limit: Duration,
    slice: usize,
}

impl<D: Operations> Link<D> {
    /// Returns whether all ranks captured their pass: either all replay a graph or none does.
    pub fn agree(&self, captured: bool) -> Result<bool, Error> {
        let all = self.ranks.gather(&[u8::from(captured)])?;
        Ok(all.iter().all(|captured| captured.as_slice() == [1]))
    }

    /// Waits until the device has done everything, sums included.
    ///
    /// # Errors
    /// [`Error::Device`] if this device failed; [`Error::Ranks`] if sums failed, with the ranks that do not
    /// answer if there are some. Other operations of the device still work then.
    pub fn wait(&self, device: &D) -> Result<(), Error> {
        let begin = Instant::now();
        let Err(error) = self.communicator.wait(device) else { return Ok(()) };
        device.download(&device.zeros(1))?;
        // All ranks whose sums fail come here within what is left of the limit.
        let left = self.limit.saturating_sub(begin.elapsed());
        self.ranks.set_limit(left.max(Duration::from_millis(100)));
        match self.ranks.gather(&[]) {
            Err(RanksError::Missing { step, ranks, .. }) => {
                Err(RanksError::Missing { waited: begin.elapsed(), step, ranks }.into())
            }
            Err(other) => Err(other.into()),
            Ok(_) => Err(RanksError::Engine(error.to_string()).into()),
        }
    }

    /// Sums a whole gradient.
    pub fn sum(&self, device: &D, gradient: &mut D::Buffer, flow: &Flow<D>) {
        let mut slices = Slices::new(self, flow);
        for &start in flow.starts().iter().rev() {
            slices.ready(device, gradient, start);
        }
        slices.finish(device, gradient);
    }
}

/// The slices of a gradient that are summed during its backward pass. They are cut by the layout alone, in
/// the same places on all ranks.
pub struct Slices<'a, D: Device> {
    link: &'a Link<D>,
    /// Slices from here on are summed.
    end: usize,
    /// Parameters that no layer has: those of a dequantiser.
    rest: Range<usize>,
}

impl<'a, D: Operations> Slices<'a, D> {
    /// Before the backward pass.
    pub fn new(link: &'a Link<D>, flow: &Flow<D>) -> Self {
        let end = flow.layers_end();
        Self { link, end, rest: end..flow.layout.len() }
    }

    /// Sums a slice if there are enough numbers for one. The gradient is final from `start` on.
    pub fn ready(&mut self, device: &D, gradient: &mut D::Buffer, start: usize) {
        if self.end.saturating_sub(start) >= self.link.slice {
            self.link.communicator.sum(device, gradient, start..self.end);
            self.end = start;
        }
    }

    /// Sums what is left. The whole gradient is final.
    pub fn finish(self, device: &D, gradient: &mut D::Buffer) {
        for slice in [0..self.end, self.rest] {
            if !slice.is_empty() {
                self.link.communicator.sum(device, gradient, slice);
            }
        }
        self.link.communicator.join(device);
    }
}

/// A rank's report about its library.
enum Found<D: Device> {
    /// There is none for this kind of device.
    None,
    Failed(String),
    Some(Arc<dyn Transport<D>>),
}

impl<D: Device> Found<D> {
    fn by(device: &D) -> Self {
        match device.transport() {
            Ok(None) => Self::None,
            Ok(Some(transport)) => Self::Some(transport),
            Err(error) => Self::Failed(error.to_string()),
        }
    }

    /// Kind, number of this rank on its host, and text.
    fn message(&self, (number, count): (usize, usize)) -> Vec<u8> {
        let (kind, text) = match self {
            Self::None => (0, String::new()),
            Self::Failed(text) => (1, text.clone()),
            Self::Some(transport) => (2, transport.name()),
        };
        let mut message = vec![kind];
        message.extend((number as u32).to_le_bytes());
        message.extend((count as u32).to_le_bytes());
        message.extend(text.bytes());
        message
    }
}

/// The conclusion from all ranks' messages: the number of ranks that are added first, or the reason why
/// devices are not connected, which is empty if no rank has a library.
fn agreed(messages: &[Vec<u8>]) -> Result<usize, String> {
    let text = |rank: usize| {
        let text = String::from_utf8_lossy(messages[rank].get(9..).unwrap_or_default()).into_owned();
        format!("rank {rank}: {text}")
    };
    let kind = |message: &Vec<u8>| message.first().copied().unwrap_or(0);
    if messages.iter().all(|message| kind(message) == 0) {
        return Err(String::new());
    }
    if let Some(rank) = messages.iter().position(|message| kind(message) == 1) {
        return Err(text(rank));
    }
    if let Some(rank) = messages.iter().position(|message| kind(message) == 0) {
        return Err(format!("{}no library for sums over devices", text(rank)));
    }
    if let Some(rank) = messages.iter().position(|message| message.get(9..) != messages[0].get(9..)) {
        return Err(format!("{}, {}", text(0), text(rank)));
    }
    let number = |message: &Vec<u8>, at: usize| {
        let bytes = message.get(at..at + 4).unwrap_or_default();
        bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    let local: Vec<_> = messages.iter().map(|message| (number(message, 1), number(message, 5))).collect();
    Ok(group(&local))
}

/// The largest number of consecutive ranks that are on one host everywhere and can be added first, given each
/// rank's number among those of its host and their number. Another result would change what is sent between
/// hosts, and no sum.
fn group(local: &[(usize, usize)]) -> usize {
    let size = local.len();
    if local.iter().enumerate().all(|(rank, &local)| local == (rank, size)) {
        return size;
    }
    let together = |ranks: &[(usize, usize)]| {
        let (first, count) = ranks[0];
        ranks.iter().enumerate().all(|(i, &local)| local == (first + i, count))
    };
    let mut group = 1;
    while size.is_multiple_of(2 * group) && local.chunks(2 * group).all(together) {
        group *= 2;
    }
    group
}

impl<D: Operations, A: Architecture> Trainer<D, A> {
    /// Connects the devices of all ranks, if there is a library for it: NCCL for GPUs. Sums then stay in the
    /// devices' memory. Otherwise they pass through the host's. All ranks must call it together, ahead of the
    /// first step. They wait for each other up to `limit`, here and in later steps.
    /// [`sums`](Self::sums) reports the result.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank is missing.
    pub fn connect_devices(&mut self, limit: Duration) -> Result<(), Error> {
        if self.ranks.size() > 1 {
            self.sums = match self.connected(limit)? {
                Ok(sentence) => Some(sentence),
                Err(reason) if reason.is_empty() => None,
                Err(reason) => Some(format!("sums over ranks pass through the memory of hosts ({reason})")),
            };
        }
        Ok(())
    }

    /// Cuts gradients that connected devices sum into slices of about `numbers` numbers, instead of 8 Mi. All
    /// ranks need the same value. Results do not depend on it.
    pub fn with_slices_of(self, numbers: usize) -> Self {
        Self { slice: numbers.max(1), ..self }
    }

    /// The way gradients are summed over ranks, in a sentence; `None` if this kind of device is never
    /// connected.
    pub fn sums(&self) -> Option<&str> {
        self.sums.as_deref()
    }

    /// Total time that steps spent waiting for sums over ranks through the memory of hosts.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Connects the devices, or returns why that is not possible.
    fn connected(&mut self, limit: Duration) -> Result<Result<String, String>, Error> {
        // The rest is for finding out which ranks are missing.
        let part = limit.mul_f64(0.75);
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        let found = Found::by(&self.device);
        let messages = self.ranks.gather(&found.message(self.ranks.local()))?;
        let (group, transport) = match (agreed(&messages), found) {
            (Ok(group), Found::Some(transport)) => (group, transport),
            (Err(reason), _) => return Ok(Err(reason)),
            (Ok(_), _) => return Ok(Err(String::new())),
        };
        let made = if rank == 0 { transport.unique_id() } else { Ok(vec![]) };
        let mut id = made.as_ref().map_or(vec![], Clone::clone);
        self.ranks.broadcast(&mut id)?;
        if id.is_empty() {
            let reason = made.err().map_or("rank 0 made no id".into(), |error| error.to_string());
            return Ok(Err(reason));
        }
        let place = Place { rank, size, group };
        let connected = transport.connect(&self.device, &id, place, part);
        let text = connected.as_ref().err().map_or(String::new(), ToString::to_string);
        let all = self.ranks.gather(text.as_bytes())?;
        if let Some(rank) = all.iter().position(|text| !text.is_empty()) {
            return Ok(Err(format!("rank {rank}: {}", String::from_utf8_lossy(&all[rank]))));
        }
        let communicator = connected?;
        let (ranks, slice) = (Arc::clone(&self.ranks), self.slice);
        self.link = Some(Arc::new(Link { communicator, ranks, limit, slice }));
        Ok(Ok(format!("sums over ranks stay on the devices: {}, {}", transport.name(), hosts(size, group))))
    }
}

/// A grouping in words.
fn hosts(size: usize, group: usize) -> String {
    if size == group { format!("{size} ranks") } else { format!("{} × {group} ranks", size / group) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_host_are_added_first() {
        let blocks = |counts: &[usize]| -> Vec<(usize, usize)> {
            counts.iter().flat_map(|&count| (0..count).map(move |number| (number, count))).collect()
        };
        assert_eq!([&[3][..], &[6], &[1]].map(|counts| group(&blocks(counts))), [3, 6, 1]);
        assert_eq!([&[2, 2][..], &[8, 8, 8], &[1, 1, 1]].map(|counts| group(&blocks(counts))), [2, 8, 1]);
        assert_eq!([&[6, 6][..], &[4, 2], &[3, 1]].map(|counts| group(&blocks(counts))), [2, 2, 1]);
        // Ranks assigned to hosts round-robin.
        assert_eq!(group(&[(0, 2), (0, 2), (1, 2), (1, 2)]), 1);
    }

    #[test]
    fn all_ranks_need_the_same_library() {
        let message = |kind: u8, number: u32, text: &str| {
            let mut message = vec![kind];
            message.extend([number, 2].iter().flat_map(|number| number.to_le_bytes()));
            message.extend(text.bytes());
            message
        };
        let with = |first, second| agreed(&[first, second]);
        let new = |number| message(2, number, "NCCL 2.30.7");
        assert_eq!(with(new(0), new(1)), Ok(2));
        assert_eq!(with(message(0, 0, ""), message(0, 1, "")), Err(String::new()));
        assert_eq!(with(new(0), message(1, 1, "not found")), Err("rank 1: not found".into()));
        assert_eq!(with(new(0), message(0, 1, "")), Err("rank 1: no library for sums over devices".into()));
        let old = message(2, 1, "NCCL 2.27.3");
        assert_eq!(with(new(0), old), Err("rank 0: NCCL 2.30.7, rank 1: NCCL 2.27.3".into()));
    }
}
