//! Reads images and delivers batches of bytes.
//!
//! [`open`] detects the format of the data at a path (a folder of images, CIFAR-10, MNIST-style files, NumPy
//! arrays) and returns [`Dataset`]s: numbered images of one shape. [`split`] holds out a part of them.
//! [`TrainingBatches`] and [`batches_in_order`] read ahead in background threads, the former endlessly in
//! random order, the latter once in order.
//!
//! Pixels are bytes in the order rows, columns, channels (HWC); batches are NHWC.
//!
//! ```
//! use glowflow_data::{Augment, ImageShape, OpenOptions, TrainingBatches, TrainingOptions, open, save_png};
//!
//! let folder = tempfile::tempdir()?;
//! let shape = ImageShape { height: 4, width: 4, channels: 1 };
//! for grey in 0..10 {
//!     save_png(&folder.path().join(format!("{grey}.png")), shape, &[grey; 16])?;
//! }
//! let data = open(folder.path(), &OpenOptions::default())?;
//! let options = TrainingOptions {
//!     batch_size: 5,
//!     seed: 1,
//!     augment: Augment { flip: true, ..Default::default() },
//!     start_at: 0,
//!     threads: 2,
//! };
//! for batch in TrainingBatches::new(data.train, options)?.take(3) {
//!     assert_eq!(batch?.pixels.len(), 5 * shape.len());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ahead;
mod align;
mod answer;
mod archive;
mod array_names;
mod array_shape;
mod attributes;
mod augment;
mod available_memory;
mod backups;
mod batches;
mod cifar;
mod color;
mod complete;
mod crop;
mod dataset;
mod element_type;
mod elements;
mod error;
mod eyes;
mod file_kind;
mod fit;
mod folder;
mod folder_splits;
mod identity;
mod idx;
mod idx_names;
mod image_file;
mod image_list;
mod image_names;
mod impostor;
mod leftovers;
mod listing;
mod memory;
mod memory_budget;
mod names;
mod npy;
mod npy_header;
mod npz;
mod open;
mod pixels;
mod png_chunks;
pub mod portraits;
mod random;
mod retry;
mod scan;
mod source;
mod split;
mod system_files;
mod table;
mod text;
mod training;

pub use align::align;
pub use attributes::Attributes;
pub use augment::{Augment, Edge};
pub use available_memory::available_memory;
pub use batches::{Batch, BatchesInOrder, batches_in_order};
pub use crop::{CropBox, InvalidCrop, crop};
pub use dataset::{Broken, Dataset, ImageShape};
pub use error::Error;
pub use eyes::{Eyes, InvalidEyes};
pub use file_kind::may_hold_images;
pub use fit::place_after_fit;
pub use image_file::{
    encode_png, fit_image, image_of_bytes, load_image, load_picture, picture_of_bytes, save_png,
};
pub use image_list::{ImageList, find_images};
pub use impostor::impostor;
pub use memory::{InMemory, RawImages};
pub use open::{OpenOptions, Splits, open};
pub use split::{Subset, split};
pub use training::{TrainingBatches, TrainingOptions};
