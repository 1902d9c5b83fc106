//! Assembles the parts of a Glow into a model.

use std::collections::HashMap;

use glowflow::flow::FlowBuilder;
use glowflow::params::{Constant, ConstantType, Layout, Source};
use glowflow::{Architecture, CouplingType, Cpu, GlowConfig, ModelFile, PermutationType, PriorType};

use crate::Error;
use crate::matrix;
use crate::parts::{Conv, FinalPrior, Level, Network, Norm, Parts, Permutation, Step, TAPS};

/// An imported model, in double precision.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The architecture.
    pub config: GlowConfig,
    /// Permutations and signs.
    pub constants: Vec<Constant>,
    /// The parameters, flat, in the order of [`layout`](Self::layout).
    pub weights: Vec<f64>,
    /// Tensors and other content of the file that the model does not need.
    pub unused: Vec<String>,
    /// Remarks on the import for the user.
    pub notes: Vec<String>,
}

impl Imported {
    /// Names and spans of the parameters.
    pub fn layout(&self) -> Layout {
        layout(&self.config)
    }

    /// Converts to a model in single precision.
    ///
    /// # Errors
    /// [`Error::Model`] if a number exceeds single precision.
    pub fn model(&self) -> Result<ModelFile, Error> {
        let weights: Vec<f32> = self.weights.iter().map(|&x| x as f32).collect();
        if let Some(at) = weights.iter().position(|x| !x.is_finite()) {
            let layout = self.layout();
            let name = layout.parameters.iter().find(|parameter| parameter.span.range().contains(&at));
            let name = name.map_or("a tensor", |parameter| &parameter.name);
            return Err(Error::model(format!(
                "{name} is {}, which exceeds single precision",
                self.weights[at]
            )));
        }
        let constants = self.constants.clone();
        Ok(ModelFile { config: self.config.clone().into(), constants, weights, buffers: vec![] })
    }

    pub(crate) fn assemble(parts: Parts, unused: Vec<String>, notes: Vec<String>) -> Result<Self, Error> {
        let config = config(&parts)?;
        let mut tensors = Named::default();
        let Parts { levels, top, .. } = parts;
        for (l, Level { steps, prior }) in levels.into_iter().enumerate() {
            for (k, step) in steps.into_iter().enumerate() {
                tensors.step(&format!("levels.{l}.steps.{k}"), step)?;
            }
            if let Some(prior) = prior {
                tensors.zero_conv(&format!("levels.{l}.prior"), prior);
            }
        }
        tensors.top(top);
        let layout = layout(&config);
        // The lengths are compared first: the layout of a damaged file may be much larger than its tensors.
        for parameter in &layout.parameters {
            let have = tensors.parameters.get(&parameter.name).map_or(0, Vec::len);
            if have != parameter.span.len {
                let (name, want) = (&parameter.name, &parameter.shape);
                return Err(Error::model(format!(
                    "{name} would have {have} numbers, but the model has {want:?}"
                )));
            }
        }
        let mut weights = vec![0.0; layout.len()];
        for parameter in &layout.parameters {
            if let Some(have) = tensors.parameters.remove(&parameter.name) {
                weights[parameter.span.range()].copy_from_slice(&have);
            }
        }
        layout.clear_unread(&mut weights);
        let constants = layout.constants.iter().map(|constant| match constant.kind {
            ConstantType::Permutation => {
                tensors.permutations.remove(&constant.name).map(Constant::Permutation)
            }
            ConstantType::Signs => tensors.signs.remove(&constant.name).map(Constant::Signs),
        });
        let constants = constants.collect::<Option<Vec<_>>>().ok_or_else(|| {
            Error::model(
                "some steps have a 1×1 convolution and others a permutation; glowflow has no such model",
            )
        })?;
        Ok(Self { config, constants, weights, unused, notes })
    }
}

fn layout(config: &GlowConfig) -> Layout {
    FlowBuilder::<Cpu<f32>>::build(config, Source::Layout).params.into_layout()
}

/// The architecture of the parts; fails if their sizes disagree.
fn config(parts: &Parts) -> Result<GlowConfig, Error> {
    let first = parts.levels.first().and_then(|level| level.steps.first());
    let first = first.ok_or_else(|| Error::model("the model has no step of flow"))?;
    let (channels, hidden) = (first.actnorm.bias.len(), first.network.norm1.bias.len());
    if channels == 0 || !channels.is_multiple_of(4) {
        return Err(Error::model(format!("{channels} channels after a squeeze are not divisible by 4")));
    }
    let steps = parts.levels[0].steps.len();
    let outputs = |step: &Step| step.network.conv3.outputs;
    let coupling = match outputs(first) {
        n if n == channels => CouplingType::Affine,
        n if n == channels / 2 => CouplingType::Additive,
        n => {
            return Err(Error::model(format!(
                "a network of {n} outputs for {channels} channels is not a coupling"
            )));
        }
    };
    for (l, level) in parts.levels.iter().enumerate() {
        if level.steps.len() != steps {
            let have = level.steps.len();
            return Err(Error::model(format!("level {l} has {have} steps, but level 0 has {steps}")));
        }
    }
    let all = || parts.levels.iter().flat_map(|level| &level.steps);
    let permutation = if all().any(|step| !matches!(step.permutation, Permutation::Index(_))) {
        PermutationType::Conv1x1
    } else if all().all(|step| is_reverse(&step.permutation)) {
        PermutationType::Reverse
    } else {
        PermutationType::Shuffle
    };
    let classes = parts.top.class_weight.as_ref().map_or(0, |rows| rows.len() / parts.top.base.len().max(1));
    let config = GlowConfig {
        image: [parts.image[0], parts.image[1], channels / 4],
        bits: parts.bits,
        levels: parts.levels.len(),
        steps,
        hidden,
        coupling,
        permutation,
        prior: if parts.top.edge.is_some() { PriorType::Edge } else { PriorType::Channel },
        classes,
        ..GlowConfig::default()
    };
    config.validate()?;
    Ok(config)
}

fn is_reverse(permutation: &Permutation) -> bool {
    matches!(permutation, Permutation::Index(index) if index.iter().rev().copied().eq(0..index.len()))
}

/// Tensors under glowflow's names.
#[derive(Default)]
struct Named {
    parameters: HashMap<String, Vec<f64>>,
    permutations: HashMap<String, Vec<usize>>,
    signs: HashMap<String, Vec<f64>>,
}

impl Named {
    fn put(&mut self, name: String, numbers: Vec<f64>) {
        self.parameters.insert(name, numbers);
    }

    fn norm(&mut self, name: &str, norm: Norm) {
        self.put(format!("{name}.bias"), norm.bias);
        self.put(format!("{name}.logs"), norm.logs);
    }

    fn zero_conv(&mut self, name: &str, conv: Conv) {
        self.put(format!("{name}.weight"), conv.with_edge());
        self.put(format!("{name}.bias"), conv.bias);
        self.put(format!("{name}.logs"), conv.logs);
    }

    fn step(&mut self, name: &str, step: Step) -> Result<(), Error> {
        let Step { actnorm, signs, permutation, network } = step;
        let channels = actnorm.bias.len();
        self.norm(&format!("{name}.actnorm"), actnorm);
        let at = format!("{name}.permutation");
        let lu = match permutation {
            Permutation::Index(_) if signs.is_some() => {
                return Err(Error::model(format!(
                    "{name}: an actnorm with negative scales needs a 1×1 convolution, but the step has none"
                )));
            }
            Permutation::Index(index) => {
                self.permutations.insert(format!("{at}.index"), index);
                None
            }
            Permutation::Matrix(matrix) => Some(matrix::lu(&at, &matrix, channels)?),
            Permutation::Lu(lu) => Some(lu),
        };
        if let Some(mut lu) = lu {
            if let Some(signs) = signs {
                lu.flip_columns(&signs);
            }
            self.permutations.insert(format!("{at}.index"), lu.index);
            self.signs.insert(format!("{at}.sign"), lu.sign);
            self.put(format!("{at}.lower"), lu.lower);
            self.put(format!("{at}.upper"), lu.upper);
            self.put(format!("{at}.log_s"), lu.log_s);
        }
        let Network { conv1, conv2, norm1, norm2, conv3 } = network;
        let at = format!("{name}.coupling");
        self.put(format!("{at}.conv1.weight"), conv1.with_edge());
        self.norm(&format!("{at}.actnorm1"), norm1);
        self.put(format!("{at}.conv2.weight"), conv2);
        self.norm(&format!("{at}.actnorm2"), norm2);
        self.zero_conv(&format!("{at}.conv3"), conv3);
        Ok(())
    }

    fn top(&mut self, top: FinalPrior) {
        let FinalPrior { base, edge, class_weight } = top;
        let (mean, logs) = base.split_at(base.len() / 2);
        self.put("prior.mean".into(), mean.to_vec());
        self.put("prior.logs".into(), logs.to_vec());
        if let Some(mut edge) = edge {
            // The centre of the window is never outside the image.
            edge.chunks_exact_mut(TAPS).for_each(|taps| taps[4] = 0.0);
            self.put("prior.edge".into(), edge);
        }
        if let Some(rows) = class_weight {
            self.put("prior.class_weight".into(), rows);
        }
    }
}
