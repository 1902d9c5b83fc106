//! State dictionaries in safetensors files.

use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use crate::array::{Array, Storage};
use crate::checkpoint::{Checkpoint, Tensors};
use crate::element::Element;

/// Bytes of the header's length field.
const PREFIX: usize = 8;

/// Maximum length of a header, as in the crate `safetensors`.
const MAX_HEADER: u64 = 100_000_000;

/// Returns whether a file of `len` bytes that begins with `head` may be in this format: a header of JSON that
/// ends within the file.
pub(crate) fn is_plausible(head: &[u8], len: u64) -> bool {
    let Some((prefix, header)) = head.split_first_chunk::<PREFIX>() else { return false };
    let longest = MAX_HEADER.min(len.saturating_sub(PREFIX as u64));
    u64::from_le_bytes(*prefix) <= longest && header.starts_with(b"{")
}

/// Reads a file.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
        format!("it is neither a PyTorch checkpoint, an .npz nor a safetensors file, or it is damaged ({e})")
    })?;
    let bytes = Arc::new(bytes);
    let mut tensors = Tensors::new();
    for (name, info) in metadata.tensors() {
        let element = element(info.dtype).ok_or_else(|| format!("{name} has the type {:?}", info.dtype))?;
        let (start, end) = info.data_offsets;
        let storage = Storage {
            element,
            bytes: bytes.clone(),
            start: PREFIX.saturating_add(header).saturating_add(start),
            len: end.saturating_sub(start) / element.size(),
        };
        let array =
            Array::whole(&storage, info.shape.clone()).map_err(|reason| format!("{name}: {reason}"))?;
        tensors.insert(name, array);
    }
    Ok(Checkpoint { tensors, ignored: vec![] })
}

fn element(dtype: Dtype) -> Option<Element> {
    Some(match dtype {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::BF16,
        Dtype::I64 => Element::I64,
        Dtype::I32 => Element::I32,
        Dtype::I16 => Element::I16,
        Dtype::I8 => Element::I8,
        Dtype::U8 => Element::U8,
        Dtype::BOOL => Element::Bool,
        _ => return None,
    })
}
