//! A folder of image files, decoded when read and then kept as far as memory is granted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::scan::{classes_of, find_images};
use crate::{Broken, Dataset, Error, ImageShape, OpenOptions, image_file};

/// A [`Dataset`] over image files of any size.
pub(crate) struct ImageFolder {
    root: PathBuf,
    /// Relative to `root`.
    files: Vec<PathBuf>,
    shape: ImageShape,
    classes: Vec<String>,
    /// One per file, or empty where there are no classes.
    labels: Vec<usize>,
    cache: Cache,
    /// Reasons by index. Kept so that a broken file is decoded and reported once.
    broken: Mutex<BTreeMap<usize, String>>,
}

impl ImageFolder {
    /// All images under `root`.
    pub fn open(root: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let files = find_images(root)?;
        let (classes, labels) =
            if options.labels { classes_of(&files, &options.classes)? } else { (Vec::new(), Vec::new()) };
        let mut folder = Self::of(root, files, options)?;
        folder.classes = classes;
        folder.labels = labels;
        Ok(folder)
    }

    /// The one image at `path`.
    pub fn single(path: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let root = path.parent().unwrap_or(Path::new(""));
        let file = path.file_name().unwrap_or_default();
        Self::of(root, vec![file.into()], options)
    }

    /// Without classes.
    fn of(root: &Path, files: Vec<PathBuf>, options: &OpenOptions) -> Result<Self, Error> {
        let shape = match options.shape {
            Some(shape) => shape,
            None => first_shape(root, &files)?,
        };
        Ok(Self {
            root: root.to_owned(),
            cache: Cache::new(files.len(), options.cache_bytes),
            files,
            shape,
            classes: Vec::new(),
            labels: Vec::new(),
            broken: Mutex::default(),
        })
    }

    fn load(&self, index: usize, pixels: &mut [u8]) -> Result<(), String> {
        image_file::load_fitted(&self.root.join(&self.files[index]), self.shape, pixels)
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> ImageShape {
        self.shape
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).copied()
    }

    fn content(&self, index: usize) -> u64 {
        self.root.join(&self.files[index]).metadata().map_or(0, |file| file.len())
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        if pixels.len() != self.shape.len() {
            return Err(Error::PixelCount { shape: self.shape, found: pixels.len() });
        }
        if let Some(kept) = self.cache.get(index) {
            pixels.copy_from_slice(kept);
            return Ok(());
        }
        let broken = || self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let known = broken().get(&index).cloned();
        let result = match known {
            Some(reason) => Err(reason),
            None => self.load(index, pixels),
        };
        match result {
            Ok(()) => {
                self.cache.keep(index, pixels);
                Ok(())
            }
            Err(reason) => {
                broken().insert(index, reason.clone());
                Err(Error::BrokenImage { name: self.name(index), reason })
            }
        }
    }

    fn broken(&self) -> Vec<Broken> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let describe = |(&index, reason): (&usize, &String)| Broken {
            index,
            name: self.name(index),
            reason: reason.clone(),
        };
        broken.iter().map(describe).collect()
    }
}

/// Decoded images, kept until a limit is reached. Nothing is ever dropped for something newer:
/// every image is read once an epoch, so none is likelier to be needed than another.
struct Cache {
    slots: Vec<OnceLock<Box<[u8]>>>,
    room: AtomicUsize,
}

impl Cache {
    fn new(images: usize, bytes: usize) -> Self {
        Self { slots: (0..images).map(|_| OnceLock::new()).collect(), room: AtomicUsize::new(bytes) }
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.slots[index].get().map(|pixels| &**pixels)
    }

    fn keep(&self, index: usize, pixels: &[u8]) {
        let take = |room: usize| room.checked_sub(pixels.len());
        let order = Ordering::Relaxed;
        if self.room.fetch_update(order, order, take).is_ok() && self.slots[index].set(pixels.into()).is_err()
        {
            // Another thread was faster; its copy already counts.
            self.room.fetch_add(pixels.len(), order);
        }
    }
}

/// The shape of the first image that can be read.
fn first_shape(root: &Path, files: &[PathBuf]) -> Result<ImageShape, Error> {
    let mut first_reason = None;
    for file in files {
        match image_file::load(&root.join(file)) {
            Ok(picture) => return Ok(picture.shape),
            Err(reason) => _ = first_reason.get_or_insert(reason),
        }
    }
    Err(Error::AllBroken {
        images: files.len(),
        name: files[0].display().to_string(),
        reason: first_reason.unwrap_or_default(),
    })
}
