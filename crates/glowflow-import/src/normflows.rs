//! Checkpoints of <https://github.com/VincentStimper/normalizing-flows>: a `MultiscaleFlow` of levels, each a
//! list of `GlowBlock`s and a `Squeeze`. The last level of the file is the first of the model.
//!
//! | checkpoint, from image to latents | glowflow |
//! | --- | --- |
//! | actnorm `(x − t)·exp(−s)` | `bias = −t`, `3·logs = −s` |
//! | 1×1 convolution `P·L·U` or `W` | the same |
//! | coupling `(x_b − shift)·sigmoid(o + 2)`, shift and `o` interleaved | shift negated, first kind first |
//! | networks with biases, or with actnorms | actnorms |
//! | a base distribution per level, `loc` and `log_scale` | the prior of a split that ignores its input |
//! | images in [0, 1), `pixel / 256` plus noise | `v + 1/2`, folded into the first actnorm |
//!
//! A base distribution must be the same at every pixel, and only that of the last latents may depend on a
//! class. The file does not record the bits of a pixel, the `scale_map` of the couplings (the default
//! `sigmoid` is assumed), or the slope of its ReLUs (0 is assumed).

use crate::Error;
use crate::parts::{Conv, FinalPrior, Level, Network, Norm, Parts, Permutation, Step};
use crate::reader::{MAX_LEVELS, MAX_STEPS, Reader};
use crate::settings::{Setting, Settings};

pub(crate) fn parts(reader: &mut Reader, settings: &Settings) -> Result<(Parts, Vec<String>), Error> {
    let count = reader.count("flows.", '.', MAX_LEVELS)?;
    let mut levels = vec![];
    let mut top = None;
    let mut image = None;
    for l in 0..count {
        let theirs = count - 1 - l;
        // A squeeze has no tensors, and comes last.
        let steps = reader.count(&format!("flows.{theirs}."), '.', MAX_STEPS)?;
        // The file orders them from latents to image.
        let steps = (0..steps).rev().map(|k| step(reader, &format!("flows.{theirs}.{k}.flows")));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let channels = steps.last().map_or(0, |step| step.actnorm.bias.len());
        if l + 1 < count {
            let base = base(reader, &format!("q0.{theirs}"), channels / 2)?;
            if base.class_weight.is_some() {
                return Err(Error::model(format!(
                    "the base distribution q0.{theirs} depends on the class; in glowflow only that of the last latents can"
                )));
            }
            image = image.or(base.pixels.map(|size| size.map(|side| side << (l + 1))));
            levels.push(Level { steps, prior: Some(constant(base.parameters, channels / 2)) });
        } else {
            let Base { parameters, class_weight, pixels } = base(reader, &format!("q0.{theirs}"), channels)?;
            image = image.or(pixels.map(|size| size.map(|side| side << (l + 1))));
            top = Some(FinalPrior { base: parameters, edge: None, class_weight });
            levels.push(Level { steps, prior: None });
        }
    }
    if let Some(step) = levels.first_mut().and_then(|level| level.steps.first_mut()) {
        step.actnorm.bias.iter_mut().for_each(|bias| *bias += 0.5);
    }
    let image = match image {
        Some(image) => Some(settings.check_image(image)?),
        None => settings.image,
    };
    let (Some(image), Some(bits), Some(top)) = (image, settings.bits, top) else {
        let missing = [(Setting::Image, image.is_none()), (Setting::Bits, settings.bits.is_none())];
        return Err(Error::Missing(missing.into_iter().filter(|(_, is)| *is).map(|(it, _)| it).collect()));
    };
    let note = "the file does not record the scale map of couplings; `sigmoid`, the default, is assumed";
    Ok((Parts { image, bits, levels, top }, vec![note.to_owned()]))
}

/// Converts a `GlowBlock`: coupling, 1×1 convolution, actnorm; from image to latents they run in reverse
/// order.
fn step(reader: &mut Reader, at: &str) -> Result<Step, Error> {
    let name = format!("{at}.2.s");
    let channels = reader.shape(&name)?.iter().product();
    let (s, t) = (reader.channels(&name, channels)?, reader.channels(&format!("{at}.2.t"), channels)?);
    reader.skip(&format!("{at}.2.data_dep_init_done"));
    let plain = format!("{at}.1.W");
    let permutation = if reader.has(&plain) {
        Permutation::Matrix(reader.numbers(&plain, &[channels, channels])?)
    } else {
        let name = |part: &str| format!("{at}.1.{part}");
        reader.skip(&name("eye"));
        Permutation::Lu(reader.lu(["P", "L", "U", "sign_S", "log_S"].map(name), channels)?)
    };
    Ok(Step {
        actnorm: Norm::of_log_scale(negated(t), negated(s)),
        signs: None,
        permutation,
        network: network(reader, &format!("{at}.0.flows.1.param_map.net"), channels)?,
    })
}

fn network(reader: &mut Reader, net: &str, channels: usize) -> Result<Network, Error> {
    let name = format!("{net}.0.weight");
    let [hidden, inputs, _, _] = reader.axes(&name)?;
    let conv1 = Conv::plain(hidden, inputs, reader.numbers(&name, &[hidden, inputs, 3, 3])?);
    // Positions of the second and third convolution: each follows a ReLU, and optionally an actnorm.
    let with_actnorm = reader.has_prefix(&format!("{net}.1.actNorm."));
    let (second, third) = if with_actnorm { (3, 6) } else { (2, 4) };
    let mut norm = |at: usize| {
        if !with_actnorm {
            return Ok(Norm::of_bias(reader.channels(&format!("{net}.{at}.bias"), hidden)?));
        }
        // x·exp(s) + t
        let at = format!("{net}.{}.actNorm", at + 1);
        let (s, t) =
            (reader.channels(&format!("{at}.s"), hidden)?, reader.channels(&format!("{at}.t"), hidden)?);
        reader.skip(&format!("{at}.data_dep_init_done"));
        let bias = t.iter().zip(&s).map(|(t, s)| t * (-s).exp()).collect();
        Ok::<_, Error>(Norm::of_log_scale(bias, s))
    };
    let (norm1, norm2) = (norm(0)?, norm(second)?);
    let conv2 = reader.numbers(&format!("{net}.{second}.weight"), &[hidden, hidden, 1, 1])?;
    let name = format!("{net}.{third}.weight");
    let [outputs, ..] = reader.axes::<4>(&name)?;
    let weight = reader.numbers(&name, &[outputs, hidden, 3, 3])?;
    let bias = reader.channels(&format!("{net}.{third}.bias"), outputs)?;
    let conv3 = Conv { bias, ..Conv::plain(outputs, hidden, weight) };
    let conv3 = if outputs == channels { conv3.deinterleaved() } else { conv3 };
    Ok(Network { conv1, conv2, norm1, norm2, conv3: conv3.first_negated(channels / 2) })
}

fn negated(numbers: Vec<f64>) -> Vec<f64> {
    numbers.into_iter().map(|x| -x).collect()
}

/// A base distribution.
struct Base {
    /// Means, then log standard deviations.
    parameters: Vec<f64>,
    class_weight: Option<Vec<f64>>,
    /// Height and width, if recorded in the file.
    pixels: Option<[usize; 2]>,
}

fn base(reader: &mut Reader, at: &str, channels: usize) -> Result<Base, Error> {
    let name = |part: &str| format!("{at}.{part}");
    if reader.has(&name("loc_logs")) {
        return glow_base(reader, name, channels);
    }
    let shape = reader.shape(&name("loc"))?;
    let differs = || {
        Error::model(format!(
            "the base distribution {at} differs between pixels; a glowflow prior has one mean and one scale for each channel"
        ))
    };
    // `DiagGaussian` has the shape [1, C, H, W], `ClassCondDiagGaussian` [C, H, W, classes].
    let (pixels, classes) = match *shape {
        [1, c, h, w] if c == channels && !(channels == 1 && w > 1 && h > 1) => ([h, w], None),
        [c, h, w, classes] if c == channels => ([h, w], Some(classes)),
        _ => {
            return Err(Error::model(format!(
                "{} has the shape {shape:?}; {channels} channels are needed",
                name("loc")
            )));
        }
    };
    let columns = classes.unwrap_or(1);
    let mut rows = vec![vec![]; columns];
    for part in ["loc", "log_scale"] {
        let numbers = reader.numbers(&name(part), &shape)?;
        let each = pixels[0] * pixels[1] * columns;
        for channel in numbers.chunks_exact(each.max(1)) {
            let (first, rest) = channel.split_at(columns.min(channel.len()));
            if !rest.chunks_exact(columns.max(1)).all(|pixel| pixel == first) {
                return Err(differs());
            }
            rows.iter_mut().zip(first).for_each(|(row, &x)| row.push(x));
        }
    }
    match classes {
        None => Ok(Base { parameters: rows.concat(), class_weight: None, pixels: Some(pixels) }),
        Some(_) => {
            let parameters = vec![0.0; 2 * channels];
            Ok(Base { parameters, class_weight: Some(rows.concat()), pixels: Some(pixels) })
        }
    }
}

/// Reads a `GlowBase`: one mean and log-scale per channel, each `x·exp(3·logs)`, and optionally rows for
/// classes.
fn glow_base(reader: &mut Reader, name: impl Fn(&str) -> String, channels: usize) -> Result<Base, Error> {
    let mut parameters = vec![];
    for part in ["loc", "log_scale"] {
        let x = reader.channels(&name(part), channels)?;
        let logs = reader.channels(&name(&format!("{part}_logs")), channels)?;
        parameters.extend(x.iter().zip(&logs).map(|(x, logs)| x * (3.0 * logs).exp()));
    }
    let mut class_weight = None;
    if reader.has(&name("loc_cc")) {
        let [classes, _] = reader.axes(&name("loc_cc"))?;
        let loc = reader.numbers(&name("loc_cc"), &[classes, channels])?;
        let log_scale = reader.numbers(&name("log_scale_cc"), &[classes, channels])?;
        let rows = loc.chunks_exact(channels.max(1)).zip(log_scale.chunks_exact(channels.max(1)));
        class_weight = Some(rows.flat_map(|(loc, log_scale)| [loc, log_scale].concat()).collect());
    }
    Ok(Base { parameters, class_weight, pixels: None })
}

/// The prior of a split that does not depend on its input.
fn constant(parameters: Vec<f64>, inputs: usize) -> Conv {
    let outputs = parameters.len();
    Conv { bias: parameters, ..Conv::plain(outputs, inputs, vec![0.0; outputs * inputs * 9]) }
}
