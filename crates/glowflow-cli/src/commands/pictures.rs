//! Picture files given to a command, as images of a model's shape: aligned to the face if the model's images
//! are faces, otherwise centre-cropped.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::faces::{self, Faces};
use glowflow::train::class_names;
use glowflow::{Dequantization, Latents, Model};
use glowflow_data::{Eyes, ImageShape, fit_image, load_picture};
use ndarray::Array4;

use super::finder::{self, Detector, Fitting, is_in_place};
use super::verdict::named;
use super::{class_choices, image_shape, tell};
use crate::advice;
use crate::args::AlignArgs;

/// Reads picture files. Those without a detected face are listed at the end, in one line.
pub struct Pictures {
    shape: ImageShape,
    how: FitMethod,
    faceless: RefCell<Vec<String>>,
    /// Class names of the model, if available.
    classes: Vec<String>,
}

/// Method of fitting pictures to the model's shape.
enum FitMethod {
    /// Centre crop.
    Crop,
    /// Alignment of the eyes of the most prominent face to these positions.
    Align(Detector, Eyes),
    /// Centre crop, with one hint if a face may be misplaced. The cell holds the number of pictures still to
    /// be searched.
    CropWithHint(Detector, Cell<usize>),
}

/// Maximum number of pictures searched for a misplaced face: the search takes longer than reading a picture.
const MAX_SEARCHED_FOR_HINT: usize = 16;

impl Pictures {
    /// Prepares reading for a model whose eye positions are given or stored with it.
    pub fn of(glow: &Model, model: &Path, args: &AlignArgs) -> anyhow::Result<Self> {
        let faces = match args.eyes.eyes {
            Some(eyes) => Some(Faces::Aligned(eyes)),
            None => faces::read(model)?,
        };
        let how = match faces {
            _ if args.no_align => FitMethod::Crop,
            Some(Faces::Aligned(eyes)) if finder::AVAILABLE => FitMethod::Align(Detector::new()?, eyes),
            Some(Faces::Aligned(_)) => {
                tell("this program was built without face detection: pictures are centre-cropped");
                FitMethod::Crop
            }
            None if finder::AVAILABLE => {
                FitMethod::CropWithHint(Detector::new()?, Cell::new(MAX_SEARCHED_FOR_HINT))
            }
            Some(Faces::None) | None => FitMethod::Crop,
        };
        let classes = class_names(model, glow.config());
        Ok(Self { shape: image_shape(glow), how, faceless: RefCell::default(), classes })
    }

    /// Reads pictures as `[n, H, W, C]`.
    pub fn load(&self, paths: &[PathBuf]) -> anyhow::Result<Array4<u8>> {
        let mut pixels = vec![];
        for path in paths {
            pixels.extend(self.load_one(path)?);
        }
        let ImageShape { height, width, channels } = self.shape;
        Ok(Array4::from_shape_vec((paths.len(), height, width, channels), pixels)?)
    }

    fn load_one(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        let (pixels, shape) = load_picture(path)?;
        match &self.how {
            FitMethod::Crop => {}
            FitMethod::Align(detector, eyes) => {
                let (fitted, fitting) = detector
                    .fit(&pixels, shape, *eyes, self.shape)
                    .with_context(|| format!("aligning {}", path.display()))?;
                if matches!(fitting, Fitting::NoFace) {
                    let (name, mut faceless) = (path.display().to_string(), self.faceless.borrow_mut());
                    if !faceless.contains(&name) {
                        faceless.push(name);
                    }
                }
                return Ok(fitted);
            }
            FitMethod::CropWithHint(detector, searches) if searches.get() > 0 => {
                searches.set(searches.get() - 1);
                let found = detector.detect(&pixels, shape)?;
                // A picture aligned like CelebA is probably aligned like the model's images.
                if found.first().is_some_and(|face| !is_in_place(face, shape, Eyes::CELEBA, self.shape)) {
                    searches.set(0);
                    tell(&format!(
                        "{} contains a face but was centre-cropped, because the positions of the eyes in the model's images \
                         are unknown: give them with --eyes, or mark them on the demo's page, which stores them",
                        path.display()
                    ));
                }
            }
            FitMethod::CropWithHint(..) => {}
        }
        Ok(fit_image(&pixels, shape, self.shape)?)
    }

    /// Returns whether pictures are aligned by their faces.
    pub fn align(&self) -> bool {
        matches!(self.how, FitMethod::Align(..))
    }

    /// The label of one picture, if the model has classes.
    pub fn labels(&self, glow: &Model, label: Option<usize>) -> anyhow::Result<Vec<usize>> {
        let classes = glow.config().classes();
        anyhow::ensure!(
            classes == 0 || label.is_some(),
            "the model has {classes} classes: give the class of the picture with {}",
            class_choices(classes, &self.classes)
        );
        Ok(label.into_iter().collect())
    }
}

impl Drop for Pictures {
    fn drop(&mut self) {
        let faceless = self.faceless.get_mut();
        if !faceless.is_empty() {
            tell(&format!("no face found in {}: centre-cropped", named(faceless)));
        }
    }
}

/// Returns whether loading a picture failed because of its content or absence.
pub fn is_broken(error: &anyhow::Error) -> bool {
    use glowflow_data::Error::{BrokenImage, Read};
    matches!(error.downcast_ref(), Some(BrokenImage { .. } | Read { .. }))
}

/// The reason why a picture could not be loaded.
pub fn reason(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(glowflow_data::Error::BrokenImage { reason, .. }) => reason.clone(),
        _ => advice::describe(error),
    }
}

/// A picture file as an input of the model.
pub struct Picture {
    /// `[1, H, W, C]`.
    pub image: Array4<u8>,
    /// Its class, if the model has classes.
    pub labels: Vec<usize>,
    pub latents: Latents,
}

impl Picture {
    pub fn encode(
        glow: &Model,
        pictures: &Pictures,
        path: &PathBuf,
        label: Option<usize>,
    ) -> anyhow::Result<Self> {
        let labels = pictures.labels(glow, label)?;
        let image = pictures.load(std::slice::from_ref(path))?;
        let latents = glow.encode(image.view(), &labels, Dequantization::Typical)?.latents;
        anyhow::ensure!(
            latents.is_finite(0),
            "the latents of {} are not finite; the model may be damaged, or its training diverged",
            path.display()
        );
        Ok(Self { image, labels, latents })
    }
}
