//! Random numbers and parameters.

use glowflow_kernels::Precision;
use glowflow_kernels::cuda::{HiddenKernels, Tuning};
use glowflow_kernels::{
    ActNormParams, ChannelMapParams, Cuda, FinalPriorParams, NetworkParams, PermutationParams, RngStream,
    Span, ZeroConvParams,
};

/// The environment variable of [`Tuning::rows_at_once`] in tests that run again with other settings.
pub const ROWS: &str = "GLOWFLOW_TEST_CUDA_ROWS";
/// That of [`Tuning::hidden`]: `layers` or `off`.
pub const HIDDEN: &str = "GLOWFLOW_TEST_CUDA_HIDDEN";

/// A GPU, emulated if there is none, with the settings given by the environment.
pub fn gpu(precision: Precision) -> Option<Cuda> {
    let mut tuning = Tuning::default();
    if let Ok(rows) = std::env::var(ROWS) {
        tuning.rows_at_once = rows.parse().unwrap();
    }
    if let Ok(kernels) = std::env::var(HIDDEN) {
        tuning.hidden = match kernels.as_str() {
            "layers" => HiddenKernels::Layers,
            "off" => HiddenKernels::Off,
            _ => panic!("{HIDDEN} is {kernels:?}"),
        };
    }
    cuda_emulator::gpu(|folders| Cuda::with_tuning(0, precision, folders, tuning))
}

/// A sequence of normal numbers.
pub struct Numbers {
    stream: RngStream,
    drawn: u64,
}

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self { stream: RngStream { seed, id: 0 }, drawn: 0 }
    }

    pub fn normal(&mut self, len: usize) -> Vec<f32> {
        let from = self.drawn;
        self.drawn += len as u64;
        (from..self.drawn).map(|i| self.stream.normal(i)[0] as f32).collect()
    }
}

/// Assigns spans of a flat buffer and fills them with random numbers.
pub struct Parameters {
    numbers: Numbers,
    pub values: Vec<f32>,
}

impl Parameters {
    pub fn new(seed: u64) -> Self {
        Self { numbers: Numbers::new(seed), values: vec![] }
    }

    pub fn span(&mut self, len: usize) -> Span {
        let span = Span { start: self.values.len(), len };
        self.values.extend(self.numbers.normal(len).iter().map(|x| 0.15 * x));
        span
    }

    pub fn actnorm(&mut self, channels: usize) -> ActNormParams {
        ActNormParams { bias: self.span(channels), logs: self.span(channels) }
    }

    /// With an invertible 1×1 convolution or, unless `trained`, a cyclic shift of the channels.
    pub fn channel_map(&mut self, channels: usize, trained: bool) -> ChannelMapParams {
        let actnorm = self.actnorm(channels);
        let index = (0..channels).map(|i| (i + 1) % channels).collect();
        let permutation = if trained {
            let sign = (0..channels).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
            let (lower, upper) = (self.span(channels * channels), self.span(channels * channels));
            // Small, otherwise the inverse of a large matrix would amplify rounding.
            for value in &mut self.values[lower.start..upper.start + upper.len] {
                *value *= 2.0 / channels as f32;
            }
            PermutationParams::Lu { index, sign, lower, upper, log_s: self.span(channels) }
        } else {
            PermutationParams::Fixed { index }
        };
        ChannelMapParams { channels, actnorm, permutation }
    }

    pub fn zero_conv(&mut self, inputs: usize, outputs: usize) -> ZeroConvParams {
        let weight = self.span(outputs * (inputs + 1) * 9);
        ZeroConvParams { inputs, outputs, weight, bias: self.span(outputs), logs: self.span(outputs) }
    }

    pub fn network(&mut self, inputs: usize, hidden: usize, outputs: usize) -> NetworkParams {
        let (conv1, actnorm1) = (self.span(hidden * (inputs + 1) * 9), self.actnorm(hidden));
        let (conv2, actnorm2) = (self.span(hidden * hidden), self.actnorm(hidden));
        let conv3 = self.zero_conv(hidden, outputs);
        NetworkParams { inputs, hidden, conv1, actnorm1, conv2, actnorm2, conv3 }
    }

    pub fn final_prior(&mut self, channels: usize, classes: usize) -> FinalPriorParams {
        let class_weight = (classes > 0).then(|| self.span(classes * 2 * channels));
        FinalPriorParams { channels, mean: self.span(channels), logs: self.span(channels), class_weight }
    }
}
