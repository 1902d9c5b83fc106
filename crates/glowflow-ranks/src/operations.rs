//! Gathers and broadcasts of messages of any length, as sequences of MPI operations.
//!
//! A gather exchanges blocks of [`INLINE`] bytes: the message's length and its beginning. A second gather
//! follows only if a message is longer. A broadcast sends the length, then pieces of at most [`PIECE`] bytes.

use crate::abi::Handle;
use crate::mpi::{Lane, Pending, Session};

/// Size of the first block of a gather, in bytes.
const INLINE: usize = 256;
/// Size of an encoded length, in bytes.
const LENGTH: usize = size_of::<u64>();
/// Maximum size of a piece of a broadcast, in bytes.
const PIECE: usize = 64 << 20;

/// An operation in progress on [`Lane::Control`].
pub(crate) enum Operation<H> {
    Gather { mine: Vec<u8>, gathered: Vec<Vec<u8>>, lengths: Vec<usize>, pending: Pending<H, u8> },
    Broadcast { bytes: Vec<u8>, done: usize, length: Option<usize>, pending: Pending<H, u8> },
    Barrier { pending: Pending<H, u8> },
}

impl<H: Handle> Operation<H> {
    pub fn gather(session: &Session<H>, mine: Vec<u8>) -> Result<Self, String> {
        let mut block = (mine.len() as u64).to_le_bytes().to_vec();
        block.extend(&mine[..mine.len().min(INLINE - LENGTH)]);
        block.resize(INLINE, 0);
        let pending = session.all_gather(Lane::Control, block, vec![0; INLINE * session.size])?;
        Ok(Self::Gather { mine, gathered: Vec::new(), lengths: Vec::new(), pending })
    }

    /// Starts a broadcast. `bytes` are those of rank 0; they are ignored on other ranks.
    pub fn broadcast(session: &Session<H>, bytes: Vec<u8>) -> Result<Self, String> {
        let pending = session.broadcast(Lane::Control, (bytes.len() as u64).to_le_bytes().to_vec())?;
        let bytes = if session.rank == 0 { bytes } else { Vec::new() };
        Ok(Self::Broadcast { bytes, done: 0, length: None, pending })
    }

    pub fn barrier(session: &Session<H>) -> Result<Self, String> {
        Ok(Self::Barrier { pending: session.barrier(Lane::Control)? })
    }

    /// Returns the result if the operation is complete: the messages of all ranks, the one of rank 0, or
    /// nothing.
    pub fn poll(&mut self, session: &Session<H>) -> Result<Option<Vec<Vec<u8>>>, String> {
        match self {
            Self::Barrier { pending } => Ok(session.test(pending)?.then(Vec::new)),
            Self::Gather { mine, gathered, lengths, pending } => {
                if !session.test(pending)? {
                    return Ok(None);
                }
                let received = pending.take_received();
                if lengths.is_empty() {
                    let blocks = received.chunks_exact(INLINE);
                    (*lengths, *gathered) = blocks.map(first_block).unzip();
                    let longest = lengths.iter().copied().max().unwrap_or(0);
                    let rest = longest.saturating_sub(INLINE - LENGTH);
                    if rest > 0 {
                        let mut send = mine.split_off(mine.len().min(INLINE - LENGTH));
                        send.resize(rest, 0);
                        *pending = session.all_gather(Lane::Control, send, vec![0; rest * session.size])?;
                        return Ok(None);
                    }
                } else {
                    let blocks = received.chunks_exact(received.len() / session.size);
                    for ((message, length), block) in gathered.iter_mut().zip(lengths).zip(blocks) {
                        message.extend(&block[..*length - message.len()]);
                    }
                }
                Ok(Some(std::mem::take(gathered)))
            }
            Self::Broadcast { bytes, done, length, pending } => {
                if !session.test(pending)? {
                    return Ok(None);
                }
                let received = pending.take_received();
                let total = match *length {
                    None => *length.insert(length_in(&received)),
                    Some(total) => {
                        *done += received.len();
                        if session.rank != 0 {
                            bytes.extend(received);
                        }
                        total
                    }
                };
                if *done == total {
                    return Ok(Some(vec![std::mem::take(bytes)]));
                }
                let end = total.min(*done + PIECE);
                let piece = if session.rank == 0 { bytes[*done..end].to_vec() } else { vec![0; end - *done] };
                *pending = session.broadcast(Lane::Control, piece)?;
                Ok(None)
            }
        }
    }
}

fn length_in(block: &[u8]) -> usize {
    block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize)
}

/// Length and beginning of a message.
fn first_block(block: &[u8]) -> (usize, Vec<u8>) {
    let length = length_in(block);
    (length, block[LENGTH..LENGTH + length.min(INLINE - LENGTH)].to_vec())
}
