//! Names, shapes and places of a model's tensors (`docs/model.md`).
//!
//! All trained tensors lie in one flat buffer, in the order of the file's table. What is fixed when the model
//! is made, the permutations and the signs of the LU form, is kept by the layers instead.

use glowflow_kernels::{
    ActNormParams, ChannelMapParams, Device, NetworkParams, PermutationParams, Span, TopPriorParams,
    ZeroConvParams,
};

use crate::flow::{ActNormPermutation, Coupling, Layer, Split, Squeeze, Top};
use crate::models::{GlowConfig, ModelConfig, PermutationType};

/// The part of a square matrix that is read; the rest is stored as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// Strictly below the diagonal.
    Lower,
    /// Strictly above the diagonal.
    Upper,
}

/// One trained tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in a model file.
    pub name: String,
    /// Its shape in a model file.
    pub shape: Vec<usize>,
    /// Its place in the flat buffer.
    pub span: Span,
    /// Where only one triangle is read.
    pub triangle: Option<Triangle>,
}

/// What is fixed of one step's permutation.
#[derive(Clone, Debug, PartialEq)]
pub struct FixedPermutation {
    /// `y[i] = x[index[i]]`, or the same for P.
    pub index: Vec<usize>,
    /// Signs of U's diagonal; empty unless the permutation is an LU form.
    pub sign: Vec<f64>,
}

/// All tensors of a model.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Trained tensors, in the order of the flat buffer.
    pub parameters: Vec<Parameter>,
    len: usize,
}

impl Layout {
    fn add(&mut self, name: String, shape: &[usize]) -> Span {
        let span = Span { start: self.len, len: shape.iter().product() };
        self.len += span.len;
        self.parameters.push(Parameter { name, shape: shape.to_vec(), span, triangle: None });
        span
    }

    fn add_triangle(&mut self, name: String, channels: usize, triangle: Triangle) -> Span {
        let span = self.add(name, &[channels, channels]);
        if let Some(parameter) = self.parameters.last_mut() {
            parameter.triangle = Some(triangle);
        }
        span
    }

    fn add_actnorm(&mut self, name: &str, channels: usize) -> ActNormParams {
        ActNormParams {
            bias: self.add(format!("{name}.bias"), &[channels]),
            logs: self.add(format!("{name}.logs"), &[channels]),
        }
    }

    fn add_zero_conv(&mut self, name: &str, inputs: usize, outputs: usize) -> ZeroConvParams {
        ZeroConvParams {
            inputs,
            outputs,
            weight: self.add(format!("{name}.weight"), &[outputs, inputs + 1, 3, 3]),
            bias: self.add(format!("{name}.bias"), &[outputs]),
            logs: self.add(format!("{name}.logs"), &[outputs]),
        }
    }

    /// Elements of the flat buffer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the model has no parameters, which none has.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets to 0 what is stored of triangular matrices but never read.
    pub fn clear_unread<T: Copy + Default>(&self, weights: &mut [T]) {
        for parameter in &self.parameters {
            let Some(triangle) = parameter.triangle else { continue };
            let n = parameter.shape[0];
            for (i, row) in weights[parameter.span.range()].chunks_exact_mut(n).enumerate() {
                let unread = match triangle {
                    Triangle::Lower => i..n,
                    Triangle::Upper => 0..i + 1,
                };
                row[unread].fill(T::default());
            }
        }
    }
}

/// A layer, and what to call it in a report: the first part of its parameters' names.
pub type NamedLayer<D> = (String, Box<dyn Layer<D>>);

/// The name under which a step's tensors are stored.
pub fn step_name(level: usize, step: usize) -> String {
    format!("levels.{level}.steps.{step}")
}

/// Lays out a model and makes its layers. `permutations` holds one entry a step, levels in order.
pub fn build<D: Device>(
    config: &ModelConfig,
    permutations: &[FixedPermutation],
) -> (Layout, Vec<NamedLayer<D>>) {
    let ModelConfig::Glow(config) = config;
    let mut layout = Layout::default();
    let mut layers: Vec<NamedLayer<D>> = vec![];
    let mut push = |name: String, layer: Box<dyn Layer<D>>| layers.push((name, layer));
    let mut permutations = permutations.iter();
    for level in 0..config.levels {
        let channels = config.level_channels(level);
        push(format!("levels.{level}.squeeze"), Box::new(Squeeze));
        for (step, fixed) in (0..config.steps).zip(&mut permutations) {
            let name = step_name(level, step);
            let actnorm = layout.add_actnorm(&format!("{name}.actnorm"), channels);
            let index = fixed.index.clone();
            let permutation = match config.permutation {
                PermutationType::Conv1x1 => PermutationParams::Lu {
                    index,
                    sign: fixed.sign.clone(),
                    lower: layout.add_triangle(
                        format!("{name}.permutation.lower"),
                        channels,
                        Triangle::Lower,
                    ),
                    upper: layout.add_triangle(
                        format!("{name}.permutation.upper"),
                        channels,
                        Triangle::Upper,
                    ),
                    log_s: layout.add(format!("{name}.permutation.log_s"), &[channels]),
                },
                PermutationType::Shuffle | PermutationType::Reverse => PermutationParams::Fixed { index },
            };
            let params = ChannelMapParams { channels, actnorm, permutation };
            push(format!("{name}.actnorm and permutation"), Box::new(ActNormPermutation { params }));
            let kind = config.coupling.into();
            let network = network(&mut layout, config, &name, channels);
            push(format!("{name}.coupling"), Box::new(Coupling { kind, network }));
        }
        if level + 1 < config.levels {
            let name = format!("levels.{level}.prior");
            let prior = layout.add_zero_conv(&name, channels / 2, channels);
            push(name, Box::new(Split { prior }));
        } else {
            let prior = top_prior(&mut layout, config, channels);
            push("prior".into(), Box::new(Top { prior }));
        }
    }
    (layout, layers)
}

fn network(layout: &mut Layout, config: &GlowConfig, step: &str, channels: usize) -> NetworkParams {
    let (inputs, hidden) = (channels / 2, config.hidden);
    let kind: glowflow_kernels::CouplingKind = config.coupling.into();
    let name = format!("{step}.coupling");
    NetworkParams {
        inputs,
        hidden,
        conv1: layout.add(format!("{name}.conv1.weight"), &[hidden, inputs + 1, 3, 3]),
        actnorm1: layout.add_actnorm(&format!("{name}.actnorm1"), hidden),
        conv2: layout.add(format!("{name}.conv2.weight"), &[hidden, hidden, 1, 1]),
        actnorm2: layout.add_actnorm(&format!("{name}.actnorm2"), hidden),
        conv3: layout.add_zero_conv(&format!("{name}.conv3"), hidden, kind.network_outputs(channels)),
    }
}

fn top_prior(layout: &mut Layout, config: &GlowConfig, channels: usize) -> TopPriorParams {
    TopPriorParams {
        channels,
        mean: layout.add("prior.mean".into(), &[channels]),
        logs: layout.add("prior.logs".into(), &[channels]),
        class_weight: (config.classes > 0)
            .then(|| layout.add("prior.class_weight".into(), &[config.classes, 2 * channels])),
    }
}
