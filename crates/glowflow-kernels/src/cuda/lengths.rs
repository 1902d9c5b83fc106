//! What kernels trust: that buffers and parameters are as long as an operation's other arguments say. It is checked here, before an
//! operation is queued, so that nobody who uses the device can have a kernel reach beyond its memory.

use super::memory::Buffer;
use crate::shape::{
    ActNormParams, ChannelMapParams, Grid, NetworkParams, PermutationParams, Span, TopPriorParams,
    ZeroConvParams,
};

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

/// Where a layer's parameters lie.
pub trait Parameters {
    /// Each part, and how many numbers it should have.
    fn spans(&self) -> Vec<(Span, usize)>;
}

impl Parameters for ActNormParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        vec![(self.bias, self.bias.len), (self.logs, self.bias.len)]
    }
}

/// An actnorm of so many channels.
fn actnorm(at: &ActNormParams, channels: usize) -> [(Span, usize); 2] {
    [(at.bias, channels), (at.logs, channels)]
}

impl Parameters for ChannelMapParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let channels = self.channels;
        let mut spans = actnorm(&self.actnorm, channels).to_vec();
        let index = match &self.permutation {
            PermutationParams::Fixed { index } => index,
            PermutationParams::Lu { index, sign, lower, upper, log_s } => {
                assert!(sign.len() == channels, "{} signs for {channels} channels", sign.len());
                spans.extend([
                    (*lower, channels * channels),
                    (*upper, channels * channels),
                    (*log_s, channels),
                ]);
                index
            }
        };
        let fits = index.len() == channels && index.iter().all(|&i| i < channels);
        assert!(fits, "{index:?} is no permutation of {channels} channels");
        spans
    }
}

impl Parameters for ZeroConvParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let outputs = self.outputs;
        vec![(self.weight, outputs * (self.inputs + 1) * 9), (self.bias, outputs), (self.logs, outputs)]
    }
}

impl Parameters for NetworkParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let hidden = self.hidden;
        assert!(self.conv3.inputs == hidden, "{} inputs behind {hidden} channels", self.conv3.inputs);
        let mut spans = self.conv3.spans();
        spans.extend([(self.conv1, hidden * (self.inputs + 1) * 9), (self.conv2, hidden * hidden)]);
        spans.extend(actnorm(&self.actnorm1, hidden).into_iter().chain(actnorm(&self.actnorm2, hidden)));
        spans
    }
}

impl Parameters for TopPriorParams {
    fn spans(&self) -> Vec<(Span, usize)> {
        let mut spans = vec![(self.mean, self.channels), (self.logs, self.channels)];
        // As many classes as there are rows.
        let rows = |weight: Span| weight.len.next_multiple_of(2 * self.channels);
        spans.extend(self.class_weight.map(|weight| (weight, rows(weight))));
        spans
    }
}
