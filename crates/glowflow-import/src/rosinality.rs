//! Checkpoints of <https://github.com/rosinality/glow-pytorch>.
//!
//! | checkpoint | glowflow |
//! | --- | --- |
//! | actnorm `scale·(x + loc)`, `scale` of either sign | the sign is folded into the 1×1 convolution |
//! | networks with biases and without actnorms | actnorms with only a bias |
//! | `log_s, t = net(x_a)` | `t` first |
//! | zero convolutions pad with 1 in every channel | the edge channel has the sum of all weights |
//! | the final prior is such a convolution of zeros | `prior = "edge"` |
//!
//! The file records neither the image size nor the bits of a pixel.

use crate::Error;
use crate::parts::{Conv, FinalPrior, Level, Network, Norm, Parts, Permutation, Step, logs_and_signs};
use crate::reader::{MAX_LEVELS, MAX_STEPS, Reader};
use crate::settings::Settings;

pub(crate) fn parts(reader: &mut Reader, settings: &Settings) -> Result<(Parts, Vec<String>), Error> {
    let count = reader.count("blocks.", '.', MAX_LEVELS)?;
    let mut levels = vec![];
    let mut top = None;
    for l in 0..count {
        let steps = reader.count(&format!("blocks.{l}.flows."), '.', MAX_STEPS)?;
        let steps = (0..steps).map(|k| step(reader, &format!("blocks.{l}.flows.{k}")));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let prior = format!("blocks.{l}.prior");
        let [outputs, inputs, _, _] = reader.axes(&format!("{prior}.conv.weight"))?;
        let prior = zero_conv(reader, &prior, outputs, inputs)?;
        if l + 1 < count {
            levels.push(Level { steps, prior: Some(prior) });
        } else {
            top = Some(FinalPrior::of_zeros(&prior));
            levels.push(Level { steps, prior: None });
        }
    }
    let (image, bits) = settings.image_and_bits()?;
    let top = top.ok_or_else(|| Error::model("the model has no levels"))?;
    Ok((Parts { image, bits, levels, top }, vec![]))
}

fn step(reader: &mut Reader, at: &str) -> Result<Step, Error> {
    let name = format!("{at}.actnorm.loc");
    let channels = reader.shape(&name)?.iter().product();
    let loc = reader.channels(&name, channels)?;
    let name = format!("{at}.actnorm.scale");
    let (log_scale, signs) = logs_and_signs(&name, &reader.channels(&name, channels)?)?;
    reader.skip(&format!("{at}.actnorm.initialized"));

    let plain = format!("{at}.invconv.weight");
    let permutation = if reader.has(&plain) {
        Permutation::Matrix(reader.numbers(&plain, &[channels, channels, 1, 1])?)
    } else {
        let name = |part: &str| format!("{at}.invconv.{part}");
        ["u_mask", "l_mask", "l_eye"].map(name).iter().for_each(|name| reader.skip(name));
        Permutation::Lu(reader.lu(["w_p", "w_l", "w_u", "s_sign", "w_s"].map(name), channels)?)
    };

    let net = format!("{at}.coupling.net");
    let name = format!("{net}.0.weight");
    let [hidden, inputs, _, _] = reader.axes(&name)?;
    let conv1 = Conv::plain(hidden, inputs, reader.numbers(&name, &[hidden, inputs, 3, 3])?);
    let [outputs, ..] = reader.axes::<4>(&format!("{net}.4.conv.weight"))?;
    let conv3 = zero_conv(reader, &format!("{net}.4"), outputs, hidden)?;
    Ok(Step {
        actnorm: Norm::of_log_scale(loc, log_scale),
        signs,
        permutation,
        network: Network {
            conv1,
            norm1: Norm::of_bias(reader.channels(&format!("{net}.0.bias"), hidden)?),
            conv2: reader.numbers(&format!("{net}.2.weight"), &[hidden, hidden, 1, 1])?,
            norm2: Norm::of_bias(reader.channels(&format!("{net}.2.bias"), hidden)?),
            conv3: if outputs == channels { conv3.halves_swapped() } else { conv3 },
        },
    })
}

fn zero_conv(reader: &mut Reader, at: &str, outputs: usize, inputs: usize) -> Result<Conv, Error> {
    let weight = reader.numbers(&format!("{at}.conv.weight"), &[outputs, inputs, 3, 3])?;
    let bias = reader.channels(&format!("{at}.conv.bias"), outputs)?;
    let logs = reader.channels(&format!("{at}.scale"), outputs)?;
    Ok(Conv { bias, logs, ..Conv::plain(outputs, inputs, weight).padded_with_ones() })
}
