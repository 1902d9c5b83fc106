//! File names as text.

use std::path::Path;

/// Converts a path to text that differs for different paths.
///
/// Valid UTF-8 is kept. An invalid byte becomes `\x` and two hexadecimal digits, as in `caf\xe9`. To keep the
/// result unambiguous, a backslash before `x` and two such digits in the path itself becomes `\x5c`.
pub(crate) fn name_of(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some((before, after)) = rest.split_once('\\') {
            name.push_str(before);
            name.push_str(if is_escape(after) { r"\x5c" } else { r"\" });
            rest = after;
        }
        name.push_str(rest);
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!("\\x{byte:02x}")));
    }
    name
}

/// Returns whether the text after a backslash reads like an escaped byte.
fn is_escape(after: &str) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    matches!(after.as_bytes(), [b'x', high, low, ..] if is_digit(high) && is_digit(low))
}

#[cfg(all(test, unix))]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn of(bytes: &[u8]) -> String {
        name_of(Path::new(OsStr::from_bytes(bytes)))
    }

    #[test]
    fn valid_names_stay_and_other_bytes_are_escaped() {
        for name in
            ["a/b.png", "caf\u{e9}.jpg", r"back\slash", r"\x", r"\xe", r"\xE9", r"\\", "new\nline", ""]
        {
            assert_eq!(of(name.as_bytes()), name);
        }
        assert_eq!(of(b"caf\xe9/\xff.png"), r"caf\xe9/\xff.png");
        assert_eq!(of(br"caf\xe9"), r"caf\x5cxe9");
        assert_eq!(of("\u{e9}".as_bytes().split_last().unwrap().1), r"\xc3");
    }

    #[test]
    fn different_paths_have_different_names() {
        let pieces: [&[u8]; 8] = [b"\\", b"x", b"e", b"9", b"5c", b"\xe9", "\u{e9}".as_bytes(), b"\\xe9"];
        let mut seen = BTreeMap::new();
        for number in 0..8_usize.pow(5) {
            let path: Vec<u8> =
                (0..5).flat_map(|place| pieces[number / 8_usize.pow(place) % 8]).copied().collect();
            let known = seen.insert(of(&path), path.clone());
            assert!(known.is_none_or(|known| known == path));
        }
    }
}
