//! The parts of a Glow, in `f64`: the intermediate form of every source.
//!
//! A step is `y = P (x + bias)·sign·exp(3·logs)`, then a coupling. The sign is that of an actnorm's scale.
//! glowflow's actnorm has positive scales, so the sign becomes part of the 1×1 convolution: `W·diag(sign)`.

use crate::Error;

/// Number of taps of a 3×3 convolution.
pub(crate) const TAPS: usize = 9;

/// A model.
pub(crate) struct Parts {
    /// Height and width of an image.
    pub image: [usize; 2],
    pub bits: u32,
    pub levels: Vec<Level>,
    pub top: FinalPrior,
}

/// The steps of a level, and the prior of the split after it; the last level has no split.
pub(crate) struct Level {
    pub steps: Vec<Step>,
    pub prior: Option<Conv>,
}

/// A step of flow.
pub(crate) struct Step {
    pub actnorm: Norm,
    /// Signs of the actnorm's scale, if some are negative.
    pub signs: Option<Vec<f64>>,
    pub permutation: Permutation,
    pub network: Network,
}

/// The network of a coupling.
pub(crate) struct Network {
    pub conv1: Conv,
    /// `[hidden, hidden]`
    pub conv2: Vec<f64>,
    pub norm1: Norm,
    pub norm2: Norm,
    pub conv3: Conv,
}

/// `y = (x + bias)·exp(3·logs)`
pub(crate) struct Norm {
    pub bias: Vec<f64>,
    pub logs: Vec<f64>,
}

impl Norm {
    /// From a bias and the logarithm of the scale, not divided by 3.
    pub fn of_log_scale(bias: Vec<f64>, log_scale: Vec<f64>) -> Self {
        Self { bias, logs: thirds(log_scale) }
    }

    /// An actnorm that only adds a bias.
    pub fn of_bias(bias: Vec<f64>) -> Self {
        Self { logs: vec![0.0; bias.len()], bias }
    }
}

fn thirds(log_scale: Vec<f64>) -> Vec<f64> {
    log_scale.into_iter().map(|x| x / 3.0).collect()
}

/// The permutation after an actnorm.
pub(crate) enum Permutation {
    /// `y = W x`, `[channels, channels]`
    Matrix(Vec<f64>),
    Lu(Lu),
    /// `y[i] = x[index[i]]`
    Index(Vec<usize>),
}

/// `W = P·L·(U + diag(sign ⊙ exp(log_s)))`; only the strict triangles of L and U are read.
pub(crate) struct Lu {
    /// `(P v)[i] = v[index[i]]`
    pub index: Vec<usize>,
    pub sign: Vec<f64>,
    pub lower: Vec<f64>,
    pub upper: Vec<f64>,
    pub log_s: Vec<f64>,
}

impl Lu {
    /// Scales the columns of W by 1 or −1.
    pub fn flip_columns(&mut self, signs: &[f64]) {
        self.sign.iter_mut().zip(signs).for_each(|(sign, by)| *sign *= by);
        for row in self.upper.chunks_exact_mut(signs.len()) {
            row.iter_mut().zip(signs).for_each(|(x, by)| *x *= by);
        }
    }
}

/// `y = (conv3×3(x) + bias)·exp(3·logs)`, with an edge channel.
#[derive(Clone)]
pub(crate) struct Conv {
    pub outputs: usize,
    /// Number of input channels without the edge channel.
    pub inputs: usize,
    /// `[outputs, inputs, 9]`
    pub weight: Vec<f64>,
    /// `[outputs, 9]`
    pub edge: Vec<f64>,
    pub bias: Vec<f64>,
    pub logs: Vec<f64>,
}

impl Conv {
    /// A convolution without bias, scale and edge channel.
    pub fn plain(outputs: usize, inputs: usize, weight: Vec<f64>) -> Self {
        let edge = vec![0.0; outputs * TAPS];
        Self { outputs, inputs, weight, edge, bias: vec![0.0; outputs], logs: vec![0.0; outputs] }
    }

    /// Converts TensorFlow's layout `[3, 3, inputs + 1, outputs]`, with the edge channel last.
    pub fn of_hwio(outputs: usize, inputs: usize, weight: &[f64]) -> Self {
        let at = |k: usize, i: usize, o: usize| weight[(k * (inputs + 1) + i) * outputs + o];
        let each = |o: usize, i: usize| (0..TAPS).map(move |k| (k, i, o));
        let all = (0..outputs).flat_map(|o| (0..inputs).flat_map(move |i| each(o, i)));
        let edge = (0..outputs).flat_map(|o| each(o, inputs));
        Self {
            edge: edge.map(|(k, i, o)| at(k, i, o)).collect(),
            ..Self::plain(outputs, inputs, all.map(|(k, i, o)| at(k, i, o)).collect())
        }
    }

    /// The weights of an output, without the edge channel.
    fn weight_of(&self, output: usize) -> &[f64] {
        &self.weight[output * self.inputs * TAPS..][..self.inputs * TAPS]
    }

    /// Converts padding with 1 to padding with 0: the edge channel receives the sum of all inputs' weights.
    pub fn padded_with_ones(mut self) -> Self {
        for output in 0..self.outputs {
            for k in 0..TAPS {
                let sum: f64 = self.weight_of(output).iter().skip(k).step_by(TAPS).sum();
                self.edge[output * TAPS + k] += sum;
            }
        }
        self
    }

    /// Permutes the outputs: output `i` is the former output `order[i]`.
    pub fn reordered(&self, order: &[usize]) -> Self {
        let rows = |from: &[f64], width: usize| -> Vec<f64> {
            order.iter().flat_map(|&row| from[row * width..][..width].to_vec()).collect()
        };
        Self {
            outputs: self.outputs,
            inputs: self.inputs,
            weight: rows(&self.weight, self.inputs * TAPS),
            edge: rows(&self.edge, TAPS),
            bias: rows(&self.bias, 1),
            logs: rows(&self.logs, 1),
        }
    }

    /// Separates interleaved outputs of two kinds, the first kind first.
    pub fn deinterleaved(&self) -> Self {
        let (even, odd) = ((0..self.outputs).step_by(2), (1..self.outputs).step_by(2));
        self.reordered(&even.chain(odd).collect::<Vec<_>>())
    }

    /// Swaps the halves of the outputs.
    pub fn halves_swapped(&self) -> Self {
        let half = self.outputs / 2;
        self.reordered(&(half..self.outputs).chain(0..half).collect::<Vec<_>>())
    }

    /// Negates the first outputs.
    pub fn first_negated(mut self, count: usize) -> Self {
        let (count, negate) = (count.min(self.outputs), |x: &mut f64| *x = -*x);
        self.weight[..count * self.inputs * TAPS].iter_mut().for_each(negate);
        self.edge[..count * TAPS].iter_mut().for_each(negate);
        self.bias[..count].iter_mut().for_each(negate);
        self
    }

    /// The weight with the edge channel, `[outputs, inputs + 1, 9]`.
    pub fn with_edge(&self) -> Vec<f64> {
        let edges = self.edge.chunks_exact(TAPS).enumerate();
        edges.flat_map(|(output, edge)| [self.weight_of(output), edge].concat()).collect()
    }
}

/// The final prior: means, then log standard deviations, `2·channels` in total.
pub(crate) struct FinalPrior {
    pub base: Vec<f64>,
    /// `[2·channels, 9]`, if it is not 0.
    pub edge: Option<Vec<f64>>,
    /// A row of `2·channels` values for each class.
    pub class_weight: Option<Vec<f64>>,
}

impl FinalPrior {
    /// Mean 0 and standard deviation 1.
    pub fn standard(channels: usize) -> Self {
        Self { base: vec![0.0; 2 * channels], edge: None, class_weight: None }
    }

    /// The output of a zero convolution for zero input.
    pub fn of_zeros(conv: &Conv) -> Self {
        let scale: Vec<f64> = conv.logs.iter().map(|logs| (3.0 * logs).exp()).collect();
        let base = conv.bias.iter().zip(&scale).map(|(bias, scale)| bias * scale).collect();
        let taps = conv.edge.chunks_exact(TAPS).zip(&scale);
        let edge: Vec<f64> = taps.flat_map(|(taps, scale)| taps.iter().map(move |tap| tap * scale)).collect();
        // The centre of the window is never outside the image.
        let varies = edge.chunks_exact(TAPS).any(|taps| (0..TAPS).any(|k| k != 4 && taps[k] != 0.0));
        Self { base, edge: varies.then_some(edge), class_weight: None }
    }
}

/// `(W[:, y] + bias)·exp(3·logs)` for every class: a linear layer on one-hot rows. `weight(output, class)`.
pub(crate) fn class_rows(
    classes: usize,
    weight: impl Fn(usize, usize) -> f64,
    bias: &[f64],
    logs: &[f64],
) -> Vec<f64> {
    let row = |class| {
        let each = bias.iter().zip(logs).enumerate();
        let weight = &weight;
        each.map(move |(o, (bias, logs))| (weight(o, class) + bias) * (3.0 * logs).exp())
    };
    (0..classes).flat_map(row).collect()
}

/// Log and sign of the scales of an actnorm; signs are returned only if some are negative.
pub(crate) fn logs_and_signs(name: &str, scale: &[f64]) -> Result<(Vec<f64>, Option<Vec<f64>>), Error> {
    if scale.contains(&0.0) {
        return Err(Error::model(format!("{name} holds 0, and a scale of 0 has no inverse")));
    }
    let logs = scale.iter().map(|scale| scale.abs().ln()).collect();
    let signs = scale.iter().any(|&scale| scale < 0.0);
    Ok((logs, signs.then(|| scale.iter().map(|scale| scale.signum()).collect())))
}
