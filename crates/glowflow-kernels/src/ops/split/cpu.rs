//! Row by row.

use super::Split;
use crate::cpu::{Buffer, Cpu, Scalar};

fn split<T: Scalar>(channels: usize, x: &[T], first: &mut [T], last: &mut [T]) {
    let half = channels / 2;
    for ((x, first), last) in
        x.chunks_exact(channels).zip(first.chunks_exact_mut(half)).zip(last.chunks_exact_mut(half))
    {
        first.copy_from_slice(&x[..half]);
        last.copy_from_slice(&x[half..]);
    }
}

fn join<T: Scalar>(channels: usize, first: &[T], last: &[T], x: &mut [T]) {
    let half = channels / 2;
    for ((x, first), last) in
        x.chunks_exact_mut(channels).zip(first.chunks_exact(half)).zip(last.chunks_exact(half))
    {
        x[..half].copy_from_slice(first);
        x[half..].copy_from_slice(last);
    }
}

impl<T: Scalar> Split for Cpu<T> {
    fn split(&self, channels: usize, x: &Buffer<T>, first: &mut Buffer<T>, last: &mut Buffer<T>) {
        split(channels, x, first, last);
    }

    fn join(&self, channels: usize, first: &Buffer<T>, last: &Buffer<T>, x: &mut Buffer<T>) {
        join(channels, first, last, x);
    }
}
