//! Architectures, one a file. A new one is a file here and a line in the list below.

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
