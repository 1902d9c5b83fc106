//! Reads and writes this crate's safetensors files: named tensors and one JSON object.
//!
//! Files are replaced atomically and flushed to disk: a reader sees the old file or the new one, never a
//! part, even after a power failure. Equal contents give equal bytes. A checksum in a separate metadata entry
//! covers the whole content; it is not part of the JSON object because other programs reject unknown members.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::impostor::{HEAD, impostor};
use crate::{Error, pretrained};

/// Number of bytes that hold the length of the header.
const PREFIX: u64 = 8;
/// Maximum header length of the format, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// Key of the metadata entry with the checksum, 8 hexadecimal digits.
const CHECKSUM: &str = "glowflow.checksum";

/// A stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Decodes the numbers of a little-endian array.
fn decode<const N: usize, T: 'static>(
    bytes: &[u8],
    number: fn([u8; N]) -> T,
) -> impl Iterator<Item = T> + '_ {
    bytes.as_chunks::<N>().0.iter().map(move |chunk| number(*chunk))
}

impl TensorData {
    /// A tensor of `f32` numbers.
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// Rounds a tensor of `f32` numbers to bf16; other tensors are unchanged.
    fn rounded_to_bf16(self) -> Self {
        if self.dtype != Dtype::F32 {
            return self;
        }
        let rounded = decode(&self.bytes, f32::from_le_bytes).map(bf16::from_f32);
        Self { dtype: Dtype::BF16, bytes: rounded.flat_map(bf16::to_le_bytes).collect(), ..self }
    }

    /// A tensor of integers.
    pub fn i64(shape: &[usize], values: impl Iterator<Item = i64>) -> Self {
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes: values.flat_map(i64::to_le_bytes).collect() }
    }

    /// Values of a tensor of any floating-point type; `None` for other types.
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

    /// Values of a tensor of any integer type up to 64 bits; `None` for other types.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        let bytes = &self.bytes;
        Some(match self.dtype {
            Dtype::I64 => decode(bytes, i64::from_le_bytes).collect(),
            Dtype::I32 => decode(bytes, i32::from_le_bytes).map(i64::from).collect(),
            Dtype::U8 => bytes.iter().map(|&x| i64::from(x)).collect(),
            _ => return None,
        })
    }

    /// A tensor of bytes.
    pub fn u8(shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { dtype: Dtype::U8, shape: shape.to_vec(), bytes }
    }

    /// Bytes of the tensor; `None` for other types.
    pub fn to_u8(&self) -> Option<&[u8]> {
        (self.dtype == Dtype::U8).then_some(&self.bytes)
    }

    /// CRC-32 of the tensor's bytes.
    pub fn checksum(&self) -> u32 {
        crc32fast::hash(&self.bytes)
    }
}

/// A safetensors file in memory.
#[derive(Clone, Debug, Default)]
pub struct TensorFile {
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorData>,
    metadata: Entries,
}

impl TensorFile {
    /// Reads a file: first its header, which is checked against the file's length, then the tensors one by
    /// one.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::File`] if it is not a complete safetensors file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Opened::open(path)?.read(path)
    }

    /// Reads a file written by [`write_with_checksum`](Self::write_with_checksum), with the JSON object under
    /// `key`. A file without a checksum, such as one from another program, is accepted.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`header`](Self::header); [`Error::File`] if the checksum does not match.
    pub fn read_with_checksum<T: DeserializeOwned>(path: &Path, key: &str) -> Result<(Self, T), Error> {
        let opened = Opened::open(path)?;
        // Checked before any tensor is read.
        let header = opened.metadata.object(key, path)?;
        let file = opened.read(path)?;
        if file.metadata.0.get(CHECKSUM).is_some_and(|checksum| *checksum != file.checksum(&file.metadata)) {
            return Err(Error::file(
                path,
                format!(
                    "its checksum does not match, so the file is damaged: copy or download it again. If it was changed on \
                     purpose, remove the entry {CHECKSUM:?} from its metadata"
                ),
            ));
        }
        Ok((file, header))
    }

    /// Like [`read_with_checksum`](Self::read_with_checksum), for a file that was edited on purpose: its
    /// checksum is ignored.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`header`](Self::header).
    pub fn read_edited<T: DeserializeOwned>(path: &Path, key: &str) -> Result<(Self, T), Error> {
        let file = Self::read(path)?;
        let header = file.header(key, path)?;
        Ok((file, header))
    }

    /// Rounds all `f32` tensors of the file to bf16.
    pub fn rounded_to_bf16(self) -> Self {
        let tensors = self.tensors.into_iter().map(|(name, tensor)| (name, tensor.rounded_to_bf16()));
        Self { tensors: tensors.collect(), metadata: self.metadata }
    }

    /// CRC-32 over the other entries of `metadata`, and over name, type, shape and CRC-32 of every tensor.
    fn checksum(&self, metadata: &Entries) -> String {
        let mut hasher = crc32fast::Hasher::new();
        for (key, text) in metadata.0.iter().filter(|(key, _)| *key != CHECKSUM) {
            hasher.update(format!("{key}\0{text}\0").as_bytes());
        }
        for (name, tensor) in &self.tensors {
            hasher.update(format!("{name}\0{:?}\0{:?}\0", tensor.dtype, tensor.shape).as_bytes());
            hasher.update(&tensor.checksum().to_le_bytes());
        }
        format!("{:08x}", hasher.finalize())
    }

    /// Reads the JSON object under `key` in a file's metadata, without any tensor.
    ///
    /// # Errors
    /// As [`read`](Self::read) and [`header`](Self::header).
    pub fn read_header<T: DeserializeOwned>(path: &Path, key: &str) -> Result<T, Error> {
        Opened::open(path)?.metadata.object(key, path)
    }

    /// The JSON object under `key` in the file's metadata; `path` is for the error.
    ///
    /// # Errors
    /// [`Error::File`] if it is missing or malformed.
    pub fn header<T: DeserializeOwned>(&self, key: &str, path: &Path) -> Result<T, Error> {
        self.metadata.object(key, path)
    }

    /// Writes the file like [`write`](Self::write), with a checksum of the whole content in a separate
    /// metadata entry.
    ///
    /// # Errors
    /// [`Error::Io`] if the system fails; the previous content of `path` is then intact.
    pub fn write_with_checksum(&self, path: &Path, key: &str, header: &impl Serialize) -> Result<(), Error> {
        let mut metadata = Entries::of(key, header).map_err(|e| unwritable(path, &e))?;
        metadata.0.insert(CHECKSUM.into(), self.checksum(&metadata));
        self.write_entries(path, &metadata)
    }

    /// Writes the file with one JSON object in its metadata.
    ///
    /// # Errors
    /// [`Error::Io`] if the system fails; the previous content of `path` is then intact.
    pub fn write(&self, path: &Path, key: &str, header: &impl Serialize) -> Result<(), Error> {
        self.write_entries(path, &Entries::of(key, header).map_err(|e| unwritable(path, &e))?)
    }

    fn write_entries(&self, path: &Path, metadata: &Entries) -> Result<(), Error> {
        write_atomically(path, &self.to_bytes(metadata).map_err(|e| unwritable(path, &e))?)
    }

    /// Serialises these tensors with `metadata`. The library's own function writes several metadata entries
    /// in random order.
    fn to_bytes(&self, metadata: &Entries) -> serde_json::Result<Vec<u8>> {
        // In the library's order: by descending alignment, then by name.
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        tensors.sort_by_key(|&(name, tensor)| (Reverse(tensor.dtype), name));
        let mut header = format!("{{\"__metadata__\":{}", serde_json::to_string(&metadata.0)?);
        let mut end = 0;
        for (name, tensor) in &tensors {
            let data_offsets = (end, end + tensor.bytes.len());
            end = data_offsets.1;
            let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets };
            header += &format!(",{}:{}", serde_json::to_string(name)?, serde_json::to_string(&info)?);
        }
        header.push('}');
        let aligned = header.len().next_multiple_of(PREFIX as usize);
        let mut bytes = Vec::with_capacity(PREFIX as usize + aligned + end);
        bytes.extend((aligned as u64).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.resize(PREFIX as usize + aligned, b' ');
        tensors.iter().for_each(|(_, tensor)| bytes.extend(&tensor.bytes));
        Ok(bytes)
    }
}

/// A file on disk, or of a pretrained model.
trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

/// A file with a header that was read and matches its length.
struct Opened {
    file: Box<dyn Source>,
    /// Offset of the first tensor.
    start: u64,
    tensors: Metadata,
    metadata: Entries,
}

impl Opened {
    fn open(path: &Path) -> Result<Self, Error> {
        if let Some(bytes) = pretrained::bytes(path) {
            return Self::of(Box::new(Cursor::new(bytes)), bytes.len() as u64, path);
        }
        let found = std::fs::metadata(path).map_err(unread).map_err(Error::io(path))?;
        if !found.is_file() {
            // Opening a pipe would wait for its writer, and a device may be endless.
            let what = if found.is_dir() { "a folder" } else { "a pipe or a device" };
            return Err(Error::file(path, format!("is {what}, not a file")));
        }
        let file = File::open(path).map_err(unread).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        Self::of(Box::new(file), length, path)
    }

    fn of(mut file: Box<dyn Source>, length: u64, path: &Path) -> Result<Self, Error> {
        let mut head = vec![];
        file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(Error::io(path))?;
        let not_one = |reason: String| match impostor(&head) {
            Some(kind) => Error::file(path, format!("is {kind}")),
            None => Error::file(path, format!("not a safetensors file, or a damaged one: {reason}")),
        };

        let Some((size, _)) = head.split_first_chunk() else {
            return Err(not_one(format!("it has only {length} bytes")));
        };
        let size = u64::from_le_bytes(*size);
        if size > MAX_HEADER || PREFIX + size > length {
            return Err(not_one(format!("{length} bytes are too few for a header of {size} bytes")));
        }
        let mut header = vec![0; size as usize];
        file.seek(SeekFrom::Start(PREFIX))
            .and_then(|_| file.read_exact(&mut header))
            .map_err(Error::io(path))?;
        let tensors: Metadata = serde_json::from_slice(&header).map_err(|e| not_one(e.to_string()))?;

        let start = PREFIX + size;
        let expected = start + tensors.data_len() as u64;
        if length < expected {
            return Err(Error::file(
                path,
                format!("damaged: it has {length} of {expected} bytes; the copy or download was cut short"),
            ));
        }
        if length > expected {
            return Err(Error::file(
                path,
                format!(
                    "damaged: it has {length} bytes, {} more than its header describes",
                    length - expected
                ),
            ));
        }
        let metadata = Entries(tensors.metadata().clone().unwrap_or_default().into_iter().collect());
        Ok(Self { file, start, tensors, metadata })
    }

    fn read(mut self, path: &Path) -> Result<TensorFile, Error> {
        self.file.seek(SeekFrom::Start(self.start)).map_err(Error::io(path))?;
        let mut tensors = BTreeMap::new();
        for name in self.tensors.offset_keys() {
            let Some(info) = self.tensors.info(&name) else { continue };
            let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
            self.file.read_exact(&mut bytes).map_err(Error::io(path))?;
            tensors.insert(name, TensorData { dtype: info.dtype, shape: info.shape.clone(), bytes });
        }
        Ok(TensorFile { tensors, metadata: self.metadata })
    }
}

/// Metadata entries by key.
#[derive(Clone, Debug, Default)]
struct Entries(BTreeMap<String, String>);

impl Entries {
    /// Entries with one JSON object.
    fn of(key: &str, object: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self([(key.to_owned(), serde_json::to_string(object)?)].into()))
    }

    /// The JSON object under `key`; `path` is for the error.
    fn object<T: DeserializeOwned>(&self, key: &str, path: &Path) -> Result<T, Error> {
        serde_json::from_str(self.entry(key, path)?)
            .map_err(|e| Error::file(path, format!("the metadata entry {key:?} cannot be read: {e}")))
    }

    fn entry(&self, key: &str, path: &Path) -> Result<&str, Error> {
        self.0.get(key).map(String::as_str).ok_or_else(|| {
            let have: Vec<_> = self.0.keys().collect();
            Error::file(
                path,
                format!(
                    "its metadata has no entry {key:?}, only {have:?}. A model has \"glow.config\", a checkpoint \
                     \"glowflow.checkpoint\", latents \"glow.latents\", and attribute directions \"glow.directions\""
                ),
            )
        })
    }
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::file(path, format!("cannot be written: {error}"))
}

/// Replaces a file atomically, through a temporary file in the same folder that is flushed to disk first.
///
/// # Errors
/// [`Error::Io`] if the system fails; the previous content of `path` is then intact.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    glowflow_files::replace_for_good(path, bytes).map_err(Error::io(path))
}

/// Adds advice to the reason why a file cannot be read.
fn unread(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::NotFound => io::Error::new(error.kind(), format!("{error}; check its name")),
        _ => error,
    }
}
