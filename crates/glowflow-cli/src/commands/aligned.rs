//! The picture files of a dataset, aligned by their faces like a picture that is given to a command.

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;

use glowflow_data::{Broken, Dataset, Error, ImageShape};

use super::delayed_progress::DelayedProgress;
use super::pictures::{Pictures, is_broken, reason};

struct Aligned {
    dataset: Arc<dyn Dataset>,
    /// The pixels (HWC) of each image, or the reason why it cannot be read.
    images: Vec<Result<Vec<u8>, String>>,
}

/// Loads all images of a dataset of picture files into memory. Other datasets are returned as they are.
pub fn aligned(dataset: Arc<dyn Dataset>, pictures: &Pictures) -> anyhow::Result<Arc<dyn Dataset>> {
    let paths: Option<Vec<PathBuf>> = (0..dataset.len()).map(|index| dataset.path(index)).collect();
    let Some(paths) = paths else { return Ok(dataset) };
    let mut progress = DelayedProgress::new(paths.len());
    let images = paths.iter().enumerate().map(|(index, path)| {
        let image = pictures.load(slice::from_ref(path));
        progress.update(index + 1);
        match image {
            Ok(image) => Ok(Ok(image.into_raw_vec_and_offset().0)),
            Err(error) if is_broken(&error) => Ok(Err(reason(&error))),
            // Such as too many open files: the image may be intact.
            Err(error) => Err(error),
        }
    });
    let images = images.collect::<anyhow::Result<_>>()?;
    Ok(Arc::new(Aligned { dataset, images }))
}

impl Dataset for Aligned {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn shape(&self) -> ImageShape {
        self.dataset.shape()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.dataset.label(index)
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.dataset.path(index)
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), Error> {
        match &self.images[index] {
            Ok(image) if image.len() == pixels.len() => pixels.copy_from_slice(image),
            Ok(_) => return Err(Error::PixelCount { shape: self.shape(), found: pixels.len() }),
            Err(reason) => {
                return Err(Error::BrokenImage { name: self.name(index), reason: reason.clone() });
            }
        }
        Ok(())
    }

    fn broken(&self) -> Vec<Broken> {
        let broken = |(index, image): (usize, &Result<Vec<u8>, String>)| {
            let reason = image.as_ref().err()?.clone();
            Some(Broken { index, name: self.name(index), reason })
        };
        self.images.iter().enumerate().filter_map(broken).collect()
    }
}
