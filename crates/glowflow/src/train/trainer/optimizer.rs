//! The update of the weights: learning rate, penalty, and the assignment of parameters to optimisers.

use std::collections::HashSet;

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{
    Operations, Rule, Segment, Span, Strided, Training, Update, UpdateReport, View, ViewMut,
};

use super::Trainer;
use crate::Error;
use crate::models::Architecture;
use crate::params::Layout;
use crate::train::config::{Optimizer, Schedule, TrainConfig};
use crate::train::muon::MuonUpdate;

/// Parameters updated by Adamax or Adam: all, except hidden matrices if Muon updates these.
pub(super) fn segments(layout: &Layout, config: &TrainConfig) -> Vec<Segment> {
    if !config.muon && config.weight_decay == 0.0 {
        return vec![Segment::all(layout.len())];
    }
    let hidden: HashSet<usize> = layout.hidden.iter().map(|matrix| matrix.span.start).collect();
    let decayed: HashSet<usize> = layout.decayed.iter().map(|span| span.start).collect();
    let mut segments: Vec<Segment> = vec![];
    for Span { start, len } in layout.parameters.iter().map(|parameter| parameter.span) {
        if len == 0 || (config.muon && hidden.contains(&start)) {
            continue;
        }
        let decay = if decayed.contains(&start) { config.weight_decay } else { 0.0 };
        match segments.last_mut() {
            Some(Segment { span, decay: last }) if *last == decay && span.start + span.len == start => {
                span.len += len;
            }
            _ => segments.push(Segment { span: Span { start, len }, decay }),
        }
    }
    segments
}

impl<D: Operations, A: Architecture> Trainer<D, A> {
    /// Adds the gradient of the penalty, `train.penalty·Σ w²/(D·log 2)`.
    pub(super) fn penalize(&mut self) {
        let Some(penalty) = self.config.train.penalty.filter(|&penalty| penalty > 0.0) else { return };
        // bits_per_dim negates its argument.
        let by = -2.0 * self.config.model.bits_per_dim(penalty);
        for span in &self.flow.layout.penalized {
            let at = Strided { start: span.start, strides: [0, 0, 1] };
            let weights = View { buffer: &self.weights, at };
            let gradient = ViewMut { buffer: &mut self.gradient, at };
            self.device.map(&(old() + constant(by) * input(0)), [1, 1, span.len], &[weights], gradient);
        }
    }

    /// Learning rate of the next update.
    pub fn learning_rate(&self) -> f64 {
        self.scheduled(self.config.train.lr)
    }

    /// Scheduled learning rate of the next update, with this peak.
    fn scheduled(&self, peak: f64) -> f64 {
        let t = &self.config.train;
        let count = self.progress.updates + 1;
        let warmed = if t.warmup == 0 { 1.0 } else { (count as f64 / t.warmup as f64).min(1.0) };
        let decayed = match t.steps {
            Some(steps) if count > t.warmup => {
                let part = (count - t.warmup) as f64 / steps.saturating_sub(t.warmup).max(1) as f64;
                match t.schedule {
                    Schedule::Constant => 1.0,
                    Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * part.min(1.0)).cos()),
                    Schedule::Linear => 1.0 - part.min(1.0),
                }
            }
            _ => 1.0,
        };
        peak * warmed * decayed
    }

    /// Decay of the moving average in the next update.
    pub(super) fn ema_decay(&self) -> f64 {
        let count = (self.progress.updates + 1) as f64;
        // At first the average would mostly consist of the initial weights.
        self.config.train.ema.min(count / (count + 10.0))
    }

    fn update_rule(&self) -> Update {
        let t = &self.config.train;
        Update {
            rule: match t.optimizer {
                Optimizer::Adamax => Rule::Adamax,
                Optimizer::Adam => Rule::Adam,
            },
            learning_rate: self.learning_rate(),
            beta1: t.beta1,
            beta2: t.beta2,
            epsilon: t.epsilon,
            count: self.progress.updates + 1,
            clip: (t.clip > 0.0).then_some(t.clip),
            ema_decay: self.ema_decay(),
        }
    }

    /// Performs one optimiser step with the gradient, which is 0 afterwards. Nothing changes if the gradient
    /// or a log-likelihood is not finite.
    pub(super) fn update_weights(&mut self, log_densities: &[D::Buffer]) -> Result<UpdateReport, Error> {
        let update = self.update_rule();
        let muon_rate = self.scheduled(self.config.train.muon_lr);
        let log_densities: Vec<_> = log_densities.iter().collect();
        let training = Training {
            weights: &mut self.weights,
            gradient: &mut self.gradient,
            first: &mut self.first,
            second: &mut self.second,
            ema: &mut self.ema,
        };
        let report = self.device.update_segments(&update, &log_densities, training, &self.segments)?;
        let Some(muon) = &mut self.muon else { return Ok(report) };
        if report.applied && report.all_finite {
            let update = MuonUpdate {
                shrink: update.shrink(report.gradient_norm),
                learning_rate: muon_rate,
                weight_decay: self.config.train.weight_decay,
                ema_decay: update.ema_decay,
            };
            let training = Training {
                weights: &mut self.weights,
                gradient: &mut self.gradient,
                first: &mut self.first,
                second: &mut self.second,
                ema: &mut self.ema,
            };
            muon.step(&self.device, update, training);
        } else {
            muon.clear(&self.device, &mut self.gradient);
        }
        Ok(report)
    }
}
