//! A model of any architecture, with its weights on a device.

use std::path::PathBuf;

use glowflow::card::Card;
use glowflow::model::MODEL;
use glowflow::params::{Constant, Parameter};
use glowflow::{Architecture, Decoded, Dequantization, Draws, ModelConfig, ModelFile, NoiseKind};
use numpy::{IntoPyArray, PyArray1, PyArray4, PyReadonlyArray1, PyReadonlyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::{compute, raised};
use crate::{arrays, devices};

type Images<'py> = PyReadonlyArray4<'py, u8>;
type Labels<'py> = Option<PyReadonlyArray1<'py, i64>>;
type Level<'py> = PyReadonlyArray4<'py, f32>;
/// Pixels, and whether all values of each image were finite.
type Pixels<'py> = (Bound<'py, PyArray4<u8>>, Vec<bool>);

/// Latents, and log-densities.
type Encoded<'py> = (Vec<Bound<'py, PyArray4<f32>>>, Bound<'py, PyArray1<f64>>);

/// Name, shape and elements of a tensor.
type Tensor<'py> = (String, Vec<usize>, Bound<'py, PyAny>);

#[pyclass(frozen, module = "glowflow._native")]
pub struct Model {
    model: glowflow::Model,
    file: ModelFile,
    device: String,
    notice: Option<String>,
}

impl Model {
    pub fn inner(&self) -> &glowflow::Model {
        &self.model
    }

    fn on(py: Python<'_>, file: ModelFile, device: &str, precision: &str) -> PyResult<Self> {
        let (choice, precision) = (devices::choice(device)?, devices::precision(precision)?);
        compute(py, move || {
            let (device, notice) = devices::open(choice, precision)?;
            let name = device.name();
            let model = glowflow::Model::of_file(device, &file);
            Ok(Self { model, file, device: name, notice })
        })
    }
}

#[pymethods]
impl Model {
    /// Creates a model; `config` is its configuration in JSON.
    #[new]
    fn new(py: Python<'_>, config: String, seed: u64, device: String, precision: String) -> PyResult<Self> {
        let config = parse(&config)?;
        let file = compute(py, move || ModelFile::new(config, seed))?;
        Self::on(py, file, &device, &precision)
    }

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, device: String, precision: String) -> PyResult<Self> {
        let file = compute(py, || ModelFile::read(&path))?;
        Self::on(py, file, &device, &precision)
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        compute(py, || self.file.write(&path))
    }

    /// Writes `model.safetensors` and its card to a folder that exists.
    fn save_pretrained(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        compute(py, || {
            self.file.write(&folder.join(MODEL))?;
            let (fingerprint, parameters) = (self.file.fingerprint(), self.model.parameters());
            Card::new(MODEL, self.file.config.clone(), fingerprint, parameters).write(&folder)
        })
    }

    /// The configuration in JSON.
    #[getter]
    fn config(&self) -> PyResult<String> {
        serde_json::to_string(self.model.config()).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[getter]
    fn architecture(&self) -> &'static str {
        self.model.config().architecture()
    }

    #[getter]
    fn latent_shapes(&self) -> Vec<(usize, usize, usize)> {
        self.model
            .latent_shapes()
            .iter()
            .map(|&[height, width, channels]| (height, width, channels))
            .collect()
    }

    #[getter]
    fn num_parameters(&self) -> usize {
        self.model.parameters()
    }

    #[getter]
    fn fingerprint(&self) -> u32 {
        self.model.fingerprint()
    }

    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    /// The reason why an existing GPU is not used, if any.
    #[getter]
    fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The noise of the bound that training minimises.
    #[getter]
    fn noise(&self) -> &'static str {
        Architecture::noise(self.model.config()).name()
    }

    /// Returns latents and log-densities. `given` is the noise if its kind is `given`.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        images: Images<'py>,
        labels: Labels<'py>,
        noise: String,
        seed: u64,
        given: Option<Level<'py>>,
    ) -> PyResult<Encoded<'py>> {
        let labels = arrays::labels(labels.as_ref())?;
        let dequantization = match (noise.as_str(), &given) {
            ("typical", None) => Dequantization::Typical,
            ("midpoint", None) => Dequantization::Midpoint,
            ("uniform", None) => Dequantization::Uniform { seed },
            ("variational", None) => Dequantization::Variational { seed },
            ("given", Some(noise)) => Dequantization::Given(noise.as_array()),
            (kind, _) => return Err(unknown_noise(kind)),
        };
        let pixels = images.as_array();
        let encoded = compute(py, || self.model.encode(pixels, &labels, dequantization))?;
        Ok((arrays::levels(py, encoded.latents), encoded.log_density.into_pyarray(py)))
    }

    fn decode<'py>(
        &self,
        py: Python<'py>,
        latents: Vec<Level<'py>>,
        labels: Labels<'py>,
    ) -> PyResult<Pixels<'py>> {
        let (latents, labels) = (arrays::latents(&latents), arrays::labels(labels.as_ref())?);
        let decoded = compute(py, || self.model.decode(&latents, &labels))?;
        Ok(pixels(py, decoded))
    }

    fn decode_continuous<'py>(
        &self,
        py: Python<'py>,
        latents: Vec<Level<'py>>,
        labels: Labels<'py>,
    ) -> PyResult<Bound<'py, PyArray4<f32>>> {
        let (latents, labels) = (arrays::latents(&latents), arrays::labels(labels.as_ref())?);
        let decoded = compute(py, || self.model.decode_continuous(&latents, &labels))?;
        Ok(decoded.into_pyarray(py))
    }

    /// Returns log-likelihoods in nats, or bits/dim.
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python, one each")]
    fn score<'py>(
        &self,
        py: Python<'py>,
        images: Images<'py>,
        labels: Labels<'py>,
        noise: String,
        seed: u64,
        draws: u64,
        importance: bool,
        bits_per_dim: bool,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let labels = arrays::labels(labels.as_ref())?;
        let draws = estimate(&noise, seed, draws, importance)?;
        let pixels = images.as_array();
        let scores = compute(py, || {
            if bits_per_dim {
                self.model.bits_per_dim(pixels, &labels, draws)
            } else {
                self.model.log_prob(pixels, &labels, draws)
            }
        })?;
        Ok(scores.into_pyarray(py))
    }

    fn sample<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        temperature: f64,
        labels: Labels<'py>,
        seed: u64,
    ) -> PyResult<Pixels<'py>> {
        let labels = arrays::labels(labels.as_ref())?;
        let decoded = compute(py, || self.model.sample(count, temperature, &labels, seed))?;
        Ok(pixels(py, decoded))
    }

    fn sample_latents<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        temperature: f64,
        seed: u64,
    ) -> PyResult<Vec<Bound<'py, PyArray4<f32>>>> {
        let latents = compute(py, || self.model.draw(count, temperature, seed))?;
        Ok(arrays::levels(py, latents))
    }

    fn inverse_error<'py>(&self, py: Python<'py>, images: Images<'py>, labels: Labels<'py>) -> PyResult<f64> {
        let labels = arrays::labels(labels.as_ref())?;
        let pixels = images.as_array();
        compute(py, || self.model.inverse_error(pixels, &labels))
    }

    /// Returns all tensors of the model's file.
    fn tensors<'py>(&self, py: Python<'py>) -> Vec<Tensor<'py>> {
        let (file, layout) = (&self.file, self.file.layout());
        let flat = |tensors: &[Parameter], values: &[f32]| -> Vec<Tensor<'py>> {
            let one = |tensor: &Parameter| {
                let values = PyArray1::from_slice(py, &values[tensor.span.range()]);
                (tensor.name.clone(), tensor.shape.clone(), values.into_any())
            };
            tensors.iter().map(one).collect()
        };
        let mut all = flat(&layout.parameters, &file.weights);
        all.extend(flat(&layout.buffers, &file.buffers));
        all.extend(layout.constants.iter().zip(&file.constants).map(|(at, constant)| {
            let values = match constant {
                Constant::Permutation(index) => {
                    index.iter().map(|&i| i as i64).collect::<Vec<_>>().into_pyarray(py).into_any()
                }
                Constant::Signs(signs) => {
                    signs.iter().map(|&sign| sign as f32).collect::<Vec<_>>().into_pyarray(py).into_any()
                }
            };
            (at.name.clone(), vec![at.len], values)
        }));
        all
    }
}

/// Checks a configuration in JSON, and returns it with every non-default key.
#[pyfunction]
pub fn check_config(config: String) -> PyResult<String> {
    let config = parse(&config)?;
    config.validate().map_err(raised)?;
    serde_json::to_string(&config).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn parse(config: &str) -> PyResult<ModelConfig> {
    serde_json::from_str(config)
        .map_err(|error| PyValueError::new_err(format!("the configuration is not valid: {error}")))
}

fn pixels(py: Python<'_>, decoded: Decoded) -> Pixels<'_> {
    (decoded.pixels.into_pyarray(py), decoded.finite)
}

/// The log-likelihood estimate selected by the arguments.
fn estimate(noise: &str, seed: u64, draws: u64, importance: bool) -> PyResult<Draws> {
    let noise = match noise {
        "midpoint" if importance => {
            return Err(PyValueError::new_err(
                "importance=True combines random draws, and the midpoint has none: leave it out, or use noise=\"uniform\"",
            ));
        }
        "midpoint" => return Ok(Draws::Midpoint),
        "uniform" => NoiseKind::Uniform,
        "variational" => NoiseKind::Variational,
        kind => return Err(unknown_noise(kind)),
    };
    Ok(if importance { Draws::Importance { noise, draws, seed } } else { Draws::mean(noise, draws, seed) })
}

fn unknown_noise(kind: &str) -> PyErr {
    PyValueError::new_err(format!(
        "unknown noise {kind:?}, expected midpoint, uniform or variational (encode also accepts typical or an array)"
    ))
}

/// Names of the bundled models.
#[pyfunction]
pub fn pretrained_names() -> Vec<&'static str> {
    glowflow::pretrained::names().to_vec()
}
