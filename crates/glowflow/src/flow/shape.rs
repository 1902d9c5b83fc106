//! Shapes of one image's variables, and the distribution of latents.

/// Height, width and channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pixel rows.
    pub height: usize,
    /// Pixel columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl Shape {
    /// Numbers per image.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Returns whether there are no numbers.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Pixels per image.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }
}

impl From<[usize; 3]> for Shape {
    fn from([height, width, channels]: [usize; 3]) -> Self {
        Self { height, width, channels }
    }
}

impl From<Shape> for [usize; 3] {
    fn from(shape: Shape) -> Self {
        [shape.height, shape.width, shape.channels]
    }
}

/// Distribution of standardised latents, independent per number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// N(0, 1).
    Normal,
    /// The logistic distribution: `log p(h) = −|h| − 2·log(1 + exp(−|h|))`.
    Logistic,
}

/// Standardised latents that a layer factors out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentShape {
    /// The shape of the latents.
    pub shape: Shape,
    /// The distribution of the latents.
    pub base: Base,
}

/// Output shapes of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// The input of the next layer; `channels` is 0 after the last.
    pub output: Shape,
    /// The factored-out latents.
    pub latents: Option<LatentShape>,
}

impl Shapes {
    /// For layers that keep the shape.
    pub fn same(input: Shape) -> Self {
        Self::of(input)
    }

    /// For layers that factor nothing out.
    pub fn of(output: Shape) -> Self {
        Self { output, latents: None }
    }

    /// For the last layer: its whole input becomes latents.
    pub fn end(input: Shape, base: Base) -> Self {
        let output = Shape { channels: 0, ..input };
        Self { output, latents: Some(LatentShape { shape: input, base }) }
    }
}
