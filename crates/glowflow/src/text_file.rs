//! Reads small text files written by people.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{Error, pretrained};

/// Maximum size of a text file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a UTF-8 text file without its byte order mark; the path may be that of a file of a pretrained model.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] if the file is too large or not valid UTF-8.
pub fn read(path: &Path) -> Result<String, Error> {
    if let Some(text) = pretrained::bytes(path).and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        return Ok(text.to_owned());
    }
    let mut bytes = vec![];
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::file(path, format!("it is not a text file of at most {} MiB", MAX_BYTES >> 20)));
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    // NUL is valid UTF-8, but occurs in every ASCII character of UTF-16 without a byte order mark.
    let encoding = match &bytes[..] {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16 text, not UTF-8",
        bytes if bytes.contains(&0) => "not UTF-8 text",
        _ => match std::str::from_utf8(text) {
            Ok(text) => return Ok(text.to_owned()),
            Err(_) => "not UTF-8 text",
        },
    };
    Err(Error::file(path, format!("it is {encoding}: save it as UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<String, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path())
    }

    #[test]
    fn text_is_utf8_with_or_without_a_mark() {
        assert_eq!(read_bytes("é = 1\n".as_bytes()).unwrap(), "é = 1\n");
        assert_eq!(read_bytes("\u{feff}é = 1\n".as_bytes()).unwrap(), "é = 1\n");
        assert_eq!(read_bytes(b"").unwrap(), "");
    }

    #[test]
    fn other_encodings_are_rejected_with_advice() {
        let utf16 = |mark: &[u16]| -> Vec<u8> {
            let units = mark.iter().copied().chain("é = 1\n".encode_utf16());
            units.flat_map(u16::to_le_bytes).collect()
        };
        for bytes in [&utf16(&[0xfeff])[..], &utf16(&[]), b"\xe9 = 1\n", &[0xfe, 0xff, 0, b'a']] {
            let message = read_bytes(bytes).unwrap_err().to_string();
            assert!(message.contains("save it as UTF-8"), "{message}");
        }
        let message = read_bytes(&vec![b'#'; (1 << 20) + 1]).unwrap_err().to_string();
        assert!(message.contains("at most 1 MiB"), "{message}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_without_an_end_is_read_in_part() {
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
