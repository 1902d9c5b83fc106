//! Recognises, by their first bytes, files that are commonly mistaken for safetensors files.

/// Number of bytes that [`impostor`] inspects.
pub(crate) const HEAD: usize = 512;

/// File types and their first bytes.
const KINDS: [(&[u8], &str); 14] = [
    (
        b"PK\x03\x04",
        "a zip archive, such as a PyTorch or NumPy file (.pt, .pth, .npz), not a safetensors file",
    ),
    (b"\x80\x02", "a Python pickle, such as an old PyTorch file, not a safetensors file"),
    (b"\x80\x03", "a Python pickle, not a safetensors file"),
    (b"\x80\x04", "a Python pickle, not a safetensors file"),
    (b"\x80\x05", "a Python pickle, not a safetensors file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes, not a safetensors file"),
    (b"\x93NUMPY", "a NumPy array, not a safetensors file"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"\x89PNG\r\n\x1a\n", "a picture (PNG), not a safetensors file"),
    (b"\xff\xd8\xff", "a picture (JPEG), not a safetensors file"),
    (b"GGUF", "a GGUF file, not a safetensors file"),
];

/// Describes a file that begins with `head` and is not a safetensors file; `None` if it is not recognised.
pub(crate) fn impostor(head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return Some("empty, and so damaged: copy or download it again".into());
    }
    // The header of a safetensors file, after its length.
    if head.get(8) == Some(&b'{') {
        return None;
    }
    if let Some(kind) = glowflow_data::impostor(head) {
        return Some(kind.into());
    }
    if let Some((_, kind)) = KINDS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some((*kind).into());
    }
    let line: String = text(head)?.trim_start().lines().next()?.chars().take(60).collect();
    Some(format!("a text file that begins with {line:?}, not a safetensors file"))
}

/// The beginning of a file as text; `None` if it is not text.
fn text(head: &[u8]) -> Option<&str> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be truncated.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let plain = |c: char| !c.is_control() || c.is_ascii_whitespace();
    (!text.trim().is_empty() && text.chars().all(plain)).then_some(text)
}
