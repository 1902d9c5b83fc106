//! NumPy's `.npz`, a zip archive of `.npy` arrays: the tensors of a state dictionary or the variables of a
//! TensorFlow checkpoint.
//!
//! An `.npy` array consists of `\x93NUMPY`, two bytes of version, the length of the header (u16, u32 since
//! version 2), the header, which is a Python dictionary with the keys `descr`, `fortran_order` and `shape`,
//! and the elements.

use std::sync::Arc;

use crate::array::{Array, Storage};
use crate::checkpoint::{Checkpoint, Tensors};
use crate::element::Element;
use crate::zip_format::Archive;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads all arrays.
pub(crate) fn read(mut archive: Archive) -> Result<Checkpoint, String> {
    let mut tensors = Tensors::new();
    let mut ignored = vec![];
    for entry in archive.names.clone() {
        let Some(name) = entry.strip_suffix(".npy") else {
            ignored.push(entry);
            continue;
        };
        let contents = archive.entry(&entry)?.unwrap_or_default();
        let array = array(contents).map_err(|reason| format!("{name}: {reason}"))?;
        // Suffix of TensorFlow's variable names.
        tensors.insert(name.strip_suffix(":0").unwrap_or(name).to_owned(), array);
    }
    Ok(Checkpoint { tensors, ignored })
}

/// Parses an `.npy` array.
fn array(bytes: Vec<u8>) -> Result<Array, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is not an .npy array")?;
    let cut = "the header is cut short";
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(cut)?;
    let (len, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_le_bytes(*len)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len) as usize, rest)),
        version => return Err(format!("version {version} of the format is not supported")),
    }
    .ok_or(cut)?;
    let (header, numbers) = rest.split_at_checked(len).ok_or(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text")?;
    let description = text(header, "descr").ok_or("the header has no type")?;
    let element = element(description).ok_or_else(|| format!("the type {description} is not supported"))?;
    let fortran = match value(header, "fortran_order") {
        Some(order) if order.starts_with("True") => true,
        Some(order) if order.starts_with("False") => false,
        _ => return Err("the header has no order".into()),
    };
    let shape = shape(header).ok_or("the header has no shape")?;
    let count = shape.iter().try_fold(1_usize, |count, &len| count.checked_mul(len));
    let len = numbers.len() / element.size();
    if count != Some(len) || !numbers.len().is_multiple_of(element.size()) {
        return Err(format!("the shape {shape:?} does not fit {} bytes", numbers.len()));
    }
    let start = bytes.len() - numbers.len();
    let storage = Storage { element, bytes: Arc::new(bytes), start, len };
    if fortran { Array::whole_fortran(&storage, shape) } else { Array::whole(&storage, shape) }
}

/// The text after a key of the header and its colon.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let after = ['\'', '"'].iter().find_map(|quote| header.split_once(&format!("{quote}{key}{quote}")))?.1;
    Some(after.trim_start().strip_prefix(':')?.trim_start())
}

fn text<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let value = value(header, key)?;
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    value[1..].split_once(quote).map(|(text, _)| text)
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let inside = value(header, "shape")?.strip_prefix('(')?.split_once(')')?.0;
    let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes.map(|size| size.strip_suffix('L').unwrap_or(size).parse().ok()).collect()
}

fn element(description: &str) -> Option<Element> {
    Some(match description {
        "<f8" => Element::F64,
        "<f4" => Element::F32,
        "<f2" => Element::F16,
        "<i8" => Element::I64,
        "<i4" => Element::I32,
        "<i2" => Element::I16,
        "|i1" => Element::I8,
        "|u1" => Element::U8,
        "|b1" => Element::Bool,
        _ => return None,
    })
}
