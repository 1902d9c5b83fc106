//! Glow (Kingma and Dhariwal 2018): multi-scale flow of actnorm, invertible 1×1 convolution and coupling.
//!
//! L levels of a squeeze and K steps each; every level except the last factors out half of its channels.

use glowflow_kernels::{AffineScale, CouplingKind, Operations};
use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, check};
use super::dequantization::{self, DequantizationType};
use crate::Error;
use crate::flow::{
    ActNormPermutation, BatchNorm, Coupling, DequantizerConfig, FinalPrior, FlowBuilder, NetworkKind,
    SelfAttention, Shape, Split, Squeeze, Transform,
};

/// Transformation of the second half of the channels in a coupling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CouplingType {
    /// Shift and scale (Glow, RealNVP).
    Affine,
    /// Shift only (NICE).
    Additive,
    /// A bounded mixture of logistic distribution functions, with shift and scale (after Flow++).
    Mixture,
}

/// The scale of an affine coupling, a function of the output `r` of its network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleType {
    /// `sigmoid(r + 2)` (Glow): a new coupling multiplies by 0.88.
    #[default]
    Sigmoid,
    /// `exp(2·tanh(r/2))`: a new coupling is the identity.
    Exp2Tanh,
}

impl ScaleType {
    fn is_sigmoid(&self) -> bool {
        *self == Self::Sigmoid
    }
}

impl From<ScaleType> for AffineScale {
    fn from(scale: ScaleType) -> Self {
        match scale {
            ScaleType::Sigmoid => Self::Sigmoid,
            ScaleType::Exp2Tanh => Self::Exp2Tanh,
        }
    }
}

/// Permutation between two couplings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PermutationType {
    /// An invertible 1×1 convolution, learned.
    Conv1x1,
    /// A fixed random permutation.
    Shuffle,
    /// Channels in reverse order.
    Reverse,
}

/// Normalisation of the input of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormalizationType {
    /// Actnorm, initialised from the first batch.
    #[default]
    ActNorm,
    /// Batch normalisation, followed by an actnorm that starts as the identity.
    BatchNorm,
}

impl NormalizationType {
    fn is_actnorm(&self) -> bool {
        *self == Self::ActNorm
    }
}

/// Network of a coupling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkType {
    /// Three convolutions.
    #[default]
    Convolutions,
    /// Residual blocks of a depthwise and two pointwise convolutions.
    Residual,
}

impl NetworkType {
    fn is_convolutions(&self) -> bool {
        *self == Self::Convolutions
    }
}

/// Default number of residual blocks of a network.
const NETWORK_BLOCKS: usize = 2;

/// Maximum pixels of a level with attention: 8×8. The work grows with their square.
const MAX_ATTENTION_PIXELS: usize = 64;

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn is_default_blocks(blocks: &usize) -> bool {
    *blocks == NETWORK_BLOCKS
}

/// Default number of mixture components.
const MIXTURE_COMPONENTS: usize = 4;

fn is_default_components(components: &usize) -> bool {
    *components == MIXTURE_COMPONENTS
}

/// Prior of the last latents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorType {
    /// Mean and log standard deviation of each channel, the same at every pixel.
    #[default]
    Channel,
    /// Both also depend on the border: a 3×3 convolution of the edge channel is added, as in the authors'
    /// program.
    Edge,
}

impl PriorType {
    fn is_channel(&self) -> bool {
        *self == Self::Channel
    }
}

/// Configuration of a Glow model.
///
/// Older versions reject unknown keys, so keys from `normalization` on, except `classes`, are only written if
/// they differ from their defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GlowConfig {
    /// Height, width and channels of an image.
    pub image: [usize; 3],
    /// Significant bits of a pixel, 1 to 8.
    pub bits: u32,
    /// Levels L of the multi-scale architecture.
    pub levels: usize,
    /// Steps of flow K in each level.
    pub steps: usize,
    /// Width of the coupling networks.
    pub hidden: usize,
    /// Kind of coupling.
    pub coupling: CouplingType,
    /// Scale of affine couplings. Older versions reject this key, so it is only written if it is not
    /// [`ScaleType::Sigmoid`].
    #[serde(skip_serializing_if = "ScaleType::is_sigmoid")]
    pub scale: ScaleType,
    /// Kind of permutation.
    pub permutation: PermutationType,
    /// Normalisation of the input of a step.
    #[serde(skip_serializing_if = "NormalizationType::is_actnorm")]
    pub normalization: NormalizationType,
    /// Kind of coupling network.
    #[serde(skip_serializing_if = "NetworkType::is_convolutions")]
    pub network: NetworkType,
    /// Number of blocks of a [residual](NetworkType::Residual) network.
    #[serde(skip_serializing_if = "is_default_blocks")]
    pub network_blocks: usize,
    /// Number of heads of a self-attention after the blocks of [residual](NetworkType::Residual) networks, at
    /// levels of at most 64 pixels; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub attention: usize,
    /// Number of components of a [mixture](CouplingType::Mixture).
    #[serde(skip_serializing_if = "is_default_components")]
    pub mixture_components: usize,
    /// Prior of the last latents.
    #[serde(skip_serializing_if = "PriorType::is_channel")]
    pub prior: PriorType,
    /// Number of classes; 0 for a model without labels.
    pub classes: usize,
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

impl Default for GlowConfig {
    /// The published CIFAR-10 model.
    fn default() -> Self {
        Self {
            image: [32, 32, 3],
            bits: 8,
            levels: 3,
            steps: 32,
            hidden: 512,
            coupling: CouplingType::Affine,
            scale: ScaleType::Sigmoid,
            permutation: PermutationType::Conv1x1,
            normalization: NormalizationType::ActNorm,
            network: NetworkType::Convolutions,
            network_blocks: NETWORK_BLOCKS,
            attention: 0,
            mixture_components: MIXTURE_COMPONENTS,
            prior: PriorType::Channel,
            classes: 0,
            dequantization: DequantizationType::Uniform,
            dequantization_couplings: dequantization::COUPLINGS,
            dequantization_hidden: dequantization::HIDDEN,
            dequantization_channels: dequantization::CHANNELS,
        }
    }
}

impl GlowConfig {
    /// The network of a level's couplings.
    fn network_kind(&self, level: Shape) -> NetworkKind {
        match self.network {
            NetworkType::Convolutions => NetworkKind::Convolutions { hidden: self.hidden },
            NetworkType::Residual => {
                let (heads, pixels) = (self.attention, level.pixels());
                let attention =
                    (heads > 0 && pixels <= MAX_ATTENTION_PIXELS).then_some(SelfAttention { heads, pixels });
                NetworkKind::Residual { width: self.hidden, blocks: self.network_blocks, attention }
            }
        }
    }

    fn validate_attention(&self) -> Result<(), Error> {
        let (heads, hidden) = (self.attention, self.hidden);
        if heads == 0 {
            return Ok(());
        }
        if self.network != NetworkType::Residual {
            return Err(Error::Config(format!(
                "model.attention is {heads}, but only residual networks have attention; omit it, or set \
                 model.network to residual"
            )));
        }
        if !hidden.is_multiple_of(heads) {
            return Err(Error::Config(format!(
                "model.attention is {heads}, but {heads} heads do not divide model.hidden, which is {hidden}; \
                 choose a divisor"
            )));
        }
        let [height, width, _] = self.image;
        let smallest = (height >> self.levels) * (width >> self.levels);
        if smallest > MAX_ATTENTION_PIXELS {
            return Err(Error::Config(format!(
                "model.attention is {heads}, but the last level has {smallest} pixels, more than the \
                 {MAX_ATTENTION_PIXELS} that attention supports; omit it, or increase model.levels"
            )));
        }
        Ok(())
    }

    fn transform(&self) -> Transform {
        match self.coupling {
            CouplingType::Affine => Transform::Linear(CouplingKind::Affine(self.scale.into())),
            CouplingType::Additive => Transform::Linear(CouplingKind::Additive),
            CouplingType::Mixture => Transform::Mixture { components: self.mixture_components },
        }
    }
}

impl Architecture for GlowConfig {
    fn image(&self) -> [usize; 3] {
        self.image
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn dequantizer(&self) -> Option<DequantizerConfig> {
        self.dequantization.dequantizer(
            self.dequantization_couplings,
            self.dequantization_hidden,
            self.dequantization_channels,
        )
    }

    fn size_keys(&self) -> &'static [&'static str] {
        &["hidden", "steps", "levels"]
    }

    fn build<D: Operations>(&self, flow: &mut FlowBuilder<'_, D>) {
        for level in 0..self.levels {
            flow.push(format!("levels.{level}.squeeze"), Squeeze);
            let channels = flow.shape().channels;
            let network = self.network_kind(flow.shape());
            for step in 0..self.steps {
                let name = format!("levels.{level}.steps.{step}");
                let mut map =
                    flow.params.scope(&name, |p| ActNormPermutation::new(p, channels, self.permutation));
                if self.normalization == NormalizationType::BatchNorm {
                    flow.push_with(format!("{name}.norm"), |p, shape| BatchNorm::new(p, shape.channels));
                    map = map.without_initialization();
                }
                let p = &mut flow.params;
                let coupling = p.scope(format!("{name}.coupling"), |p| {
                    Coupling::with_network(p, channels, network, self.transform())
                });
                flow.push(format!("{name}.actnorm and permutation"), map);
                flow.push(format!("{name}.coupling"), coupling);
            }
            if level + 1 < self.levels {
                flow.push_with(format!("levels.{level}.prior"), |p, _| Split::new(p, channels));
            } else {
                flow.push_with("prior", |p, _| {
                    let top = FinalPrior::new(p, channels, self.classes);
                    if self.prior == PriorType::Edge { top.with_edge(p) } else { top }
                });
            }
        }
    }

    fn set_channels(&mut self, channels: usize) {
        self.image[2] = channels;
    }

    fn set_classes(&mut self, classes: usize) -> Result<(), Error> {
        self.classes = classes;
        Ok(())
    }

    fn unread(&self) -> Vec<String> {
        let Self { network_blocks, mixture_components, .. } = *self;
        let blocks = self.network.is_convolutions().then(|| {
            check::unread("network_blocks", network_blocks, NETWORK_BLOCKS, "network = \"residual\"")
        });
        let components = (self.coupling != CouplingType::Mixture).then(|| {
            let needs = "coupling = \"mixture\"";
            check::unread("mixture_components", mixture_components, MIXTURE_COMPONENTS, needs)
        });
        let dequantizer = self.dequantization.unread(
            self.dequantization_couplings,
            self.dequantization_hidden,
            self.dequantization_channels,
        );
        [blocks, components].into_iter().flatten().flatten().chain(dequantizer).collect()
    }

    fn validate(&self) -> Result<(), Error> {
        check::image(self.image, self.bits)?;
        check::at_least_one("levels", self.levels, 12)?;
        check::at_least_one("steps", self.steps, 1 << 12)?;
        check::at_least_one("hidden", self.hidden, 1 << 14)?;
        check::at_least_one("network_blocks", self.network_blocks, 1 << 8)?;
        check::at_least_one("mixture_components", self.mixture_components, 1 << 8)?;
        check::at_most("classes", self.classes, 1 << 20)?;
        if self.coupling != CouplingType::Affine && self.scale != ScaleType::Sigmoid {
            return Err(Error::Config(
                "model.scale is exp2tanh, but additive couplings have no scale, and mixture couplings have their own; omit it, \
                 set it to sigmoid, or set model.coupling to affine"
                    .into(),
            ));
        }
        check::divisible(self.image, self.levels, "2^levels", |levels| levels)?;
        self.validate_attention()?;
        dequantization::validate(self.dequantizer(), self.image)
    }
}
