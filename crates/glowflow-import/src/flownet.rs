//! The network shared by the programs of chaiyujin and y0ast: `flow.layers`, a list of squeezes, steps of
//! flow and splits.
//!
//! | checkpoint | glowflow |
//! | --- | --- |
//! | actnorm `(x + bias)·exp(logs)` | `logs / 3` |
//! | outputs of an affine coupling's network and of a split's prior are interleaved | the first kind first |
//! | the final prior is a zero convolution of `prior_h`, a constant 0 | its value for zero input |
//! | zero padding without an edge channel | weights of the edge channel are 0 |

use glowflow::PermutationType;

use crate::Error;
use crate::parts::{Conv, FinalPrior, Level, Network, Norm, Parts, Permutation, Step, TAPS, class_rows};
use crate::reader::Reader;
use crate::settings::{Setting, Settings};

/// Names that differ between the programs.
pub(crate) struct Names {
    /// Network of a coupling.
    pub network: &'static str,
    /// Infix between a convolution's name and that of its weight.
    pub conv: &'static str,
    /// Infix between a linear layer's name and that of its weight.
    pub linear: &'static str,
    /// L and U of a 1×1 convolution.
    pub lower: &'static str,
    pub upper: &'static str,
    /// The zero convolution of the final prior.
    pub top: &'static str,
}

/// Converts the model, for images of `bits` bits.
pub(crate) fn parts(
    reader: &mut Reader,
    settings: &Settings,
    names: &Names,
    bits: u32,
) -> Result<Parts, Error> {
    let mut levels = vec![Level { steps: vec![], prior: None }];
    // The first layer of each level is a squeeze, which has no tensors.
    let mut next = 1;
    for index in reader.indices("flow.layers.", '.') {
        let at = format!("flow.layers.{index}");
        if index != next {
            return Err(Error::model(format!(
                "there is no tensor flow.layers.{next}.…, but there is one of {at}"
            )));
        }
        let Some(level) = levels.last_mut() else { break };
        if reader.has(&format!("{at}.actnorm.bias")) {
            level.steps.push(step(reader, settings, names, &at)?);
            next += 1;
        } else {
            let conv = format!("{at}.conv{}", names.conv);
            let [outputs, inputs, _, _] = reader.axes(&format!("{conv}.weight"))?;
            let prior = zero_conv(reader, &conv, &format!("{at}.conv"), outputs, inputs)?;
            level.prior = Some(prior.deinterleaved());
            levels.push(Level { steps: vec![], prior: None });
            next += 2;
        }
    }
    let [_, outputs, height, width] = reader.axes("prior_h")?;
    let side = |side: usize| side.checked_mul(1 << levels.len().min(16));
    let (Some(height), Some(width)) = (side(height), side(width)) else {
        return Err(Error::model("prior_h is too large"));
    };
    let image = settings.check_image([height, width])?;
    let top = top(reader, names, outputs)?;
    Ok(Parts { image, bits, levels, top })
}

fn step(reader: &mut Reader, settings: &Settings, names: &Names, at: &str) -> Result<Step, Error> {
    let channels = reader.shape(&format!("{at}.actnorm.bias"))?.iter().product();
    let network = format!("{at}.{}", names.network);
    let conv = names.conv;
    let name = format!("{network}.0{conv}.weight");
    let [hidden, inputs, _, _] = reader.axes(&name)?;
    let conv1 = Conv::plain(hidden, inputs, reader.numbers(&name, &[hidden, inputs, 3, 3])?);
    let conv2 = reader.numbers(&format!("{network}.2{conv}.weight"), &[hidden, hidden, 1, 1])?;
    let [outputs, ..] = reader.axes::<4>(&format!("{network}.4{conv}.weight"))?;
    let conv3 = zero_conv(reader, &format!("{network}.4{conv}"), &format!("{network}.4"), outputs, hidden)?;
    Ok(Step {
        actnorm: norm(reader, &format!("{at}.actnorm"), channels)?,
        signs: None,
        permutation: permutation(reader, settings, names, at, channels)?,
        network: Network {
            conv1,
            conv2,
            norm1: norm(reader, &format!("{network}.0.actnorm"), hidden)?,
            norm2: norm(reader, &format!("{network}.2.actnorm"), hidden)?,
            conv3: if outputs == channels { conv3.deinterleaved() } else { conv3 },
        },
    })
}

fn norm(reader: &mut Reader, at: &str, channels: usize) -> Result<Norm, Error> {
    let bias = reader.channels(&format!("{at}.bias"), channels)?;
    Ok(Norm::of_log_scale(bias, reader.channels(&format!("{at}.logs"), channels)?))
}

/// A zero convolution with its weight and bias under `conv` and its log-scale under `at`.
fn zero_conv(
    reader: &mut Reader,
    conv: &str,
    at: &str,
    outputs: usize,
    inputs: usize,
) -> Result<Conv, Error> {
    let weight = reader.numbers(&format!("{conv}.weight"), &[outputs, inputs, 3, 3])?;
    let bias = reader.channels(&format!("{conv}.bias"), outputs)?;
    let logs = reader.channels(&format!("{at}.logs"), outputs)?;
    Ok(Conv { bias, logs, ..Conv::plain(outputs, inputs, weight) })
}

fn permutation(
    reader: &mut Reader,
    settings: &Settings,
    names: &Names,
    at: &str,
    channels: usize,
) -> Result<Permutation, Error> {
    let plain = format!("{at}.invconv.weight");
    if reader.has(&plain) {
        return Ok(Permutation::Matrix(reader.numbers(&plain, &[channels, channels])?));
    }
    if reader.has_prefix(&format!("{at}.invconv.")) {
        let name = |part: &str| format!("{at}.invconv.{part}");
        if !reader.has(&name("p")) || !reader.has(&name("sign_s")) {
            return Err(Error::model(format!(
                "the file lacks {} and {}, which the program does not save: the 1×1 convolutions of a model in LU form cannot \
                 be restored",
                name("p"),
                name("sign_s")
            )));
        }
        let parts = ["p", names.lower, names.upper, "sign_s", "log_s"].map(name);
        return Ok(Permutation::Lu(reader.lu(parts, channels)?));
    }
    match settings.permutation {
        Some(PermutationType::Reverse) => Ok(Permutation::Index((0..channels).rev().collect())),
        Some(PermutationType::Shuffle) => Err(Error::model(
            "the program does not save the permutations of a shuffle: they cannot be restored",
        )),
        Some(PermutationType::Conv1x1) => Err(Error::model(format!("the tensor {plain} is missing"))),
        None => Err(Error::Missing(vec![Setting::Permutation])),
    }
}

/// The final prior: `outputs` means and log standard deviations.
fn top(reader: &mut Reader, names: &Names, outputs: usize) -> Result<FinalPrior, Error> {
    let constant = constant(reader, outputs)?;
    let conv = format!("{}{}", names.top, names.conv);
    let mut top = if reader.has(&format!("{conv}.weight")) {
        let mut conv = zero_conv(reader, &conv, names.top, outputs, outputs)?;
        // The input is constant inside the image and 0 outside: the sum over all taps, minus those outside.
        for o in 0..outputs {
            for (i, h) in constant.iter().enumerate().filter(|(_, h)| **h != 0.0) {
                for k in 0..TAPS {
                    let product = conv.weight[(o * outputs + i) * TAPS + k] * h;
                    conv.bias[o] += product;
                    conv.edge[o * TAPS + k] -= product;
                }
            }
        }
        FinalPrior::of_zeros(&conv)
    } else {
        FinalPrior { base: constant, edge: None, class_weight: None }
    };
    let linear = format!("project_ycond{}", names.linear);
    let weight = format!("{linear}.weight");
    if reader.has(&weight) {
        let [_, classes] = reader.axes(&weight)?;
        let weight = reader.numbers(&weight, &[outputs, classes])?;
        let bias = reader.channels(&format!("{linear}.bias"), outputs)?;
        let logs = reader.channels("project_ycond.logs", outputs)?;
        let rows = class_rows(classes, |output, class| weight[output * classes + class], &bias, &logs);
        top.class_weight = Some(rows);
    }
    Ok(top)
}

/// The value of `prior_h` in each channel.
fn constant(reader: &mut Reader, outputs: usize) -> Result<Vec<f64>, Error> {
    let shape = reader.shape("prior_h")?;
    let numbers = reader.numbers("prior_h", &shape)?;
    let pixels = shape[2] * shape[3];
    let first: Vec<f64> = numbers.iter().step_by(pixels.max(1)).take(outputs).copied().collect();
    let same = |(i, x): (usize, &f64)| first.get(i / pixels % outputs) == Some(x);
    if outputs == 0 || !outputs.is_multiple_of(2) || pixels == 0 || !numbers.iter().enumerate().all(same) {
        return Err(Error::model(
            "prior_h differs between pixels or images; a constant for each channel is needed",
        ));
    }
    Ok(first)
}
