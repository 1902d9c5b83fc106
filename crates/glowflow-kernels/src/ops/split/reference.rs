//! A strided copy for each half.

use super::Split;
use crate::expr::input;
use crate::ops::Reference;
use crate::ops::views::{Rows, read, write};
use crate::primitives::Primitives;

pub fn split<D: Primitives>(
    device: &D,
    channels: usize,
    x: &D::Buffer,
    first: &mut D::Buffer,
    last: &mut D::Buffer,
) {
    let rows = Rows { rows: device.len(x) / channels, channels: channels / 2 };
    for (half, from) in [(first, 0), (last, channels / 2)] {
        device.map(&input(0), rows.shape(), &[read(x, rows.part(channels, from))], write(half, rows.each()));
    }
}

pub fn join<D: Primitives>(
    device: &D,
    channels: usize,
    first: &D::Buffer,
    last: &D::Buffer,
    x: &mut D::Buffer,
) {
    let rows = Rows { rows: device.len(x) / channels, channels: channels / 2 };
    for (half, to) in [(first, 0), (last, channels / 2)] {
        device.map(&input(0), rows.shape(), &[read(half, rows.each())], write(x, rows.part(channels, to)));
    }
}

impl<D: Primitives> Split for Reference<D> {}
