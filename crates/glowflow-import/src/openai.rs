//! Variables of <https://github.com/openai/glow> by name, read from an `.npz`.
//!
//! | checkpoint | glowflow |
//! | --- | --- |
//! | convolutions HWIO, the edge channel last | OIHW |
//! | `invconv/W` `[in, out]` | `W` transposed |
//! | outputs of an affine coupling's network and of a split's prior are interleaved | the first kind first |
//! | the final prior is a zero convolution of zeros with an edge channel | `prior = "edge"` |
//!
//! In a checkpoint of the moving average, names end in `/ExponentialMovingAverage`. The file records neither
//! the image size nor the bits of a pixel.

use crate::Error;
use crate::matrix::permutation_index;
use crate::parts::{Conv, FinalPrior, Level, Network, Norm, Parts, Permutation, Step, class_rows};
use crate::reader::{MAX_LEVELS, MAX_STEPS, Reader};
use crate::settings::Settings;

/// Suffix of the names of averages.
const AVERAGE: &str = "/ExponentialMovingAverage";

/// Returns whether a variable belongs to the optimiser, to the average or to the classifier.
pub(crate) fn is_unused(name: &str) -> bool {
    name == "Variable"
        || name.starts_with("Variable_")
        || name.contains("ExponentialMovingAverage")
        || name.starts_with("model/classifier/")
        || matches!(name, "global_step" | "beta1_power" | "beta2_power")
}

pub(crate) fn parts(reader: &mut Reader, settings: &Settings) -> Result<(Parts, Vec<String>), Error> {
    let mut variables = Variables { reader };
    let count = variables.reader.count("model/", '/', MAX_LEVELS)?;
    let mut levels = vec![];
    let mut channels = 0;
    for l in 0..count {
        let steps = variables.reader.count(&format!("model/{l}/"), '/', MAX_STEPS)?;
        let steps = (0..steps).map(|k| variables.step(&format!("model/{l}/{k}")));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        channels = steps.last().map_or(0, |step| step.actnorm.bias.len());
        let prior = match l + 1 < count {
            true => {
                let at = format!("model/pool{l}/conv");
                Some(variables.zero_conv(&at, channels, channels / 2)?.deinterleaved())
            }
            false => None,
        };
        levels.push(Level { steps, prior });
    }
    let top = variables.top(channels)?;
    let (image, bits) = settings.image_and_bits()?;
    Ok((Parts { image, bits, levels, top }, vec![]))
}

struct Variables<'a> {
    reader: &'a mut Reader,
}

impl Variables<'_> {
    /// The name in the file: that of the average if the variable itself is absent.
    fn name(&self, name: &str) -> String {
        let average = format!("{name}{AVERAGE}");
        if !self.reader.has(name) && self.reader.has(&average) { average } else { name.to_owned() }
    }

    fn has(&self, name: &str) -> bool {
        self.reader.has(&self.name(name))
    }

    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Error> {
        self.reader.numbers(&self.name(name), shape)
    }

    fn channels(&mut self, name: &str, channels: usize) -> Result<Vec<f64>, Error> {
        self.reader.channels(&self.name(name), channels)
    }

    fn axes<const N: usize>(&self, name: &str) -> Result<[usize; N], Error> {
        self.reader.axes(&self.name(name))
    }

    fn step(&mut self, at: &str) -> Result<Step, Error> {
        let [_, _, _, channels] = self.axes(&format!("{at}/actnorm_center/b"))?;
        let network = format!("{at}/f1");
        let name = format!("{network}/l_1/W");
        let [_, _, with_edge, hidden] = self.axes(&name)?;
        let inputs = with_edge.saturating_sub(1);
        let weight = self.numbers(&name, &[3, 3, inputs + 1, hidden])?;
        let conv1 = Conv::of_hwio(hidden, inputs, &weight);
        // Transposed: from [in, out] to [out, in].
        let conv2 = self.numbers(&format!("{network}/l_2/W"), &[1, 1, hidden, hidden])?;
        let conv2 = transposed(&conv2, hidden);
        let [_, _, _, outputs] = self.axes(&format!("{network}/l_last/W"))?;
        let conv3 = self.zero_conv(&format!("{network}/l_last"), outputs, hidden)?;
        Ok(Step {
            actnorm: self.norm(&format!("{at}/actnorm"), channels)?,
            signs: None,
            permutation: self.permutation(at, channels)?,
            network: Network {
                conv1,
                conv2,
                norm1: self.norm(&format!("{network}/l_1/actnorm"), hidden)?,
                norm2: self.norm(&format!("{network}/l_2/actnorm"), hidden)?,
                conv3: if outputs == channels { conv3.deinterleaved() } else { conv3 },
            },
        })
    }

    /// Reads an actnorm, which has the same form as in glowflow.
    fn norm(&mut self, at: &str, channels: usize) -> Result<Norm, Error> {
        let bias = self.channels(&format!("{at}_center/b"), channels)?;
        Ok(Norm { bias, logs: self.channels(&format!("{at}_scale/logs"), channels)? })
    }

    fn zero_conv(&mut self, at: &str, outputs: usize, inputs: usize) -> Result<Conv, Error> {
        let weight = self.numbers(&format!("{at}/W"), &[3, 3, inputs + 1, outputs])?;
        let bias = self.channels(&format!("{at}/b"), outputs)?;
        let logs = self.channels(&format!("{at}/logs"), outputs)?;
        Ok(Conv { bias, logs, ..Conv::of_hwio(outputs, inputs, &weight) })
    }

    /// Without a 1×1 convolution and the index of a shuffle, the channels are reversed.
    fn permutation(&mut self, at: &str, n: usize) -> Result<Permutation, Error> {
        let plain = format!("{at}/invconv/W");
        if self.has(&plain) {
            return Ok(Permutation::Matrix(transposed(&self.numbers(&plain, &[n, n])?, n)));
        }
        let lu = |part: &str| format!("{at}/invconv/{part}");
        if self.has(&lu("L")) {
            return Ok(Permutation::Matrix(transposed(&self.product(lu, n)?, n)));
        }
        let shuffle = format!("{at}/shuffle/indices");
        if self.has(&shuffle) {
            self.reader.skip(&format!("{at}/shuffle/indices_inverse"));
            return Ok(Permutation::Index(self.reader.index(&shuffle, n)?));
        }
        Ok(Permutation::Index((0..n).rev().collect()))
    }

    /// The matrix `P·L·U`, `[in, out]`.
    fn product(&mut self, name: impl Fn(&str) -> String, n: usize) -> Result<Vec<f64>, Error> {
        let square = [n, n];
        let p = self.numbers(&name("P"), &square)?;
        let lower = self.numbers(&name("L"), &square)?;
        let upper = self.numbers(&name("U"), &square)?;
        let (sign, log_s) = (self.channels(&name("sign_S"), n)?, self.channels(&name("log_S"), n)?);
        let index = permutation_index(&p, n)
            .ok_or_else(|| Error::model(format!("{} is not a permutation matrix", name("P"))))?;
        let mut product = vec![0.0; n * n];
        for (to, &row) in product.chunks_exact_mut(n.max(1)).zip(&index) {
            for k in 0..=row {
                let l = if k < row { lower[row * n + k] } else { 1.0 };
                to[k] += l * sign[k] * log_s[k].exp();
                (k + 1..n).for_each(|j| to[j] += l * upper[k * n + j]);
            }
        }
        Ok(product)
    }

    fn top(&mut self, channels: usize) -> Result<FinalPrior, Error> {
        let outputs = 2 * channels;
        let mut top = match self.has("model/prior/p/W") {
            true => FinalPrior::of_zeros(&self.zero_conv("model/prior/p", outputs, outputs)?),
            false => FinalPrior::standard(channels),
        };
        let weight = "model/prior/y_emb/W";
        if self.has(weight) {
            let [classes, _] = self.axes(weight)?;
            let weight = self.numbers(weight, &[classes, outputs])?;
            let bias = self.channels("model/prior/y_emb/b", outputs)?;
            let logs = self.channels("model/prior/y_emb/logs", outputs)?;
            let rows = class_rows(classes, |output, class| weight[class * outputs + output], &bias, &logs);
            top.class_weight = Some(rows);
        }
        Ok(top)
    }
}

fn transposed(matrix: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|at| matrix[at % n * n + at / n]).collect()
}
