//! The optimiser step (`update.cu`).

use bytemuck::{Pod, Zeroable};

use super::driver::{Argument, Launch};
use super::lengths::holds;
use super::queue::launch;
use super::{Buffer, Cuda};
use crate::device::DeviceError;
use crate::optimizer::{Rule, Segment, Training, Update, UpdateReport};
use crate::shape::Span;

/// Result of a step; as in `update.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Report {
    squared_norm: f64,
    shrink: f32,
    applied: i32,
}

impl Report {
    const SKIPPED: i32 = 0;
    const OVERFLOWED: i32 = 2;
}

/// The coefficients of an optimiser step; as in `update.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Rates {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    keep: f32,
    unbias2: f32,
    epsilon: f32,
    ema: f32,
    renew: f32,
}

impl Rates {
    fn of(update: &Update, segment: Segment) -> Self {
        let correction1 = 1.0 - update.beta1.powf(update.count as f64);
        let correction2 = 1.0 - update.beta2.powf(update.count as f64);
        Self {
            beta1: update.beta1 as f32,
            rest1: (1.0 - update.beta1) as f32,
            beta2: update.beta2 as f32,
            rest2: (1.0 - update.beta2) as f32,
            rate: (update.learning_rate / correction1) as f32,
            keep: segment.keep(update.learning_rate) as f32,
            unbias2: correction2.sqrt().recip() as f32,
            epsilon: update.epsilon as f32,
            ema: update.ema_decay as f32,
            renew: (1.0 - update.ema_decay) as f32,
        }
    }
}

/// See [`Primitives::update_segments`](crate::Primitives::update_segments).
pub fn update(
    gpu: &Cuda,
    update: &Update,
    logp: &[&Buffer],
    training: Training<'_, Buffer>,
    segments: &[Segment],
) -> Result<UpdateReport, DeviceError> {
    let Training { weights, gradient, first, second, ema } = training;
    for (name, buffer) in [("gradient", &*gradient), ("first", first), ("second", second), ("ema", ema)] {
        holds(name, buffer, weights.len());
    }
    Segment::check(segments, weights.len());
    gpu.report(|queue| {
        let (kernels, count) = (queue.kernels(), weights.len());
        let blocks = 4 * queue.gpu.context.multiprocessors;
        let partial = queue.pool.take(8 * blocks)?;
        let on_device = queue.pool.take(size_of::<Report>())?;
        launch!(
            queue, kernels.squared_norm, Launch::blocks(blocks); count, gradient.address(), partial.address
        )?;
        launch!(
            queue, kernels.begin_report, Launch::blocks(1);
            blocks, partial.address, update.clip.unwrap_or(0.0) as f32,
            i32::from(update.rule == Rule::Adamax), on_device.address
        )?;
        for logp in logp {
            launch!(
                queue, kernels.check_finite, Launch::of(logp.len());
                logp.len(), logp.address(), on_device.address
            )?;
        }
        for &segment in segments.iter().filter(|segment| segment.span.len > 0) {
            let Span { start, len } = segment.span;
            launch!(
                queue, kernels.update, Launch::of(len.div_ceil(4));
                len, i32::from(start.is_multiple_of(4)), i32::from(update.rule == Rule::Adamax),
                Argument::of(Rates::of(update, segment)), on_device.address, weights.at(start),
                gradient.at(start), first.at(start), second.at(start), ema.at(start)
            )?;
        }
        let mut report = [Report::zeroed()];
        queue.stream.read(on_device.address, &mut report)?;
        let [report] = report;
        Ok(UpdateReport {
            gradient_norm: report.squared_norm.sqrt(),
            applied: report.applied != Report::SKIPPED,
            all_finite: report.applied != Report::OVERFLOWED,
        })
    })
}
