//! Elements that follow the header of an array file (idx, npy).

use std::io::{ErrorKind, Read};

/// Bytes per read; a multiple of every element size.
const PIECE: usize = 1 << 16;

/// Number of elements of an array; `None` if it exceeds the address space.
pub(crate) fn count(dimensions: &[usize]) -> Option<usize> {
    dimensions.iter().try_fold(1, |product: usize, &n| product.checked_mul(n))
}

/// Fails unless `found` bytes are exactly the elements, of `size` bytes each, of an array with these
/// dimensions.
pub(crate) fn check_length(dimensions: &[usize], size: usize, found: u64) -> Result<(), String> {
    let expected = byte_count(dimensions, size)?;
    if found == expected as u64 { Ok(()) } else { Err(mismatch(dimensions, expected, &found.to_string())) }
}

/// Reads an array with these dimensions and passes its elements, of `size` bytes each, to `each` in chunks of
/// whole elements. Fails unless the file holds exactly that number. Reads to the end of the file, which
/// verifies the checksum of a compressed file.
pub(crate) fn read_each(
    mut file: impl Read,
    dimensions: &[usize],
    size: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let expected = byte_count(dimensions, size)?;
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < expected {
        let wanted = (expected - done).min(PIECE);
        let found = read_up_to(&mut file, &mut piece[..wanted])?;
        done += found;
        if found < wanted {
            return Err(mismatch(dimensions, expected, &done.to_string()));
        }
        each(&piece[..wanted])?;
    }
    match read_up_to(&mut file, &mut piece[..1])? {
        0 => Ok(()),
        _ => Err(mismatch(dimensions, expected, "more")),
    }
}

/// Reads an array of bytes.
pub(crate) fn read_bytes(file: impl Read, dimensions: &[usize]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // The buffer grows with the data read: the header is not trusted to size it.
    read_each(file, dimensions, 1, |piece| extend(&mut bytes, piece.iter().copied()))?;
    Ok(bytes)
}

/// Appends to a buffer; fails if memory cannot be allocated.
pub(crate) fn extend(buffer: &mut Vec<u8>, bytes: impl ExactSizeIterator<Item = u8>) -> Result<(), String> {
    let needed = buffer.len() + bytes.len();
    buffer
        .try_reserve(bytes.len())
        .map_err(|_| format!("needs more than {needed} bytes of memory; use a smaller file"))?;
    buffer.extend(bytes);
    Ok(())
}

fn byte_count(dimensions: &[usize], size: usize) -> Result<usize, String> {
    count(dimensions)
        .and_then(|n| n.checked_mul(size))
        .ok_or_else(|| format!("dimensions of {dimensions:?} are impossible; the file is damaged"))
}

/// Fills a buffer until it is full or the file ends.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> Result<usize, String> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(format!("cut short or damaged ({error}); create or download the file again"));
            }
        }
    }
    Ok(filled)
}

fn mismatch(dimensions: &[usize], expected: usize, found: &str) -> String {
    format!(
        "has {found} bytes of elements, but its header ({dimensions:?}) declares {expected}; create or \
         download the file again"
    )
}
