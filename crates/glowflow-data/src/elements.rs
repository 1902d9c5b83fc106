//! What the array formats (idx, npy) share: the elements behind a header, and arrays as images.

use std::io::Read;

use crate::ImageShape;

/// The number of elements of an array; `None` where no memory could hold them.
pub(crate) fn count(dimensions: &[usize]) -> Option<usize> {
    dimensions.iter().try_fold(1, |product: usize, &n| product.checked_mul(n))
}

/// Reads the elements, of `size` bytes each, of an array of these dimensions. Fails unless the file
/// holds exactly as many.
pub(crate) fn read(file: impl Read, dimensions: &[usize], size: usize) -> Result<Vec<u8>, String> {
    let expected = count(dimensions)
        .and_then(|n| n.checked_mul(size))
        .ok_or_else(|| format!("dimensions of {dimensions:?} are impossible; the file is damaged"))?;
    let mut bytes = Vec::new();
    // The buffer grows with what is really there: the header is not to be trusted with memory.
    file.take((expected as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cut short or damaged ({e}); make or fetch the file again"))?;
    if bytes.len() != expected {
        let found = match bytes.len() > expected {
            true => "more".to_owned(),
            false => bytes.len().to_string(),
        };
        return Err(format!(
            "has {found} bytes of elements where its header ({dimensions:?}) announces {expected}; \
             make or fetch the file again"
        ));
    }
    Ok(bytes)
}

/// The shape of one image of an array of dimensions N, height, width and perhaps channels.
pub(crate) fn images_shape(dimensions: &[usize]) -> Result<ImageShape, String> {
    let (count, shape) = match *dimensions {
        [count, height, width] => (count, ImageShape { height, width, channels: 1 }),
        [count, height, width, channels] => (count, ImageShape { height, width, channels }),
        _ => return Err(format!("{dimensions:?} is not (N, height, width) or (N, height, width, channels)")),
    };
    shape.check().map_err(|e| format!("{e}; the order of dimensions is N, height, width, channels"))?;
    if count == 0 {
        return Err("holds no images; give at least one".into());
    }
    Ok(shape)
}
