//! The format of PyTorch ≥ 1.6: a zip archive with a pickle, `NAME/data.pkl`, and a file `NAME/data/KEY` for
//! each storage.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use zip::ZipArchive;

use crate::array::Storage;
use crate::checkpoint::Checkpoint;
use crate::pickle::{self, Objects};
use crate::state_dict;

/// Maximum ratio of unpacked size to file size.
const MAX_RATIO: u64 = 64;

/// Returns whether `bytes` begin like a zip archive.
pub(crate) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// An archive in memory, of bounded unpacked size.
pub(crate) struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    /// Names of the entries.
    pub names: Vec<String>,
    /// Bytes that may still be unpacked.
    left: u64,
}

impl Archive {
    pub fn open(bytes: Vec<u8>) -> Result<Self, String> {
        let left = (bytes.len() as u64).saturating_mul(MAX_RATIO);
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| format!("the zip archive is damaged ({e}); copy or download it again"))?;
        let names = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        Ok(Self { zip, names, left })
    }

    /// Returns whether an entry's name has this suffix.
    pub fn has_suffix(&self, suffix: &str) -> bool {
        self.names.iter().any(|name| name.ends_with(suffix))
    }

    /// The contents of an entry; `None` if no entry has this name.
    pub fn entry(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(index) = self.zip.index_for_name(name) else { return Ok(None) };
        let mut file = self.zip.by_index(index).map_err(|e| format!("{name} cannot be unpacked: {e}"))?;
        if file.size() > self.left {
            return Err(format!("its contents are more than {MAX_RATIO} times as large as the file"));
        }
        let mut contents = vec![];
        let read = file.by_ref().take(self.left).read_to_end(&mut contents);
        read.map_err(|e| format!("{name} cannot be unpacked: {e}"))?;
        if contents.len() as u64 != file.size() {
            return Err(format!(
                "{name} has {} bytes, but its header declares {}",
                contents.len(),
                file.size()
            ));
        }
        self.left -= contents.len() as u64;
        Ok(Some(contents))
    }
}

/// Reads a checkpoint.
pub(crate) fn read(mut archive: Archive) -> Result<Checkpoint, String> {
    let pickle = archive.names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or("a zip archive without data.pkl is neither a checkpoint nor an .npz")?.clone();
    let root = pickle[..pickle.len() - "data.pkl".len()].to_owned();
    if let Some(order) = archive.entry(&format!("{root}byteorder"))?
        && order != b"little"
    {
        return Err(format!(
            "its byte order is {:?}, but little endian is required",
            String::from_utf8_lossy(&order[..order.len().min(16)])
        ));
    }
    if archive.names.contains(&format!("{root}constants.pkl")) {
        return Err("it is a TorchScript program: save `model.state_dict()`".into());
    }
    let contents = archive.entry(&pickle)?.unwrap_or_default();
    let mut objects = Objects::default();
    let (value, _) = pickle::load(&contents, &mut objects)?;
    let mut unpacked: HashMap<String, Arc<Vec<u8>>> = HashMap::new();
    let mut storages = vec![];
    for storage in &objects.storages {
        if !unpacked.contains_key(&storage.key) {
            let name = format!("{root}data/{}", storage.key);
            let bytes = archive.entry(&name)?.ok_or_else(|| format!("the archive has no entry {name}"))?;
            unpacked.insert(storage.key.clone(), Arc::new(bytes));
        }
        storages.push(unpacked.get(&storage.key).map(|bytes| Storage {
            element: storage.element,
            bytes: bytes.clone(),
            start: storage.first.saturating_mul(storage.element.size()),
            len: storage.len,
        }));
    }
    state_dict::checkpoint(&objects, value, &storages)
}
