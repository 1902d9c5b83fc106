//! Reads the named tensors of a file in any supported format.
//!
//! | format | detected by |
//! | --- | --- |
//! | PyTorch ≥ 1.6, a zip archive | an entry `data.pkl` |
//! | NumPy's `.npz`, a zip archive | entries `*.npy` |
//! | PyTorch < 1.6, pickles and raw numbers | the first opcode of a pickle |
//! | safetensors | any other content |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::array::Array;
use crate::zip_format::{self, is_zip};
use crate::{Error, legacy_format, npz, safetensors_format};

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Array>;

/// Maximum average number of tensors that share an element of the file. Tied weights share elements; a small
/// file that claims to be a large model shares them thousands of times.
const MAX_SHARING: usize = 4;

/// Bytes by which a format is detected.
const HEAD: u64 = 16;

/// The tensors of a state dictionary.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Tensors by name. The prefix `module.` of `DataParallel` is removed if all names have it.
    pub tensors: BTreeMap<String, Array>,
    /// Parts of the file outside the model, such as the state of an optimiser.
    pub ignored: Vec<String>,
}

impl Checkpoint {
    /// Reads a file. Its format is detected by content.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] if the format is unknown, or the file is damaged or refers to
    /// anything but tensors and plain data.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |reason| Error::Io { path: path.to_owned(), reason };
        let found = std::fs::metadata(path).map_err(io)?;
        if !found.is_file() {
            let what = if found.is_dir() { "a folder" } else { "a pipe or a device" };
            return Err(Error::File { path: path.to_owned(), reason: format!("is {what}, not a file") });
        }
        let mut bytes = vec![];
        let mut file = File::open(path).map_err(io)?;
        file.by_ref().take(HEAD).read_to_end(&mut bytes).map_err(io)?;
        // A file of an unknown format, however long, is rejected by its head.
        if is_zip(&bytes) || is_pickle(&bytes) || safetensors_format::is_plausible(&bytes, found.len()) {
            file.read_to_end(&mut bytes).map_err(io)?;
        }
        Self::of_bytes(bytes).map_err(|mut reason| {
            if path.file_name().is_some_and(|name| name.to_string_lossy().contains(".ckpt")) {
                reason +=
                    "; a TensorFlow checkpoint has to be saved as .npz first (docs/coming-from-pytorch.md)";
            }
            Error::File { path: path.to_owned(), reason }
        })
    }

    /// Reads the tensors of a file's contents; the error states the problem.
    fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        let length = bytes.len();
        let mut checkpoint = if is_zip(&bytes) {
            let archive = zip_format::Archive::open(bytes)?;
            let is_npz = archive.has_suffix(".npy") && !archive.has_suffix("data.pkl");
            if is_npz { npz::read(archive) } else { zip_format::read(archive) }
        } else if is_pickle(&bytes) {
            legacy_format::read(bytes)
        } else {
            safetensors_format::read(bytes)
        }?;
        if checkpoint.tensors.is_empty() {
            return Err("it holds no tensors".into());
        }
        let numbers =
            checkpoint.tensors.values().fold(0_usize, |sum, tensor| sum.saturating_add(tensor.len()));
        if numbers > MAX_SHARING.saturating_mul(length) {
            return Err(format!("its tensors hold {numbers} numbers, but the file has only {length} bytes"));
        }
        checkpoint.remove_prefix("module.");
        Ok(checkpoint)
    }

    fn remove_prefix(&mut self, prefix: &str) {
        if self.tensors.keys().all(|name| name.starts_with(prefix)) {
            let tensors = std::mem::take(&mut self.tensors);
            self.tensors =
                tensors.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
        }
    }
}

/// Returns whether `head` begins like a pickle: the opcode `PROTO` and a protocol.
fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 0..16, ..])
}
