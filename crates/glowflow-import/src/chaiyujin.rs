//! Checkpoints of <https://github.com/chaiyujin/glow-pytorch>: see [`flownet`](crate::flownet).
//!
//! The program trains on `x = pixel / 255` with normal noise of standard deviation 1/256 instead of uniform
//! noise. In glowflow an image without noise is at the midpoints of its bins:
//! `x = (256/255)·(v + 1/2 − 1/512)` is folded into the first actnorm. The likelihood of `v` is that of `x`
//! times `(256/255)^D`.

use crate::Error;
use crate::flownet::{self, Names};
use crate::parts::Parts;
use crate::reader::Reader;
use crate::settings::Settings;

const NAMES: Names = Names { network: "f", conv: "", linear: "", lower: "l", upper: "u", top: "learn_top" };

/// Number of pixel values, a constant of the program.
const BINS: f64 = 256.0;

pub(crate) fn parts(reader: &mut Reader, settings: &Settings) -> Result<(Parts, Vec<String>), Error> {
    if settings.bits.is_some_and(|bits| bits != 8) {
        return Err(Error::model("the program supports only models of 8 bits"));
    }
    let mut parts = flownet::parts(reader, settings, &NAMES, 8)?;
    let scale = BINS / (BINS - 1.0);
    let shift = scale * (0.5 - 0.5 / BINS);
    if let Some(step) = parts.levels.first_mut().and_then(|level| level.steps.first_mut()) {
        // (scale·v + shift + bias)·exp(3·logs) = (v + (shift + bias)/scale)·exp(3·logs)·scale
        step.actnorm.bias.iter_mut().for_each(|bias| *bias = (shift + *bias) / scale);
        step.actnorm.logs.iter_mut().for_each(|logs| *logs += scale.ln() / 3.0);
    }
    let note = format!(
        "the program reports the density of pixels divided by 255: its bits/dim are larger by log2(256/255) = {:.5}",
        scale.log2()
    );
    Ok((parts, vec![note]))
}
