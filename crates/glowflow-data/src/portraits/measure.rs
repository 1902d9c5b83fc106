//! Reads the attributes of a portrait back from its pixels.
//!
//! Each score compares the mean colours of a few patches at fixed positions. The patches are wide enough for
//! a face that is slightly off centre, and contrasts are relative to the image's own skin, hair and
//! background, so a blurred or pale image is still judged by its content.

use super::sitter::{ATTRIBUTES, Rgb};

/// One score for each of [`ATTRIBUTES`], in order: positive if the image shows the attribute, negative if it
/// does not; the magnitude is the confidence.
///
/// `pixels` are the `size` × `size` × 3 bytes (HWC) of an image in the style of
/// [`Portraits`](super::Portraits), drawn or sampled from a model.
///
/// ```
/// use glowflow_data::{Dataset, portraits::{Portraits, measure}};
///
/// let portraits = Portraits::new(1, 64, 7);
/// let mut pixels = vec![0; portraits.shape().len()];
/// portraits.read(0, &mut pixels)?;
/// for (score, (name, present)) in measure(&pixels, 64).into_iter().zip(portraits.attributes(0)) {
///     assert_eq!(score > 0.0, present, "{name}");
/// }
/// # Ok::<(), glowflow_data::Error>(())
/// ```
///
/// # Panics
///
/// If the number of bytes is not `size` × `size` × 3.
pub fn measure(pixels: &[u8], size: usize) -> [f32; ATTRIBUTES.len()] {
    assert_eq!(pixels.len(), size * size * 3, "a square RGB picture");
    let picture = Picture { pixels, size };

    // The neck is the only patch of skin that no other feature covers or tints.
    let skin = picture.mean(0.5, 0.81, 0.05, 0.02);
    let hair = picture.mean(0.5, 0.16, 0.08, 0.03);
    let background = picture.both_sides(0.45, 0.5, 0.03, 0.15);

    // The lower half of an open smile is where a straight mouth leaves the chin bare.
    let below_mouth = picture.mean(0.5, 0.68, 0.05, 0.02);
    let smile = redness(below_mouth) - redness(skin);

    // Frames cross the cheeks below the eyes; no other dark feature does.
    let below_eyes = picture.both_sides(0.1, 0.548, 0.035, 0.03);
    let frames = 1.0 - luma(below_eyes) / luma(skin);

    // Next to the neck is hair or background: compare the colour with both.
    let beside_neck = picture.both_sides(0.22, 0.68, 0.04, 0.06);
    let long = (distance(beside_neck, background) - distance(beside_neck, hair))
        / (distance(background, hair) + 1e-3);

    // The constants put 0 midway between the images with and without the attribute.
    [
        smile - 0.05,
        frames - 0.05,
        luma(hair) - 0.55,
        long + 0.55,
        0.56 - luma(skin),
        background[2] - background[0],
    ]
}

struct Picture<'a> {
    pixels: &'a [u8],
    size: usize,
}

impl Picture<'_> {
    /// Mean colour of the patch that extends `rx` and `ry` around (`x`, `y`), in units of the image's side.
    /// Pixels are weighted by their covered area, so a patch means the same at every size.
    fn mean(&self, x: f32, y: f32, rx: f32, ry: f32) -> Rgb {
        let columns = self.covered(x, rx);
        let rows = self.covered(y, ry);
        let mut sum = [0.0; 3];
        let mut total = 0.0;
        for &(row, height) in &rows {
            for &(column, width) in &columns {
                let at = (row * self.size + column) * 3;
                let weight = height * width;
                total += weight;
                for (sum, byte) in sum.iter_mut().zip(&self.pixels[at..at + 3]) {
                    *sum += weight * f32::from(*byte) / 255.0;
                }
            }
        }
        sum.map(|sum| sum / total)
    }

    /// Mean colour of two patches, at `x` to the left and to the right of the middle.
    fn both_sides(&self, x: f32, y: f32, rx: f32, ry: f32) -> Rgb {
        let left = self.mean(0.5 - x, y, rx, ry);
        let right = self.mean(0.5 + x, y, rx, ry);
        std::array::from_fn(|c| (left[c] + right[c]) / 2.0)
    }

    /// Rows or columns within `reach` of `centre`, each with its covered fraction.
    fn covered(&self, centre: f32, reach: f32) -> Vec<(usize, f32)> {
        let side = self.size as f32;
        let low = ((centre - reach) * side).max(0.0);
        let high = ((centre + reach) * side).min(side);
        (low as usize..high.ceil() as usize)
            .map(|i| (i, high.min(i as f32 + 1.0) - low.max(i as f32)))
            .collect()
    }
}

/// Luma: brightness weighted by channel.
fn luma([red, green, blue]: Rgb) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// Excess of red over the other channels.
fn redness([red, green, blue]: Rgb) -> f32 {
    red - (green + blue) / 2.0
}

/// Euclidean distance between colours.
fn distance(a: Rgb, b: Rgb) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
}
