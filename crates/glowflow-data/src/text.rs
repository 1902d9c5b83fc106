//! Reads text files in common encodings: UTF-8, UTF-16 or Windows-1252, of bounded size.

use std::io::Read;
use std::path::Path;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::Error;
use crate::source::{Source, read_file};

/// Maximum size of a text: a hundred times the table of CelebA's 40 attributes.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes that are enough to distinguish text from other formats.
const HEAD: u64 = 4096;

/// Decoded text.
#[derive(Debug)]
pub(crate) struct Text {
    pub text: String,
    /// A remark on its encoding for the user.
    pub notice: Option<String>,
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<Text, Error> {
    read_file(path, |file| read_from(file, path))
}

fn read_from(mut file: Source, path: &Path) -> Result<Text, Error> {
    let failed = |error| Error::of_reading(path, error);
    let malformed = |problem: &str| Error::Malformed { path: path.to_owned(), problem: problem.into() };
    let too_large = || malformed("is larger than 256 MiB, too large for a table; give a smaller file");
    if file.regular_len().map_err(failed)?.is_some_and(|len| len > MAX_BYTES) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut bytes).map_err(failed)?;
    if let Some(problem) = other_format(&bytes) {
        return Err(malformed(problem));
    }
    file.take(MAX_BYTES + 1 - bytes.len() as u64).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    decode(&bytes).map_err(|problem| malformed(&problem))
}

/// Describes a file that is not text.
fn other_format(head: &[u8]) -> Option<&'static str> {
    match head {
        [b'P', b'K', 3 | 5, ..] => {
            Some("is a zip archive or an Excel workbook and not text; save it as CSV (UTF-8)")
        }
        [0xD0, 0xCF, 0x11, 0xE0, ..] => Some("is an Excel workbook and not text; save it as CSV (UTF-8)"),
        [b'P', b'A', b'R', b'1', ..] => Some("is a Parquet file and not text; save it as CSV (UTF-8)"),
        _ if wide_encoding(head).is_none() && head.contains(&0) => {
            Some("holds zero bytes, so it is not text; save it as CSV (UTF-8)")
        }
        _ => None,
    }
}

/// Detects UTF-16 by its byte order mark or by the zero bytes of its first letters.
fn wide_encoding(bytes: &[u8]) -> Option<&'static Encoding> {
    let zeros: Vec<bool> = bytes.iter().take(4).map(|&b| b == 0).collect();
    if bytes.starts_with(b"\xFF\xFE") || zeros == [false, true, false, true] {
        Some(UTF_16LE)
    } else if bytes.starts_with(b"\xFE\xFF") || zeros == [true, false, true, false] {
        Some(UTF_16BE)
    } else {
        None
    }
}

fn decode(bytes: &[u8]) -> Result<Text, String> {
    let wide = wide_encoding(bytes);
    // Removes a byte order mark.
    let (text, encoding, damaged) = wide.unwrap_or(UTF_8).decode(bytes);
    if !damaged {
        return Ok(Text { text: text.into_owned(), notice: None });
    }
    if wide.is_some() || encoding != UTF_8 || bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(format!("is damaged {}; save it again as CSV (UTF-8)", encoding.name()));
    }
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
    let notice = "it is not UTF-8 and was read as Windows-1252; save it as UTF-8 if letters are wrong";
    Ok(Text { text: text.into_owned(), notice: Some(notice.into()) })
}
