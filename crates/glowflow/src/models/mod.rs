//! Architectures, one per file. To add one, create a file here and add a line to the list below.

mod architecture;
mod dequantization;
mod glow;
mod nice;
mod realnvp;
mod registry;

pub use architecture::{Architecture, check};
pub use dequantization::DequantizationType;
pub use glow::{
    CouplingType, GlowConfig, NetworkType, NormalizationType, PermutationType, PriorType, ScaleType,
};
pub use nice::{NiceConfig, Prior};
pub use realnvp::RealNvpConfig;

registry::architectures! {
    Glow(GlowConfig) = "glow",
    RealNvp(RealNvpConfig) = "realnvp",
    Nice(NiceConfig) = "nice",
}
