//! Shapes of one image's variables, and the distribution of latents.

/// Height, width and channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl Shape {
    /// Numbers of one image.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Pixels of one image.
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

/// Distribution of standardised latents, each number for itself.
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
    /// Their shape.
    pub shape: Shape,
    /// Their distribution.
    pub base: Base,
}

/// What a layer makes of its input's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// What goes on to the next layer; `channels` is 0 after the last.
    pub output: Shape,
    /// What is factored out.
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

    /// For the last layer: all of its input becomes latents.
    pub fn end(input: Shape, base: Base) -> Self {
        let output = Shape { channels: 0, ..input };
        Self { output, latents: Some(LatentShape { shape: input, base }) }
    }
}
