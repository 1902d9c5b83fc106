//! Programs whose checkpoints can be imported.

use std::fmt;
use std::str::FromStr;

use crate::assemble::Imported;
use crate::checkpoint::Checkpoint;
use crate::reader::Reader;
use crate::settings::Settings;
use crate::{Error, chaiyujin, normflows, openai, rosinality, y0ast};

/// A program that trains Glow models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// <https://github.com/y0ast/Glow-PyTorch>
    Y0ast,
    /// <https://github.com/rosinality/glow-pytorch>
    Rosinality,
    /// <https://github.com/chaiyujin/glow-pytorch>
    Chaiyujin,
    /// <https://github.com/openai/glow>
    Openai,
    /// <https://github.com/VincentStimper/normalizing-flows>
    Normflows,
}

impl Source {
    /// All programs.
    pub const ALL: [Self; 5] =
        [Self::Y0ast, Self::Rosinality, Self::Chaiyujin, Self::Openai, Self::Normflows];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Y0ast => "y0ast",
            Self::Rosinality => "rosinality",
            Self::Chaiyujin => "chaiyujin",
            Self::Openai => "openai",
            Self::Normflows => "normflows",
        }
    }

    /// A tensor that only models of this program have.
    fn characteristic(self) -> &'static str {
        match self {
            Self::Y0ast => "flow.layers.1.block.0.conv.weight",
            Self::Rosinality => "blocks.0.flows.0.coupling.net.0.weight",
            Self::Chaiyujin => "flow.layers.1.f.0.weight",
            Self::Openai => "model/0/0/f1/l_1/W",
            Self::Normflows => "flows.0.0.flows.0.flows.1.param_map.net.0.weight",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|source| source.name() == text).ok_or_else(|| {
            format!("unknown program {text:?}, expected one of {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Converts a checkpoint of a program to a model with the same likelihoods and latents.
///
/// # Errors
/// [`Error::Missing`] if neither the file nor `settings` has a required setting; [`Error::Model`] if a tensor
/// is missing, unknown or of the wrong shape, or if there is no equivalent model.
pub fn import(checkpoint: Checkpoint, source: Source, settings: &Settings) -> Result<Imported, Error> {
    let Checkpoint { tensors, ignored } = checkpoint;
    let mut reader = Reader::new(tensors);
    if !reader.has(source.characteristic())
        && let Some(other) = Source::ALL.into_iter().find(|other| reader.has(other.characteristic()))
    {
        return Err(Error::model(format!(
            "it is not a checkpoint of {source}, but looks like one of {other}"
        )));
    }
    let (parts, notes) = match source {
        Source::Y0ast => y0ast::parts(&mut reader, settings),
        Source::Rosinality => rosinality::parts(&mut reader, settings),
        Source::Chaiyujin => chaiyujin::parts(&mut reader, settings),
        Source::Openai => openai::parts(&mut reader, settings),
        Source::Normflows => normflows::parts(&mut reader, settings),
    }?;
    let is_unused: fn(&str) -> bool = match source {
        Source::Y0ast | Source::Chaiyujin => |name| name.starts_with("project_class."),
        Source::Openai => openai::is_unused,
        Source::Rosinality | Source::Normflows => |_| false,
    };
    let mut unused = reader.finish(is_unused)?;
    unused.extend(ignored);
    let imported = Imported::assemble(parts, unused, notes)?;
    match settings.permutation {
        Some(given) if given != imported.config.permutation => Err(Error::model(format!(
            "the permutation {given:?} was specified, and the model has {:?}",
            imported.config.permutation
        ))),
        _ => Ok(imported),
    }
}
