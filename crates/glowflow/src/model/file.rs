//! `model.safetensors`, the format that `docs/model.md` describes: the weights by name, and the architecture as the JSON object
//! `glow.config`.

use std::path::{Path, PathBuf};

use glowflow_kernels::Cpu;

use super::init::Initial;
use super::layout::{FixedPermutation, Layout, build, step_name};
use super::memory;
use crate::Error;
use crate::models::{ModelConfig, PermutationType};
use crate::tensor_file::{TensorData, TensorFile};

/// Name of the model in a run's folder.
pub const MODEL: &str = "model.safetensors";

/// The metadata entry that holds the architecture.
const CONFIG: &str = "glow.config";

/// A model outside any device: what a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFile {
    /// The architecture.
    pub config: ModelConfig,
    /// The fixed parts of the permutations, one a step, levels in order.
    pub permutations: Vec<FixedPermutation>,
    /// The trained parameters, flat.
    pub weights: Vec<f32>,
}

impl ModelFile {
    /// A new model that has seen no data.
    ///
    /// # Errors
    /// [`Error::Config`] if no such model can be built, or its weights exceed the available memory.
    pub fn new(config: impl Into<ModelConfig>, seed: u64) -> Result<Self, Error> {
        let config = config.into();
        config.validate()?;
        memory::check_weights(&config)?;
        let Initial { permutations, weights } = super::init::initial(&config, seed);
        Ok(Self { config, permutations, weights })
    }

    /// A number that tells models apart: a checksum of architecture, permutations and weights. Latents mean something to
    /// the model that made them, and to no other.
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(serde_json::to_string(&self.config).unwrap_or_default().as_bytes());
        for FixedPermutation { index, sign } in &self.permutations {
            index.iter().for_each(|&i| hasher.update(&(i as u64).to_le_bytes()));
            hasher.update(bytemuck::cast_slice(sign));
        }
        hasher.update(bytemuck::cast_slice(&self.weights));
        hasher.finalize()
    }

    /// Where each parameter lies in the flat buffer.
    pub fn layout(&self) -> Layout {
        build::<Cpu<f32>>(&self.config, &self.permutations).0
    }

    /// The model file that is meant: that in a run's folder, where `path` is one.
    pub fn path(path: &Path) -> PathBuf {
        if path.is_dir() { path.join(MODEL) } else { path.to_owned() }
    }

    /// Reads a model file, or the one in a run's folder. Tensors named `test.*` are left alone.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`], which names the tensor that is missing, superfluous, of another shape or not
    /// finite.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let folder = path;
        let path = &Self::path(path);
        if folder.is_dir() && !path.exists() {
            return Err(Error::file(
                folder,
                format!("the folder holds no {MODEL}: give a run's folder or a model file"),
            ));
        }
        let (mut file, complete) =
            TensorFile::read_with_checksum::<serde_json::Map<String, serde_json::Value>>(path, CONFIG)?;
        let invalid = |e| Error::file(path, format!("the metadata entry {CONFIG:?} cannot be read: {e}"));
        let config: ModelConfig = serde_json::from_value(complete.clone().into()).map_err(invalid)?;
        // A default would be a guess: likelihoods of 5 and of 8 bits are different things.
        if let serde_json::Value::Object(keys) = serde_json::to_value(&config).map_err(invalid)?
            && let Some(key) = keys.keys().find(|key| !complete.contains_key(*key))
        {
            return Err(Error::file(path, format!("the metadata entry {CONFIG:?} has no key {key:?}")));
        }
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        let permutations = take_permutations(&mut file, &config, path)?;
        let (layout, _) = build::<Cpu<f32>>(&config, &permutations);
        let weights = take_flat(&mut file, &layout, "", path)?;
        check_finite(&layout, &weights, path)?;
        if let Some(name) = file.tensors.keys().find(|name| !name.starts_with("test.")) {
            return Err(Error::file(
                path,
                format!("the tensor {name} has no place in a model of its configuration"),
            ));
        }
        Ok(Self { config, permutations, weights })
    }

    /// Writes a model file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut file = TensorFile::default();
        put_permutations(&mut file, &self.config, &self.permutations);
        put_flat(&mut file, &self.layout(), "", &self.weights);
        file.write_with_checksum(path, CONFIG, &self.config)
    }
}

/// Each step's name, channels and place in the list of permutations.
fn steps(config: &ModelConfig) -> impl Iterator<Item = (String, usize)> + '_ {
    let ModelConfig::Glow(config) = config;
    (0..config.levels).flat_map(move |level| {
        (0..config.steps).map(move |step| (step_name(level, step), config.level_channels(level)))
    })
}

/// Puts the fixed parts of the permutations into a file.
pub(crate) fn put_permutations(
    file: &mut TensorFile,
    config: &ModelConfig,
    permutations: &[FixedPermutation],
) {
    for ((step, channels), fixed) in steps(config).zip(permutations) {
        let index = TensorData::i64(&[channels], fixed.index.iter().map(|&i| i as i64));
        file.tensors.insert(format!("{step}.permutation.index"), index);
        if !fixed.sign.is_empty() {
            let sign: Vec<f32> = fixed.sign.iter().map(|&s| s as f32).collect();
            file.tensors.insert(format!("{step}.permutation.sign"), TensorData::f32(&[channels], &sign));
        }
    }
}

/// Takes them out again, checked.
pub(crate) fn take_permutations(
    file: &mut TensorFile,
    config: &ModelConfig,
    path: &Path,
) -> Result<Vec<FixedPermutation>, Error> {
    steps(config)
        .map(|(step, channels)| {
            let name = format!("{step}.permutation.index");
            let tensor = take(file, &name, &[channels], path)?;
            let index: Option<Vec<usize>> =
                tensor.to_i64().map(|index| index.iter().map(|&i| i as usize).collect());
            let mut seen = vec![false; channels];
            let index = index
                .filter(|index| index.iter().all(|&i| i < channels && !std::mem::replace(&mut seen[i], true)))
                .ok_or_else(|| {
                    Error::file(path, format!("{name} is not a permutation of {channels} channels"))
                })?;
            let mut sign = vec![];
            let ModelConfig::Glow(glow) = config;
            if glow.permutation == PermutationType::Conv1x1 {
                let name = format!("{step}.permutation.sign");
                sign = take(file, &name, &[channels], path)?
                    .to_f64()
                    .filter(|sign| sign.iter().all(|s| s.abs() == 1.0))
                    .ok_or_else(|| {
                        Error::file(path, format!("{name} holds something other than 1 and -1"))
                    })?;
            }
            Ok(FixedPermutation { index, sign })
        })
        .collect()
}

/// Puts a flat buffer into a file, a tensor for each parameter, under `prefix` and the parameter's name.
pub(crate) fn put_flat(file: &mut TensorFile, layout: &Layout, prefix: &str, values: &[f32]) {
    for parameter in &layout.parameters {
        let tensor = TensorData::f32(&parameter.shape, &values[parameter.span.range()]);
        file.tensors.insert(format!("{prefix}{}", parameter.name), tensor);
    }
}

/// Takes it out again.
pub(crate) fn take_flat(
    file: &mut TensorFile,
    layout: &Layout,
    prefix: &str,
    path: &Path,
) -> Result<Vec<f32>, Error> {
    // All tensors first, before there is memory for what they are said to hold.
    let tensors = layout
        .parameters
        .iter()
        .map(|parameter| {
            let name = format!("{prefix}{}", parameter.name);
            take(file, &name, &parameter.shape, path).map(|tensor| (name, tensor))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut values = vec![0.0; layout.len()];
    for (parameter, (name, tensor)) in layout.parameters.iter().zip(tensors) {
        let numbers = tensor
            .to_f64()
            .ok_or_else(|| Error::file(path, format!("{name} does not hold floating-point numbers")))?;
        values[parameter.span.range()].iter_mut().zip(numbers).for_each(|(to, x)| *to = x as f32);
    }
    layout.clear_unread(&mut values);
    Ok(values)
}

/// Checks that all weights are finite.
fn check_finite(layout: &Layout, weights: &[f32], path: &Path) -> Result<(), Error> {
    for parameter in &layout.parameters {
        if let Some(number) = weights[parameter.span.range()].iter().find(|weight| !weight.is_finite()) {
            return Err(Error::file(
                path,
                format!(
                    "{} holds {number}, and weights must be finite: the file is damaged, or the training diverged; take an \
                     earlier model",
                    parameter.name
                ),
            ));
        }
    }
    Ok(())
}

fn take(file: &mut TensorFile, name: &str, shape: &[usize], path: &Path) -> Result<TensorData, Error> {
    let tensor = file
        .tensors
        .remove(name)
        .ok_or_else(|| Error::file(path, format!("the tensor {name} is missing")))?;
    if tensor.shape != shape {
        let have = &tensor.shape;
        return Err(Error::file(
            path,
            format!("{name} has the shape {have:?}; the configuration wants {shape:?}"),
        ));
    }
    Ok(tensor)
}
