//! Fixtures from other programs, and models on a device in any precision.
#![allow(dead_code, reason = "each program uses its own part of this")]

pub mod changed;
pub mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use glowflow::flow::{Context, Mode, Tensor};
use glowflow::model::{Flow, largest};
use glowflow::{Architecture, Backprop};
use glowflow_import::{Checkpoint, Imported, Settings, Source, import};
use glowflow_kernels::{Direction, Grid, Noise, Operations, Real};
use safetensors::{Dtype, SafeTensors};

/// The folder of a checkpoint next to the checkout; `None`, with a message, if it is absent.
pub fn fixture(folder: &str) -> Option<PathBuf> {
    let path = Path::new("../../../shared/peer_checkpoints").join(folder);
    if !path.is_dir() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The checkpoints, with the files to read.
pub const FIXTURES: [(Source, &str, &[&str]); 4] = [
    (
        Source::Y0ast,
        "y0ast/affine_lu",
        &["glow_model_1.pth", "glow_model_1.legacy.pth", "glow_checkpoint_1.pt", "weights.safetensors"],
    ),
    (
        Source::Y0ast,
        "y0ast/additive_plain_ycond",
        &["glow_model_1.pth", "glow_model_1.legacy.pth", "glow_checkpoint_1.pt", "weights.safetensors"],
    ),
    (Source::Rosinality, "rosinality/affine_lu", &["model_000001.pt", "weights.safetensors"]),
    (Source::Openai, "openai/affine_learntop", &["variables.npz"]),
];

/// Settings of the fixtures of a program.
pub fn settings(source: Source) -> Settings {
    match source {
        Source::Rosinality => Settings { image: Some([16, 16]), bits: Some(5), ..Settings::default() },
        Source::Openai => Settings { image: Some([16, 16]), bits: Some(8), ..Settings::default() },
        _ => Settings::default(),
    }
}

pub fn imported(source: Source, path: &Path) -> Imported {
    import(Checkpoint::read(path).unwrap(), source, &settings(source)).unwrap()
}

/// An `.npy` array.
#[derive(Clone, Debug)]
pub struct Npy {
    pub shape: Vec<usize>,
    pub numbers: Vec<f64>,
}

impl Npy {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..end]).unwrap();
        let inside = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
        let shape = inside.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        let numbers = &bytes[end..];
        let numbers = match () {
            () if header.contains("'<f8'") => {
                numbers.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect()
            }
            () if header.contains("'<f4'") => {
                numbers.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x).into()).collect()
            }
            () if header.contains("'<i8'") => {
                numbers.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x) as f64).collect()
            }
            () if header.contains("'|u1'") => numbers.iter().map(|&x| x.into()).collect(),
            () => panic!("{header}"),
        };
        Self { shape, numbers }
    }

    pub fn pixels(&self) -> Vec<u8> {
        self.numbers.iter().map(|&x| x as u8).collect()
    }
}

/// A model on a device.
pub struct Run<'a, D: Operations> {
    device: &'a D,
    imported: &'a Imported,
    flow: Flow<D>,
    params: D::Buffer,
    buffers: D::Buffer,
}

/// Latents and log-likelihoods.
pub struct Coded {
    pub eps: Vec<Vec<f64>>,
    pub log_likelihood: Vec<f64>,
}

impl<'a, D: Operations> Run<'a, D> {
    pub fn new(device: &'a D, imported: &'a Imported) -> Self {
        let params: Vec<_> = imported.weights.iter().map(|&x| D::Real::of(x)).collect();
        Self {
            device,
            imported,
            flow: Flow::new(&imported.config, &imported.constants),
            params: device.upload(&params),
            buffers: device.zeros(0),
        }
    }

    fn cx(&self) -> Context<'_, D> {
        Context { device: self.device, params: &self.params, buffers: &self.buffers, mode: Mode::Eval }
    }

    fn upload(&self, numbers: &[f64]) -> D::Buffer {
        self.device.upload(&numbers.iter().map(|&x| D::Real::of(x)).collect::<Vec<_>>())
    }

    fn download(&self, buffer: &D::Buffer, len: usize) -> Vec<f64> {
        self.device.download(buffer).unwrap()[..len].iter().map(|x| x.wide()).collect()
    }

    /// Encodes images with this noise.
    pub fn encode(&self, pixels: &[u8], labels: &[f64], noise: &[f64]) -> Coded {
        let config = &self.imported.config;
        let noise: Vec<_> = noise.iter().map(|&x| D::Real::of(x)).collect();
        let mut v = self.device.scratch(pixels.len());
        self.device.dequantize(pixels, config.bits, Noise::Given(&noise), &mut v);
        let batch = pixels.len() / config.dimensions();
        let state = self.flow.enter(&self.cx(), batch, v, self.upload(labels));
        let state = self.flow.forward(&self.cx(), state, Backprop::Reversible).state;
        let log_density = self.download(&state.logp, batch);
        let eps = |eps: &Tensor<D>| self.download(&eps.data, eps.grid.rows() * eps.channels);
        Coded {
            eps: state.latents.iter().map(eps).collect(),
            log_likelihood: log_density.into_iter().map(|x| config.in_bin(x)).collect(),
        }
    }

    /// Continuous images from latents.
    pub fn decode(&self, eps: &[Vec<f64>], labels: &[f64]) -> Vec<f64> {
        let cx = self.cx();
        let batch = eps[0].len() / self.flow.latents()[0].shape.len();
        let mut state = self.flow.enter(&cx, batch, self.device.scratch(0), self.upload(labels));
        let levels = self.flow.latents().iter().zip(eps);
        state.latents = levels
            .map(|(latents, eps)| Tensor {
                grid: Grid { batch, height: latents.shape.height, width: latents.shape.width },
                channels: latents.shape.channels,
                data: self.upload(eps),
            })
            .collect();
        let layers = self.flow.prepare(&cx, Direction::Inverse);
        self.flow.decode(&cx, &layers, &mut state);
        self.download(&state.x.data, batch * self.imported.config.dimensions())
    }
}

/// The largest difference, relative to the larger of 1 and the reference.
pub fn error(have: &[f64], want: &[f64]) -> f64 {
    assert_eq!(have.len(), want.len());
    largest(have.iter().zip(want).map(|(h, w)| (h - w).abs() / w.abs().max(1.0)))
}

/// Tensors of a safetensors file of f32.
pub type State = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

pub fn state(path: &Path) -> State {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |view: &safetensors::tensor::TensorView| match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|x| f32::from_le_bytes(*x).into()).collect(),
        Dtype::U8 => view.data().iter().map(|&x| x.into()).collect(),
        other => panic!("{other:?}"),
    };
    tensors.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), numbers(&view)))).collect()
}
