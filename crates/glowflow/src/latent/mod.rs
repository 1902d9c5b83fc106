//! Operations on the latents of images.
//!
//! Latents are standardised and include all levels (see [`Latents`](crate::Latents)), so an operation that
//! changes nothing reproduces every pixel.

pub mod blending;
pub mod directions;
pub mod finding;
pub mod interpolation;
pub mod manipulation;
pub mod resampling;
pub mod search;
pub mod stream;
pub mod temperature;

pub use blending::weighted_mean;
pub use directions::{About, Auc, DIRECTIONS, Direction, Directions};
pub use finding::{Found, find_directions};
pub use interpolation::{Interpolation, between, interpolate};
pub use manipulation::{MAX_AMOUNT, manipulate, sweep};
pub use resampling::redraw_details;
pub use search::{Neighbour, Similar, check_level_weights, level_weights, nearest};
pub use stream::{EncodedBatch, encode_each};
pub(crate) use stream::{PixelBatch, read_each};
pub use temperature::at_temperatures;
