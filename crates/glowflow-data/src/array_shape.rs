//! Shapes of image arrays: the supported ones, and advice for the others.

use crate::ImageShape;

/// Supported numbers of channels, including alpha.
const CHANNELS: [usize; 3] = [1, 3, 4];

/// The shape of one image of an array (N, height, width) or (N, height, width, channels).
pub(crate) fn image_shape(dimensions: &[usize]) -> Result<ImageShape, String> {
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

/// Like [`image_shape`], for arrays without a convention: refuses shapes that could also be a single image or
/// another order of dimensions.
pub(crate) fn unambiguous_image_shape(dimensions: &[usize]) -> Result<ImageShape, String> {
    let is_channels = |n: usize| CHANNELS.contains(&n);
    let problem = match *dimensions {
        [height, width] => format!(
            "save array[None] if it is one grey picture of {height}×{width}, array.reshape(-1, height, \
             width) or array.reshape(-1, height, width, 3) if it is {height} flattened pictures"
        ),
        [height, width, channels] if is_channels(channels) => {
            let colours = if channels == 4 { "[..., :3]" } else { "" };
            format!(
                "one picture and many narrow ones look alike; save array[None]{colours} for one picture of \
                 {height}×{width}×{channels}, array[..., None] for {height} grey ones of {width}×{channels}"
            )
        }
        [_, height, width, 4] => format!(
            "pictures of {height}×{width}×4 have an alpha channel or an unknown layout; save array[..., :3] \
             for their colours"
        ),
        [_, channels, _, last] if is_channels(channels) && !is_channels(last) => {
            let colours = if channels == 4 { "[:, :3]" } else { "" };
            format!(
                "the channels come first, but (N, height, width, channels) is required; save \
                 array{colours}.transpose(0, 2, 3, 1)"
            )
        }
        [_, _, channels @ (1 | 3), last] if !is_channels(last) => format!(
            "the {channels} channels come before the last dimension, but (N, height, width, channels) is \
             needed; save array.transpose(3, 0, 1, 2) if the last one counts pictures"
        ),
        [.., height, width, channels] if dimensions.len() > 4 => {
            format!("save array.reshape(-1, {height}, {width}, {channels})")
        }
        _ => return image_shape(dimensions),
    };
    Err(format!("shape {}: {problem}", tuple(dimensions)))
}

/// The alternative interpretation of a three-dimensional array that is read as N grey images.
pub(crate) fn second_reading(dimensions: &[usize]) -> Option<String> {
    match *dimensions {
        [count @ (3 | 4), height, width] if height > 4 && width > 4 => Some(format!(
            "shape {} is read as {count} grey images of {height}×{width}; if it is one picture with its \
             channels first, save array.transpose(1, 2, 0)[None, ..., :3]",
            tuple(dimensions)
        )),
        _ => None,
    }
}

/// Formats dimensions like NumPy.
pub(crate) fn tuple(dimensions: &[usize]) -> String {
    match *dimensions {
        [one] => format!("({one},)"),
        _ => format!("({})", dimensions.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}
