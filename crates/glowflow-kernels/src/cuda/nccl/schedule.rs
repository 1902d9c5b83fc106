//! The transfers of a sum over GPUs, in two levels.
//!
//! Ranks form `M` groups of `G`, one per host. A vector has `G` slices of `M` pieces each: rank `(m, g)`, the
//! `g`-th one of group `m`, adds slice `g` over its group, and piece `m` of that over all groups.
//!
//! | phase | sends | receives |
//! | --- | --- | --- |
//! | [`near`](Schedule::near) | each rank of the group its slice | its own slice, from each of the group |
//! | [`far`](Schedule::far) | each group its piece of the slice | its own piece, from each group |
//! | [`far_back`](Schedule::far_back) | its piece | the other pieces of the slice |
//! | [`near_back`](Schedule::near_back) | its slice | the other slices |
//!
//! Numbers received in the first two phases are added in a fixed tree. A host sends `2 n (M-1)/M` numbers to
//! others, which is the minimum. Slices may be shorter at the end of the vector, or empty: all ranks compute
//! the same lengths.

use std::ops::Range;

use crate::communicator::Place;

/// Numbers of a piece are a multiple of this: 16 bytes.
const ALIGNED: usize = 4;

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Send,
    Receive,
}

/// Numbers on their way to or from a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub way: Way,
    pub address: u64,
    pub count: usize,
    pub peer: usize,
}

/// Parts of equal length to add: their number, stride and addresses, and the place of their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    pub count: usize,
    pub stride: usize,
    /// Place of the sum in the vector.
    pub sum: Range<usize>,
}

/// The phases of a sum, for one rank. Addresses are those of the vector, and of memory for
/// [`scratch`](Self::scratch) numbers.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    place: Place,
    /// Numbers of the vector, and of a piece.
    len: usize,
    piece: usize,
    values: u64,
    scratch: u64,
}

fn transfer(way: Way, base: u64, at: Range<usize>, peer: usize) -> Option<Transfer> {
    let address = base + 4 * at.start as u64;
    (!at.is_empty()).then_some(Transfer { way, address, count: at.len(), peer })
}

impl Schedule {
    /// Size of the scratch memory for a sum of `len` numbers, in numbers.
    pub fn scratch(place: Place, len: usize) -> usize {
        place.size * Self::piece(place, len)
    }

    fn piece(place: Place, len: usize) -> usize {
        len.div_ceil(place.size).next_multiple_of(ALIGNED)
    }

    /// The sum of `len` numbers.
    pub fn new(place: Place, len: usize, values: u64, scratch: u64) -> Self {
        Self { place, len, piece: Self::piece(place, len), values, scratch }
    }

    fn groups(&self) -> usize {
        self.place.size / self.place.group
    }

    /// This rank's group, and its number there.
    fn own(&self) -> (usize, usize) {
        (self.place.rank / self.place.group, self.place.rank % self.place.group)
    }

    fn rank(&self, group: usize, number: usize) -> usize {
        group * self.place.group + number
    }

    /// The slice that the rank with this number of each group adds.
    fn slice(&self, number: usize) -> Range<usize> {
        let slice = self.groups() * self.piece;
        (number * slice).min(self.len)..((number + 1) * slice).min(self.len)
    }

    /// The piece of a slice that this group adds.
    fn piece_of(&self, number: usize, group: usize) -> Range<usize> {
        let Range { start, end } = self.slice(number);
        (start + group * self.piece).min(end)..(start + (group + 1) * self.piece).min(end)
    }

    /// The first exchange within a group, and what to add after it.
    pub fn near(&self) -> (Vec<Transfer>, Parts) {
        let (group, number) = self.own();
        let (own, stride) = (self.slice(number), self.groups() * self.piece);
        let both = |other: usize| {
            let (peer, start) = (self.rank(group, other), other * stride);
            let sent = transfer(Way::Send, self.values, self.slice(other), peer);
            [sent, transfer(Way::Receive, self.scratch, start..start + own.len(), peer)]
        };
        let transfers = (0..self.place.group).flat_map(both).flatten().collect();
        (transfers, Parts { count: self.place.group, stride, sum: own })
    }

    /// The exchange between groups, and what to add after it; `None` if there is a single group.
    pub fn far(&self) -> Option<(Vec<Transfer>, Parts)> {
        let ((group, number), groups) = (self.own(), self.groups());
        if groups == 1 {
            return None;
        }
        let (own, stride) = (self.piece_of(number, group), self.piece);
        let both = |other: usize| {
            let (peer, start) = (self.rank(other, number), other * stride);
            let sent = transfer(Way::Send, self.values, self.piece_of(number, other), peer);
            [sent, transfer(Way::Receive, self.scratch, start..start + own.len(), peer)]
        };
        let transfers = (0..groups).flat_map(both).flatten().collect();
        Some((transfers, Parts { count: groups, stride, sum: own }))
    }

    /// Returns the sums of pieces to all groups.
    pub fn far_back(&self) -> Vec<Transfer> {
        let (group, number) = self.own();
        let both = |other: usize| {
            let peer = self.rank(other, number);
            let sent = transfer(Way::Send, self.values, self.piece_of(number, group), peer);
            [sent, transfer(Way::Receive, self.values, self.piece_of(number, other), peer)]
        };
        (0..self.groups()).filter(|&other| other != group).flat_map(both).flatten().collect()
    }

    /// Returns the sums of slices to all ranks of the group.
    pub fn near_back(&self) -> Vec<Transfer> {
        let (group, number) = self.own();
        let both = |other: usize| {
            let peer = self.rank(group, other);
            let sent = transfer(Way::Send, self.values, self.slice(number), peer);
            [sent, transfer(Way::Receive, self.values, self.slice(other), peer)]
        };
        (0..self.place.group).filter(|&other| other != number).flat_map(both).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use super::*;

    /// `((p₀ + p₁) + (p₂ + p₃)) + …` for one number of each part.
    fn tree(parts: &[f32]) -> f32 {
        match parts.len() {
            1 => parts[0],
            count => {
                let (left, right) = parts.split_at(count.next_power_of_two() / 2);
                tree(left) + tree(right)
            }
        }
    }

    /// A rank's memory: the vector at address 0, what it receives at `SCRATCH`.
    const SCRATCH: u64 = 1 << 32;

    struct Rank {
        values: Vec<f32>,
        scratch: Vec<f32>,
    }

    impl Rank {
        fn at(&mut self, address: u64, count: usize) -> &mut [f32] {
            let (memory, address) = match address.checked_sub(SCRATCH) {
                Some(address) => (&mut self.scratch, address),
                None => (&mut self.values, address),
            };
            &mut memory[address as usize / 4..][..count]
        }

        fn add(&mut self, parts: &Parts) {
            for (i, to) in parts.sum.clone().enumerate() {
                let part = |part: usize| self.scratch[part * parts.stride + i];
                let each: Vec<f32> = (0..parts.count).map(part).collect();
                self.values[to] = tree(&each);
            }
        }
    }

    /// All ranks' transfers of one phase: each send needs its receive, of the same length.
    fn exchange(ranks: &mut [Rank], transfers: Vec<Vec<Transfer>>) {
        let mut sent: HashMap<(usize, usize), VecDeque<Vec<f32>>> = HashMap::new();
        for (rank, transfers) in transfers.iter().enumerate() {
            for transfer in transfers.iter().filter(|transfer| transfer.way == Way::Send) {
                let values = ranks[rank].at(transfer.address, transfer.count).to_vec();
                sent.entry((rank, transfer.peer)).or_default().push_back(values);
            }
        }
        for (rank, transfers) in transfers.iter().enumerate() {
            for transfer in transfers.iter().filter(|transfer| transfer.way == Way::Receive) {
                let queue = sent.get_mut(&(transfer.peer, rank)).unwrap();
                let values = queue.pop_front().unwrap();
                ranks[rank].at(transfer.address, transfer.count).copy_from_slice(&values);
            }
        }
        assert!(sent.values().all(VecDeque::is_empty), "sent and not received");
    }

    /// Numbers of ranks, and of those in a group.
    const SIZES: [(usize, usize); 10] =
        [(1, 1), (2, 2), (3, 3), (4, 1), (4, 2), (4, 4), (6, 1), (6, 2), (8, 2), (12, 4)];

    #[test]
    fn sums_are_those_of_the_tree_in_any_grouping() {
        for (size, group) in SIZES {
            for len in [1, 3, 4, 17, 64, 1001] {
                let place = |rank| Place { rank, size, group };
                let value = |i: usize| (i as f32 * 0.7).sin() * 10f32.powi(i as i32 % 5);
                let part = |rank: usize| -> Vec<f32> { (0..len).map(|i| value(rank * len + i)).collect() };
                let want: Vec<f32> = (0..len)
                    .map(|i| tree(&(0..size).map(|rank| part(rank)[i]).collect::<Vec<_>>()))
                    .collect();
                let scratch = Schedule::scratch(place(0), len);
                let mut ranks: Vec<Rank> = (0..size)
                    .map(|rank| Rank { values: part(rank), scratch: vec![f32::NAN; scratch] })
                    .collect();
                let schedules: Vec<Schedule> =
                    (0..size).map(|rank| Schedule::new(place(rank), len, 0, SCRATCH)).collect();

                exchange(&mut ranks, schedules.iter().map(|schedule| schedule.near().0).collect());
                ranks.iter_mut().zip(&schedules).for_each(|(rank, schedule)| rank.add(&schedule.near().1));
                if size > group {
                    let far = |schedule: &Schedule| schedule.far().unwrap();
                    exchange(&mut ranks, schedules.iter().map(|schedule| far(schedule).0).collect());
                    ranks.iter_mut().zip(&schedules).for_each(|(rank, schedule)| rank.add(&far(schedule).1));
                    exchange(&mut ranks, schedules.iter().map(Schedule::far_back).collect());
                }
                exchange(&mut ranks, schedules.iter().map(Schedule::near_back).collect());

                for (number, rank) in ranks.iter().enumerate() {
                    let what = format!("{size} ranks in groups of {group}, {len} numbers, rank {number}");
                    assert!(rank.values == want, "{what}");
                }
            }
        }
    }

    #[test]
    fn a_host_sends_no_more_than_it_must() {
        let (place, len) = (Place { rank: 0, size: 8, group: 4 }, 8 << 10);
        let out: usize = (0..4)
            .map(|rank| {
                let schedule = Schedule::new(Place { rank, ..place }, len, 0, SCRATCH);
                let all = schedule.far().unwrap().0.into_iter().chain(schedule.far_back());
                let leaves = |transfer: &Transfer| transfer.way == Way::Send && transfer.peer >= 4;
                all.filter(leaves).map(|transfer| transfer.count).sum::<usize>()
            })
            .sum();
        // 2 n (M-1)/M with M = 2.
        assert_eq!(out, len);
    }
}
