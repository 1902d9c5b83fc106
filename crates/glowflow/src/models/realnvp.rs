//! RealNVP (Dinh, Sohl-Dickstein and Bengio 2016), as in its authors' program.
//!
//! ```text
//! logit; then each level except the last:
//!     3 couplings by checkerboard; squeeze; 3 couplings by channels; reorder; factor out half of the
//! channels
//! the last level: 4 couplings by checkerboard
//! ```
//!
//! The coupling networks of level l have `hidden·2^l` channels, and `hidden·2^(l+1)` after the squeeze.

use glowflow_kernels::{Primitives, ops};
use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, check};
use super::dequantization::{self, DequantizationType};
use crate::Error;
use crate::flow::{
    Base, DequantizerConfig, FactorOut, FactorRest, FlowBuilder, Logit, Mask, MaskedCoupling, Reorder,
    Squeeze,
};
use crate::train::{Optimizer, TrainConfig};

/// Configuration of a RealNVP model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RealNvpConfig {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// Significant bits of a pixel, 1 to 8.
    pub bits: u32,
    /// Levels L of the multi-scale architecture.
    pub levels: usize,
    /// Number of residual blocks of a coupling network.
    pub blocks: usize,
    /// Width of the coupling networks of the first level.
    pub hidden: usize,
    /// Distribution of dequantisation noise. Older versions reject this key and the next three, so each is
    /// only written if it differs from its default.
    #[serde(skip_serializing_if = "DequantizationType::is_uniform")]
    pub dequantization: DequantizationType,
    /// Number of couplings of a variational dequantisation; 0 for a single one given only the bins.
    #[serde(skip_serializing_if = "dequantization::is_default_couplings")]
    pub dequantization_couplings: usize,
    /// Width of the networks of a variational dequantisation.
    #[serde(skip_serializing_if = "dequantization::is_default_hidden")]
    pub dequantization_hidden: usize,
    /// Number of channels of the representation of the bins in those networks.
    #[serde(skip_serializing_if = "dequantization::is_default_channels")]
    pub dequantization_channels: usize,
}

impl Default for RealNvpConfig {
    /// The published CIFAR-10 model.
    fn default() -> Self {
        Self {
            image: [32, 32, 3],
            bits: 8,
            levels: 2,
            blocks: 8,
            hidden: 64,
            dequantization: DequantizationType::Uniform,
            dequantization_couplings: dequantization::COUPLINGS,
            dequantization_hidden: dequantization::HIDDEN,
            dequantization_channels: dequantization::CHANNELS,
        }
    }
}

impl RealNvpConfig {
    /// Appends a coupling of a level.
    fn couple<D: Primitives>(&self, flow: &mut FlowBuilder<'_, D>, level: usize, k: usize, mask: Mask) {
        let by_channels = !matches!(mask, Mask::Checkerboard { .. });
        let hidden = self.hidden << (level + usize::from(by_channels));
        flow.push_with(format!("levels.{level}.couplings.{k}"), |p, shape| {
            MaskedCoupling::new(p, shape.channels, hidden, self.blocks, mask)
        });
    }
}

impl Architecture for RealNvpConfig {
    fn image(&self) -> [usize; 3] {
        self.image
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn dequantizer(&self) -> Option<DequantizerConfig> {
        self.dequantization.dequantizer(
            self.dequantization_couplings,
            self.dequantization_hidden,
            self.dequantization_channels,
        )
    }

    fn unread(&self) -> Vec<String> {
        self.dequantization.unread(
            self.dequantization_couplings,
            self.dequantization_hidden,
            self.dequantization_channels,
        )
    }

    fn size_keys(&self) -> &'static [&'static str] {
        &["hidden", "blocks", "levels"]
    }

    fn build<D: ops::Squeeze>(&self, flow: &mut FlowBuilder<'_, D>) {
        flow.push("logit", Logit);
        for level in 0..self.levels {
            let last = level + 1 == self.levels;
            for k in 0..if last { 4 } else { 3 } {
                self.couple(flow, level, k, Mask::Checkerboard { parity: k % 2 });
            }
            if last {
                flow.push(format!("levels.{level}.latents"), FactorRest(Base::Normal));
                break;
            }
            flow.push(format!("levels.{level}.squeeze"), Squeeze);
            for (k, mask) in [(3, Mask::FirstHalf), (4, Mask::LastHalf), (5, Mask::FirstHalf)] {
                self.couple(flow, level, k, mask);
            }
            flow.push(format!("levels.{level}.reorder"), Reorder);
            flow.push(format!("levels.{level}.latents"), FactorOut(Base::Normal));
        }
    }

    fn set_channels(&mut self, channels: usize) {
        self.image[2] = channels;
    }

    fn train_defaults(&self) -> TrainConfig {
        TrainConfig {
            optimizer: Optimizer::Adam,
            warmup: 0,
            ema: 0.0,
            // A norm of 100 for a loss in nats per image.
            clip: -self.bits_per_dim(100.0),
            penalty: Some(5e-5),
            ..TrainConfig::default()
        }
    }

    fn validate(&self) -> Result<(), Error> {
        check::image(self.image, self.bits)?;
        check::at_least_one("levels", self.levels, 12)?;
        check::at_most("blocks", self.blocks, 1 << 10)?;
        check::at_least_one("hidden", self.hidden, 1 << 12)?;
        check::divisible(self.image, self.levels - 1, "2^(levels - 1)", |levels| levels + 1)?;
        dequantization::validate(self.dequantizer(), self.image)
    }
}
