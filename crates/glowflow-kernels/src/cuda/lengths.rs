//! What kernels trust: that buffers and parameters are as long as an operation's other arguments say. It is checked here, before an
//! operation is queued, so that nobody who uses the device can have a kernel reach beyond its memory.

use super::memory::Buffer;
use crate::ops::Parameters;
use crate::shape::Grid;

/// Checks that a buffer has room for `len` numbers.
///
/// # Panics
/// Where it has not.
#[track_caller]
pub fn holds(name: &str, buffer: &Buffer, len: usize) {
    assert!(buffer.len() >= len, "{name} is a buffer of {} numbers where {len} are needed", buffer.len());
}

/// Checks that parameters have the shapes of their layer and lie in a buffer, that of the parameters or of their gradient.
///
/// # Panics
/// Where they do not.
#[track_caller]
pub fn holds_parameters(buffer: &Buffer, at: &impl Parameters) {
    for (span, len) in at.spans() {
        assert!(span.len == len, "parameters of {} numbers where {len} are needed", span.len);
        holds("params", buffer, span.start + span.len);
    }
}

/// Checks that `x` `[grid, channels]` becomes `y` by a squeeze.
///
/// # Panics
/// Where it does not.
#[track_caller]
pub fn squeezes(grid: Grid, channels: usize, x: &Buffer, y: &Buffer) {
    assert!(grid.height.is_multiple_of(2) && grid.width.is_multiple_of(2), "{grid:?} has odd sides");
    assert!(x.len() == grid.rows() * channels, "{} numbers are no {channels} channels on {grid:?}", x.len());
    holds("y", y, x.len());
}

/// Checks that rows of channels `x` are as long as their halves together.
///
/// # Panics
/// Where they are not.
#[track_caller]
pub fn halves(channels: usize, x: &Buffer, first: &Buffer, last: &Buffer) {
    let whole = channels.is_multiple_of(2) && x.len().is_multiple_of(channels);
    assert!(whole, "{} numbers are no rows of two halves of {channels} channels", x.len());
    holds("first", first, x.len() / 2);
    holds("last", last, x.len() / 2);
}
