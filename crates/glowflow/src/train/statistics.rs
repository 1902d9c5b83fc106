//! Running statistics of a training step, and their moving average.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Primitives, Strided, View, ViewMut};

/// Share of the old value in an update of running statistics.
const RUNNING_DECAY: f64 = 0.9;

/// `running ← 0.9·running + 0.1·batch`, with the mean of the parts' statistics.
pub fn update_running<D: Primitives>(device: &D, running: &mut D::Buffer, parts: &[D::Buffer], len: usize) {
    let by = (1.0 - RUNNING_DECAY) / parts.len() as f64;
    let at = Strided { start: 0, strides: [0, 0, 1] };
    for (i, part) in parts.iter().enumerate() {
        let decay = if i == 0 { RUNNING_DECAY } else { 1.0 };
        let f = constant(decay) * old() + constant(by) * input(0);
        let part = View { buffer: part, at };
        device.map(&f, [1, 1, len], &[part], ViewMut { buffer: &mut *running, at });
    }
}

/// `ema ← decay·ema + (1 − decay)·values`.
pub fn average<D: Primitives>(device: &D, values: &D::Buffer, decay: f64, ema: &mut D::Buffer, len: usize) {
    let at = Strided { start: 0, strides: [0, 0, 1] };
    let f = constant(decay) * old() + constant(1.0 - decay) * input(0);
    device.map(&f, [1, 1, len], &[View { buffer: values, at }], ViewMut { buffer: ema, at });
}
