//! The built-in studies, each in a size for processors and one for GPUs.

use crate::Error;

/// Size of a built-in study.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Small models, for two cores.
    #[default]
    Cpu,
    /// Models of the published size.
    Gpu,
}

struct Builtin {
    name: &'static str,
    cpu: &'static str,
    gpu: &'static str,
}

const BUILTIN: [Builtin; 3] = [
    Builtin {
        name: "permutations",
        cpu: include_str!("builtin/permutations-cpu.toml"),
        gpu: include_str!("builtin/permutations-gpu.toml"),
    },
    Builtin {
        name: "realnvp-vs-glow",
        cpu: include_str!("builtin/realnvp-vs-glow-cpu.toml"),
        gpu: include_str!("builtin/realnvp-vs-glow-gpu.toml"),
    },
    Builtin {
        name: "speedrun",
        cpu: include_str!("builtin/speedrun-cpu.toml"),
        gpu: include_str!("builtin/speedrun-gpu.toml"),
    },
];

/// The names of all built-in studies.
pub fn names() -> Vec<&'static str> {
    BUILTIN.iter().map(|study| study.name).collect()
}

/// The TOML of a built-in study.
pub(super) fn text(name: &str, scale: Scale) -> Result<&'static str, Error> {
    let study = BUILTIN.iter().find(|study| study.name == name).ok_or_else(|| {
        Error::Config(format!("unknown study {name:?}; the built-in studies are {}", names().join(", ")))
    })?;
    Ok(match scale {
        Scale::Cpu => study.cpu,
        Scale::Gpu => study.gpu,
    })
}
