//! `model.safetensors`, in the format of `docs/model.md`: the weights by name, and the architecture as the
//! JSON object `glow.config`.

use std::path::{Path, PathBuf};

use glowflow_kernels::Cpu;

use super::memory;
use crate::flow::FlowBuilder;
use crate::models::{Architecture, ModelConfig};
use crate::params::{
    Constant, Layout, Parameter, Source, put_constants, put_flat, take_constants, take_flat,
};
use crate::tensor_file::TensorFile;
use crate::{Error, pretrained};

/// Name of the model in a run's folder.
pub const MODEL: &str = "model.safetensors";

/// The metadata entry with the architecture.
const CONFIG: &str = "glow.config";

/// A model outside any device: the content of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFile<A = ModelConfig> {
    /// The architecture.
    pub config: A,
    /// Tensors that are fixed at initialisation, such as permutations.
    pub constants: Vec<Constant>,
    /// The trained parameters, flat.
    pub weights: Vec<f32>,
    /// State that layers update in training mode, such as running statistics, flat.
    pub buffers: Vec<f32>,
}

impl ModelFile {
    /// A new, untrained model.
    ///
    /// # Errors
    /// [`Error::Config`] if no such model can be built, or its weights exceed the available memory.
    pub fn new(config: impl Into<ModelConfig>, seed: u64) -> Result<Self, Error> {
        Self::of(config.into(), seed)
    }

    /// Path of the model file: `path`, or the file in it if it is a run's folder.
    pub fn path(path: &Path) -> PathBuf {
        if pretrained::is_folder(path) { path.join(MODEL) } else { path.to_owned() }
    }

    /// Reads a model file, or the one in a run's folder. Tensors named `test.*` are ignored.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`], which names the tensor that is missing, superfluous, of the wrong
    /// shape or not finite.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_as(path)
    }
}

impl<A: Architecture> ModelFile<A> {
    /// A new, untrained model of any architecture.
    ///
    /// # Errors
    /// As [`new`](ModelFile::new).
    pub fn of(config: A, seed: u64) -> Result<Self, Error> {
        config.validate()?;
        memory::check_weights(&config)?;
        let builder = FlowBuilder::<Cpu<f32>>::build(&config, Source::Seed(seed));
        Ok(Self {
            constants: builder.params.constants().to_vec(),
            weights: builder.params.initial_parameters(),
            buffers: builder.params.initial_buffers().to_vec(),
            config,
        })
    }

    /// Identifies a model: a checksum of architecture, constants, parameters and buffers. Latents are only
    /// meaningful for the model that computed them.
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(serde_json::to_string(&self.config).unwrap_or_default().as_bytes());
        for constant in &self.constants {
            match constant {
                Constant::Permutation(index) => {
                    index.iter().for_each(|&i| hasher.update(&(i as u64).to_le_bytes()));
                }
                Constant::Signs(signs) => hasher.update(bytemuck::cast_slice(signs)),
            }
        }
        hasher.update(bytemuck::cast_slice(&self.weights));
        hasher.update(bytemuck::cast_slice(&self.buffers));
        hasher.finalize()
    }

    /// Names and spans of the tensors.
    pub fn layout(&self) -> Layout {
        layout(&self.config)
    }

    /// Like [`read`](ModelFile::read), for a model of any architecture.
    ///
    /// # Errors
    /// As [`read`](ModelFile::read).
    pub fn read_as(path: &Path) -> Result<Self, Error> {
        let folder = path;
        let path = &ModelFile::path(path);
        if folder.is_dir() && !path.exists() {
            let hides = if folder == Path::new(pretrained::PORTRAITS) {
                "; it hides the model of that name that is included in the program: run in another folder to use it"
            } else {
                ""
            };
            return Err(Error::file(
                folder,
                format!("the folder holds no {MODEL}: give a run folder or a model file{hides}"),
            ));
        }
        let (mut file, complete) =
            TensorFile::read_with_checksum::<serde_json::Map<String, serde_json::Value>>(path, CONFIG)?;
        let invalid = |e| Error::file(path, format!("the metadata entry {CONFIG:?} cannot be read: {e}"));
        let config: A = serde_json::from_value(complete.clone().into()).map_err(invalid)?;
        // A default would be a guess: likelihoods at 5 and at 8 bits are different quantities.
        if let serde_json::Value::Object(keys) = serde_json::to_value(&config).map_err(invalid)?
            && let Some(key) = keys.keys().find(|key| !complete.contains_key(*key))
        {
            return Err(Error::file(path, format!("the metadata entry {CONFIG:?} has no key {key:?}")));
        }
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        let layout = layout(&config);
        let constants = take_constants(&mut file, &layout, path)?;
        let mut weights = take_flat(&mut file, &layout.parameters, "", path)?;
        layout.clear_unread(&mut weights);
        let buffers = take_flat(&mut file, &layout.buffers, "", path)?;
        check_finite(&layout.parameters, &weights, path)?;
        check_finite(&layout.buffers, &buffers, path)?;
        check_directions(&layout, &weights, path)?;
        if let Some(name) = file.tensors.keys().find(|name| !name.starts_with("test.")) {
            return Err(Error::file(
                path,
                format!(
                    "unexpected tensor {name}: a model of the file's configuration has none of this name"
                ),
            ));
        }
        Ok(Self { config, constants, weights, buffers })
    }

    /// Writes a model file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        self.tensors().write_with_checksum(path, CONFIG, &self.config)
    }

    /// Like [`write`](Self::write), with weights rounded to bf16: half the file size, but a different model
    /// with other latents. It is equally invertible, because computations stay in f32.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_bf16(&self, path: &Path) -> Result<(), Error> {
        self.tensors().rounded_to_bf16().write_with_checksum(path, CONFIG, &self.config)
    }

    fn tensors(&self) -> TensorFile {
        let mut file = TensorFile::default();
        let layout = self.layout();
        put_constants(&mut file, &layout, &self.constants);
        put_flat(&mut file, &layout.parameters, "", &self.weights);
        put_flat(&mut file, &layout.buffers, "", &self.buffers);
        file
    }
}

/// Checks that all weights are finite.
fn check_finite(tensors: &[Parameter], weights: &[f32], path: &Path) -> Result<(), Error> {
    for parameter in tensors {
        if let Some(number) = weights[parameter.span.range()].iter().find(|weight| !weight.is_finite()) {
            return Err(Error::file(
                path,
                format!(
                    "{} holds {number}, but weights must be finite: the file is damaged, or the training diverged; use an \
                     earlier model",
                    parameter.name
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that rows to be normalised are not 0.
fn check_directions(layout: &Layout, weights: &[f32], path: &Path) -> Result<(), Error> {
    for &at in &layout.directions {
        let parameter = &layout.parameters[at];
        let row = parameter.span.len / parameter.shape[0].max(1);
        let rows = weights[parameter.span.range()].chunks(row.max(1));
        if let Some(j) = rows.enumerate().find_map(|(j, row)| row.iter().all(|&w| w == 0.0).then_some(j)) {
            return Err(Error::file(
                path,
                format!("row {j} of {} is 0, so it has no direction: the file is damaged", parameter.name),
            ));
        }
    }
    Ok(())
}

/// Names and spans of a model's tensors.
pub(crate) fn layout(config: &impl Architecture) -> Layout {
    FlowBuilder::<Cpu<f32>>::build(config, Source::Layout).params.into_layout()
}
