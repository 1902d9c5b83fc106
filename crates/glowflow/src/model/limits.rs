//! Limits on requested numbers of images.

use crate::Error;

/// Maximum memory for requested images, in bytes: their latents, their pixels, or a picture of them.
const MAX_BYTES: usize = 1 << 29;

/// Checks that the requested images fit into memory: the product of `counts`, with `bytes` bytes per image.
///
/// ```
/// use glowflow::check_count;
///
/// assert!(check_count(&[64], 32 * 32 * 3).is_ok());
/// let error = check_count(&[usize::MAX, 2], 32 * 32 * 3).unwrap_err().to_string();
/// assert!(error.contains("18446744073709551615 × 2 images") && error.contains("at most 174762"));
/// ```
///
/// # Errors
/// [`Error::Input`] with the number, and the maximum.
pub fn check_count(counts: &[usize], bytes: usize) -> Result<(), Error> {
    // Even the smallest image has some overhead.
    let most = MAX_BYTES / bytes.max(1 << 10);
    let count = counts.iter().try_fold(1, |product: usize, &count| product.checked_mul(count));
    if count.is_some_and(|count| count <= most) {
        return Ok(());
    }
    let counts = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ");
    Err(Error::Input(format!("{counts} images of {bytes} bytes each are too many at once: at most {most}")))
}
