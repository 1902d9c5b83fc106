//! The direction for which maps and layers are prepared.

/// Direction in which an invertible map, or a layer, is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the image towards the latents.
    Forward,
    /// From the latents towards the image.
    Inverse,
    /// The backward pass of a training step: from the latents towards the image, with gradients.
    Backward,
}
