//! A folder of image files, decoded on read and cached up to a memory budget.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::image_file::{self, Failure};
use crate::memory_budget::MemoryBudget;
use crate::names::name_of;
use crate::scan::classes_of;
use crate::{Broken, Dataset, Error, ImageShape, OpenOptions};

/// A [`Dataset`] over image files of any size.
pub(crate) struct ImageFolder {
    root: PathBuf,
    /// Relative to `root`.
    files: Vec<PathBuf>,
    shape: ImageShape,
    classes: Vec<String>,
    /// One per file, or empty if there are no classes.
    labels: Vec<usize>,
    cache: Cache,
    /// Reasons by index. Cached so that a broken file is decoded and reported only once.
    broken: Mutex<BTreeMap<usize, String>>,
}

impl ImageFolder {
    /// Opens the images `files` (relative to `root`), which share the memory of `budget` with others. If
    /// classes are requested, they are the folders at `depth` of the paths.
    pub fn open(
        root: &Path,
        files: Vec<PathBuf>,
        depth: usize,
        options: &OpenOptions,
        budget: Arc<MemoryBudget>,
    ) -> Result<Self, Error> {
        let (classes, labels) = if options.labels {
            classes_of(&files, depth, &options.classes)?
        } else {
            (Vec::new(), Vec::new())
        };
        let shape = match options.shape {
            Some(shape) => shape,
            None => first_shape(root, &files)?,
        };
        Ok(Self {
            root: root.to_owned(),
            cache: Cache::new(files.len(), budget),
            files,
            shape,
            classes,
            labels,
            broken: Mutex::default(),
        })
    }

    /// Opens the single image at `path`, without classes.
    pub fn single(path: &Path, options: &OpenOptions) -> Result<Self, Error> {
        let root = path.parent().unwrap_or(Path::new(""));
        let file = path.file_name().unwrap_or_default();
        let options = OpenOptions { labels: false, ..options.clone() };
        Self::open(root, vec![file.into()], 0, &options, Arc::new(MemoryBudget::new(options.cache_bytes)))
    }

    fn file(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index])
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
        name_of(&self.files[index])
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).copied()
    }

    fn content(&self, index: usize) -> u64 {
        self.file(index).metadata().map_or(0, |file| file.len())
    }

    fn stored_shape(&self, index: usize) -> Option<ImageShape> {
        image_file::load(&self.file(index)).ok().map(|picture| picture.shape)
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        Some(self.file(index))
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
            Some(reason) => Err(Failure::Broken(reason)),
            None => image_file::load_fitted(&self.file(index), self.shape, pixels),
        };
        match result {
            Ok(()) => {
                self.cache.keep(index, pixels);
                Ok(())
            }
            // The file may be intact, so the next attempt reads it again.
            Err(Failure::System(source)) => Err(Error::System { path: self.file(index), source }),
            Err(Failure::Broken(reason)) => {
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

/// Cache of decoded images. Nothing is evicted: every image is read once per epoch, so none is more likely to
/// be needed than another.
struct Cache {
    slots: Vec<OnceLock<Box<[u8]>>>,
    budget: Arc<MemoryBudget>,
}

impl Cache {
    fn new(images: usize, budget: Arc<MemoryBudget>) -> Self {
        // Without a budget no slots are needed.
        let slots = if budget.is_empty() { 0 } else { images };
        Self { slots: (0..slots).map(|_| OnceLock::new()).collect(), budget }
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.slots.get(index)?.get().map(|pixels| &**pixels)
    }

    fn keep(&self, index: usize, pixels: &[u8]) {
        let Some(slot) = self.slots.get(index) else { return };
        if self.budget.take(pixels.len()) && slot.set(pixels.into()).is_err() {
            // Another thread was faster; its copy is already accounted for.
            self.budget.give_back(pixels.len());
        }
    }
}

/// The shape of the first readable image.
fn first_shape(root: &Path, files: &[PathBuf]) -> Result<ImageShape, Error> {
    let mut first_reason = None;
    for file in files {
        let path = root.join(file);
        match image_file::load(&path) {
            Ok(picture) => return Ok(picture.shape),
            Err(Failure::System(source)) => return Err(Error::System { path, source }),
            Err(Failure::Broken(reason)) => _ = first_reason.get_or_insert(reason),
        }
    }
    Err(Error::AllBroken {
        images: files.len(),
        name: files.first().map(|file| name_of(file)).unwrap_or_default(),
        reason: first_reason.unwrap_or_default(),
    })
}
