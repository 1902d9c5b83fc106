//! Keys of variational dequantisation, shared by several architectures.

use serde::{Deserialize, Serialize};

use super::architecture::check;
use crate::Error;
use crate::flow::DequantizerConfig;

/// Default of `model.dequantization_couplings`.
pub const COUPLINGS: usize = 4;
/// Default of `model.dequantization_hidden`.
pub const HIDDEN: usize = 128;
/// Default of `model.dequantization_channels`.
pub const CHANNELS: usize = 32;

/// Distribution of the dequantisation noise within each bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DequantizationType {
    /// Uniform.
    #[default]
    Uniform,
    /// Learned, by a [`Dequantizer`](crate::flow::Dequantizer).
    Variational,
}

impl DequantizationType {
    /// Returns whether this is the default.
    pub(super) fn is_uniform(&self) -> bool {
        *self == Self::Uniform
    }

    /// Notices of dequantiser sizes in a model with uniform noise: see
    /// [`Architecture::unread`](super::Architecture::unread).
    pub(super) fn unread(self, couplings: usize, hidden: usize, channels: usize) -> Vec<String> {
        if self != Self::Uniform {
            return vec![];
        }
        let sizes = [
            ("dequantization_couplings", couplings, COUPLINGS),
            ("dequantization_hidden", hidden, HIDDEN),
            ("dequantization_channels", channels, CHANNELS),
        ];
        let needs = "dequantization = \"variational\"";
        sizes
            .into_iter()
            .filter_map(|(key, size, default)| check::unread(key, size, default, needs))
            .collect()
    }

    /// The dequantiser of a model with these keys.
    pub(super) fn dequantizer(
        self,
        couplings: usize,
        hidden: usize,
        channels: usize,
    ) -> Option<DequantizerConfig> {
        match self {
            Self::Uniform => None,
            Self::Variational => Some(DequantizerConfig { couplings, hidden, channels }),
        }
    }
}

/// Returns whether the number of couplings is the default.
pub(super) fn is_default_couplings(couplings: &usize) -> bool {
    *couplings == COUPLINGS
}

/// Returns whether the width of the networks is the default.
pub(super) fn is_default_hidden(hidden: &usize) -> bool {
    *hidden == HIDDEN
}

/// Returns whether the number of channels of the condition is the default.
pub(super) fn is_default_channels(channels: &usize) -> bool {
    *channels == CHANNELS
}

/// Checks that a dequantiser can be built for images of this shape.
///
/// # Errors
/// [`Error::Config`] with the key, its value, and valid values.
pub(super) fn validate(
    dequantizer: Option<DequantizerConfig>,
    [height, width, _]: [usize; 3],
) -> Result<(), Error> {
    let Some(DequantizerConfig { couplings, hidden, channels }) = dequantizer else { return Ok(()) };
    check::at_most("dequantization_couplings", couplings, 1 << 8)?;
    check::at_least_one("dequantization_hidden", hidden, 1 << 14)?;
    check::at_least_one("dequantization_channels", channels, 1 << 12)?;
    for (key, value) in [("height", height), ("width", width)] {
        if value % 2 == 1 {
            return Err(Error::Config(format!(
                "image {key} {value} is odd, and model.dequantization = \"variational\" needs even sides: use {}, or \
                 model.dequantization = \"uniform\"",
                value + 1
            )));
        }
    }
    Ok(())
}
