//! Detects placeholders for files: Git LFS pointers, and web pages saved instead of a download.

/// Describes a file that begins with `head` (64 bytes are enough) if it is a placeholder for the intended
/// file, with advice. The text completes "FILE is …".
///
/// ```
/// use glowflow_data::impostor;
///
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a";
/// assert!(impostor(pointer).unwrap().contains("git lfs pull"));
/// assert!(impostor(b"<!DOCTYPE html><html>").unwrap().contains("web page"));
/// assert!(impostor(b"\x89PNG\r\n\x1a\n").is_none());
/// ```
pub fn impostor(head: &[u8]) -> Option<&'static str> {
    let text = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head).trim_ascii_start();
    if text.starts_with(b"version https://git-lfs") {
        return Some("a Git LFS pointer and not the file itself: fetch the file with `git lfs pull`");
    }
    // Binary files can begin with `<` too, such as safetensors files, which begin with a length.
    let printable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let markup = matches!(text, [b'<', b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..]);
    let svg = text.len() >= 4 && text[..4].eq_ignore_ascii_case(b"<svg");
    (markup && !svg && text.iter().take(8).all(printable))
        .then_some("a web page and not the file itself: download the file again")
}
