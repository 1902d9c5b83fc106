//! Safetensors files as this crate uses them: named tensors and one JSON object.
//!
//! Files are replaced as a whole and flushed to the disk: whoever looks sees the old file or the new one, never a part, even
//! after a loss of power. Equal contents give equal bytes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;

use glowflow_report::file;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// One tensor, as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Numbers of a little-endian array.
fn decode<const N: usize, T: 'static>(
    bytes: &[u8],
    number: fn([u8; N]) -> T,
) -> impl Iterator<Item = T> + '_ {
    bytes.as_chunks::<N>().0.iter().map(move |chunk| number(*chunk))
}

impl TensorData {
    /// A tensor of single-precision numbers.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// A tensor of integers.
    pub fn i64(shape: &[usize], values: impl Iterator<Item = i64>) -> Self {
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes: values.flat_map(i64::to_le_bytes).collect() }
    }

    /// Its numbers, from any floating-point type; `None` where it holds something else.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        let bytes = &self.bytes;
        Some(match self.dtype {
            Dtype::F64 => decode(bytes, f64::from_le_bytes).collect(),
            Dtype::F32 => decode(bytes, f32::from_le_bytes).map(f64::from).collect(),
            Dtype::F16 => decode(bytes, f16::from_le_bytes).map(f64::from).collect(),
            Dtype::BF16 => decode(bytes, bf16::from_le_bytes).map(f64::from).collect(),
            _ => return None,
        })
    }

    /// Its numbers, from any integer type of at most 64 bits; `None` where it holds something else.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let bytes = &self.bytes;
        Some(match self.dtype {
            Dtype::I64 => decode(bytes, i64::from_le_bytes).collect(),
            Dtype::I32 => decode(bytes, i32::from_le_bytes).map(i64::from).collect(),
            Dtype::U8 => bytes.iter().map(|&x| i64::from(x)).collect(),
            _ => return None,
        })
    }

    /// CRC-32 of its bytes.
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&self.bytes)
    }
}

/// A safetensors file in memory.
#[derive(Clone, Debug, Default)]
pub struct TensorFile {
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorData>,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::File`] where it is no safetensors file or not all of one.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(unread).map_err(Error::io(path))?;
        let damaged = |e: safetensors::SafeTensorError| {
            Error::file(path, format!("not a safetensors file, or a damaged one: {e}"))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let tensors = file.iter().map(|(name, view)| {
            let data =
                TensorData { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            (name.to_owned(), data)
        });
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { tensors: tensors.collect(), metadata })
    }

    /// The JSON object under `key` in the file's metadata; `path` is for the error.
    ///
    /// # Errors
    /// [`Error::File`] where it is missing or of another form.
    pub fn header<T: DeserializeOwned>(&self, key: &str, path: &Path) -> Result<T, Error> {
        let text = self.metadata.get(key).ok_or_else(|| {
            let have: Vec<_> = self.metadata.keys().collect();
            Error::file(
                path,
                format!(
                    "its metadata has no entry {key:?} but {have:?}. A model has \"glow.config\", a checkpoint, which \
                     --resume takes, \"glowflow.checkpoint\", latents \"glow.latents\", and attributes' directions \
                     \"glow.directions\""
                ),
            )
        })?;
        serde_json::from_str(text)
            .map_err(|e| Error::file(path, format!("the metadata entry {key:?} cannot be read: {e}")))
    }

    /// Writes the file with one JSON object in its metadata. One, because the format keeps several in no order.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses; whatever was at `path` is then still there.
    pub fn write(&self, path: &Path, key: &str, header: &impl Serialize) -> Result<(), Error> {
        let invalid = |e: &dyn std::fmt::Display| Error::file(path, format!("cannot be written: {e}"));
        let text = serde_json::to_string(header).map_err(|e| invalid(&e))?;
        let views = self
            .tensors
            .iter()
            .map(|(name, t)| Ok((name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| invalid(&e))?;
        let metadata = [(key.to_owned(), text)].into();
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| invalid(&e))?;
        write_atomically(path, &bytes)
    }
}

/// Replaces a file, by way of one in the same folder that is flushed to the disk first.
///
/// # Errors
/// [`Error::Io`] where the system refuses; whatever was at `path` is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file::replace_for_good(path, bytes).map_err(Error::io(path))
}

/// Why a file cannot be read, and the way out.
fn unread(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::NotFound => io::Error::new(error.kind(), format!("{error}; check its name")),
        _ => error,
    }
}
