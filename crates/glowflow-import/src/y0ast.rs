//! Checkpoints of <https://github.com/y0ast/Glow-PyTorch>: see [`flownet`](crate::flownet).
//!
//! Pixels have 8 bits, and `prior_h` has the size of the last latents, so the file records every setting
//! except for a fixed permutation of the channels.

use crate::Error;
use crate::flownet::{self, Names};
use crate::parts::Parts;
use crate::reader::Reader;
use crate::settings::Settings;

const NAMES: Names = Names {
    network: "block",
    conv: ".conv",
    linear: ".linear",
    lower: "lower",
    upper: "upper",
    top: "learn_top_fn",
};

/// Bits of a pixel, a constant of the program.
const BITS: u32 = 8;

pub(crate) fn parts(reader: &mut Reader, settings: &Settings) -> Result<(Parts, Vec<String>), Error> {
    Ok((flownet::parts(reader, settings, &NAMES, settings.bits.unwrap_or(BITS))?, vec![]))
}
