//! Architectures, one a file. A new one is a file here and a line in the list below.

mod architecture;
mod glow;
mod registry;

pub use architecture::{Architecture, check};
pub use glow::{CouplingType, GlowConfig, PermutationType};

registry::architectures! {
    Glow(GlowConfig) = "glow",
}
