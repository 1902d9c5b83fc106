//! The sitter of a portrait: attributes and continuous properties, drawn from a seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Names of the attributes, in the order of [`Portraits::attributes`](super::Portraits::attributes)
/// and [`measure`](super::measure).
///
/// - `Smiling`: an open smile, else a short straight mouth.
/// - `Eyeglasses`: round dark frames.
/// - `Blond_Hair`: blond, else black, brown or auburn.
/// - `Long_Hair`: hair that falls along the neck to the shoulders.
/// - `Dark_Skin`: the darker half of the skin tones.
/// - `Blue_Background`: sky blue, else rose to salmon.
pub const ATTRIBUTES: [&str; 6] =
    ["Smiling", "Eyeglasses", "Blond_Hair", "Long_Hair", "Dark_Skin", "Blue_Background"];

/// sRGB red, green and blue from 0 to 1 (gamma-encoded).
pub(super) type Rgb = [f32; 3];

/// Mean centre of a face.
pub(super) const CENTRE: (f32, f32) = (0.5, 0.47);
/// Minimum and maximum size of a head.
pub(super) const SCALES: (f32, f32) = (1.06, 1.14);

/// All properties of a portrait, in units of the image's side.
pub(super) struct Sitter {
    pub smiling: bool,
    pub glasses: bool,
    pub blond: bool,
    pub long_hair: bool,
    pub dark_skin: bool,
    pub blue: bool,
    /// Centre of the face.
    pub centre: (f32, f32),
    /// Size of the head; the dimensions in `paint.rs` are for 1.
    pub scale: f32,
    /// Roundness of the face: width over the usual width.
    pub breadth: f32,
    /// Position of the parting, from -1 (left) to 1 (right).
    pub parting: f32,
    /// Sideways displacement of the pupils.
    pub gaze: f32,
    /// Strength of the blush on the cheeks, 0 to 1.
    pub blush: f32,
    pub skin: Rgb,
    pub hair: Rgb,
    pub shirt: Rgb,
    pub background: Rgb,
}

impl Sitter {
    /// The sitter of portrait `index` of the set with this seed.
    pub fn new(seed: u64, index: u64) -> Self {
        // One random stream per portrait: any of them can be drawn without the preceding ones.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        // Attributes first, so that they do not change when a continuous property is added.
        let [smiling, glasses, blond, long_hair, dark_skin, blue] =
            std::array::from_fn(|_| rng.random_bool(0.5));
        let mut between = |low: f32, high: f32| rng.random_range(low..=high);
        Sitter {
            smiling,
            glasses,
            blond,
            long_hair,
            dark_skin,
            blue,
            centre: (CENTRE.0 + between(-0.015, 0.015), CENTRE.1 + between(-0.015, 0.015)),
            scale: between(SCALES.0, SCALES.1),
            breadth: between(0.95, 1.05),
            parting: between(-1.0, 1.0),
            gaze: between(-1.0, 1.0),
            blush: between(0.3, 1.0),
            skin: if dark_skin {
                gradient(&DARK_SKIN, between(0.0, 1.0))
            } else {
                gradient(&LIGHT_SKIN, between(0.0, 1.0))
            },
            hair: if blond {
                gradient(&BLOND, between(0.0, 1.0))
            } else {
                gradient(&DARK_HAIR, between(0.0, 1.0))
            },
            shirt: hsv(between(0.0, 360.0), between(0.4, 0.65), between(0.5, 0.8)),
            background: if blue {
                hsv(between(195.0, 225.0), between(0.35, 0.55), between(0.8, 0.95))
            } else {
                hsv(between(-18.0, 16.0), between(0.3, 0.48), between(0.85, 0.95))
            },
        }
    }

    /// The attributes in the order of [`ATTRIBUTES`].
    pub fn attributes(&self) -> [bool; ATTRIBUTES.len()] {
        [self.smiling, self.glasses, self.blond, self.long_hair, self.dark_skin, self.blue]
    }
}

const LIGHT_SKIN: [Rgb; 3] = [[1.0, 0.88, 0.79], [0.96, 0.78, 0.64], [0.87, 0.66, 0.48]];
const DARK_SKIN: [Rgb; 3] = [[0.66, 0.44, 0.29], [0.54, 0.34, 0.22], [0.44, 0.28, 0.19]];
const BLOND: [Rgb; 3] = [[0.97, 0.87, 0.58], [0.95, 0.80, 0.42], [0.86, 0.67, 0.32]];
const DARK_HAIR: [Rgb; 4] = [[0.13, 0.11, 0.14], [0.25, 0.15, 0.11], [0.40, 0.23, 0.13], [0.56, 0.24, 0.12]];

/// The colour at `position` (0 to 1) along evenly spaced stops.
fn gradient(stops: &[Rgb], position: f32) -> Rgb {
    let along = position * (stops.len() - 1) as f32;
    let first = (along as usize).min(stops.len() - 2);
    mix(stops[first], stops[first + 1], along - first as f32)
}

/// Mixes `share` of `b` into `a`.
pub(super) fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|c| a[c] + (b[c] - a[c]) * share)
}

/// Hue in degrees (any number of turns), saturation and value from 0 to 1.
fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    [5.0, 3.0, 1.0].map(|offset: f32| {
        let k = (offset + hue / 60.0).rem_euclid(6.0);
        value * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    })
}
