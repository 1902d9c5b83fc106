//! Decoding and sampling, in chunks sized for the device.

use std::borrow::Cow;
use std::ops::Range;

use glowflow_kernels::{DeviceError, Quantized, Real};
use ndarray::{Array4, ArrayView4, Axis};

use super::model::Model;
use super::{Decoded, Latents, check_count};
use crate::Error;
use crate::engine::{ChunkLatents, DeviceImages, Draw};
use crate::models::Architecture;

impl<A: Architecture, R: Real> Model<A, R> {
    /// Decodes latents of all levels to images.
    ///
    /// # Errors
    /// [`Error::Input`] if shapes or labels do not match the model, [`Error::Device`] if the device fails.
    pub fn decode(&self, latents: &Latents<R>, labels: &[usize]) -> Result<Decoded, Error> {
        self.decode_while(latents, labels, || Ok(()))
    }

    /// Like [`decode`](Self::decode), in chunks of [`decoded_at_once`](Self::decoded_at_once) images. `check`
    /// is called before each chunk; an error from it ends the decoding.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and errors of `check`.
    pub fn decode_while<E: From<Error>>(
        &self,
        latents: &Latents<R>,
        labels: &[usize],
        check: impl FnMut() -> Result<(), E>,
    ) -> Result<Decoded, E> {
        self.check_latents(latents, labels)?;
        self.decode_pixels(latents.batch(), labels, |range| given(latents, range), check)
    }

    /// Decodes latents of all levels to images `v`, before quantisation: usually in `[−0.5, 0.5)`, which is not
    /// enforced.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_continuous(&self, latents: &Latents<R>, labels: &[usize]) -> Result<Array4<R>, Error> {
        self.decode_as(latents, labels, |images| images.values())
    }

    /// Samples `count` images from latents drawn at `temperature` (1 is the model's own distribution).
    /// `labels` holds one class per image, or is empty if the model has no classes.
    ///
    /// # Errors
    /// [`Error::Input`] if the labels do not match or too many images are requested, [`Error::Device`] if the
    /// device fails.
    pub fn sample(
        &self,
        count: usize,
        temperature: f64,
        labels: &[usize],
        seed: u64,
    ) -> Result<Decoded, Error> {
        check_temperature(temperature)?;
        check_count(&[count], self.config().dimensions())?;
        self.check_labels(count, labels)?;
        // The latents of `draw`, without a transfer from the device.
        let drawn = |range: Range<usize>| ChunkLatents::Drawn(Draw { seed, first: range.start, temperature });
        self.decode_pixels(count, labels, drawn, || Ok(()))
    }

    /// Latents drawn from the base distribution at a temperature: `N(0, temperature²)`, or for NICE's logistic
    /// prior the logistic distribution of scale `temperature`. Image `i` of a seed does not depend on `count`.
    ///
    /// # Errors
    /// [`Error::Input`] if the temperature is negative or not finite, or too many images are requested.
    pub fn draw(&self, count: usize, temperature: f64, seed: u64) -> Result<Latents<R>, Error> {
        check_temperature(temperature)?;
        check_count(&[count], self.latent_bytes())?;
        let levels = self.engine().draw(count, Draw { seed, first: 0, temperature })?;
        self.latents(count, levels)
    }

    /// Decodes latents; `read` converts the images of a chunk.
    pub(super) fn decode_as<T>(
        &self,
        latents: &Latents<R>,
        labels: &[usize],
        read: impl FnMut(&dyn DeviceImages<R>) -> Result<Vec<T>, DeviceError>,
    ) -> Result<Array4<T>, Error> {
        self.check_latents(latents, labels)?;
        self.decode_chunks(
            latents.batch(),
            labels,
            |range| given(latents, range),
            || Ok::<_, Error>(()),
            read,
        )
    }

    /// Decodes images to pixels. An image counts as finite if all its values are.
    fn decode_pixels<'a, E: From<Error>>(
        &self,
        count: usize,
        labels: &[usize],
        latents: impl Fn(Range<usize>) -> ChunkLatents<'a, R>,
        check: impl FnMut() -> Result<(), E>,
    ) -> Result<Decoded, E> {
        let dimensions = self.config().dimensions();
        let mut finite = Vec::with_capacity(count);
        let pixels = self.decode_chunks(count, labels, latents, check, |images| {
            let Quantized { pixels, finite: all_finite } = images.pixels()?;
            if all_finite {
                finite.resize(finite.len() + pixels.len() / dimensions, true);
            } else {
                // The device's flag covers the whole chunk.
                let is_finite = |image: &[R]| image.iter().all(|v| v.is_finite());
                finite.extend(images.values()?.chunks(dimensions).map(is_finite));
            }
            Ok(pixels)
        })?;
        Ok(Decoded { pixels, finite })
    }

    /// Decodes `count` images in chunks. `latents` returns the latents of a range of images, `check` is
    /// called before each chunk, and `read` converts its images.
    fn decode_chunks<'a, T, E: From<Error>>(
        &self,
        count: usize,
        labels: &[usize],
        latents: impl Fn(Range<usize>) -> ChunkLatents<'a, R>,
        mut check: impl FnMut() -> Result<(), E>,
        mut read: impl FnMut(&dyn DeviceImages<R>) -> Result<Vec<T>, DeviceError>,
    ) -> Result<Array4<T>, E> {
        let (mut values, at_once) = (vec![], self.decoded_at_once());
        for start in (0..count).step_by(at_once) {
            check()?;
            let range = start..count.min(start + at_once);
            let labels = labels.get(range.clone()).unwrap_or_default();
            let mut append = |images: &dyn DeviceImages<R>| {
                let chunk = read(images)?;
                // Usually there is only one chunk, whose values need not be copied.
                if values.is_empty() {
                    values = chunk;
                } else {
                    values.extend(chunk);
                }
                Ok(())
            };
            let decoded = self.engine().decode(range.len(), labels, latents(range), &mut append);
            decoded.map_err(Error::from)?;
        }
        Ok(array(count, self.config().image(), values)?)
    }

    fn check_latents(&self, latents: &Latents<R>, labels: &[usize]) -> Result<(), Error> {
        let batch = latents.batch();
        let shapes = self.latent_shapes();
        let want: Vec<Vec<usize>> = shapes.iter().map(|shape| [&[batch], &shape[..]].concat()).collect();
        let have: Vec<Vec<usize>> = latents.0.iter().map(|level| level.shape().to_vec()).collect();
        if have != want {
            return Err(Error::Input(format!(
                "latents of the shapes {have:?} do not match the model, which requires {want:?}: one array per level"
            )));
        }
        self.check_labels(batch, labels)
    }

    /// Latents of `count` images from one array per level.
    pub(super) fn latents(&self, count: usize, levels: Vec<Vec<R>>) -> Result<Latents<R>, Error> {
        let levels = self.latent_shapes().iter().copied().zip(levels);
        let levels = levels.map(|(shape, values)| array(count, shape, values));
        Ok(Latents(levels.collect::<Result<_, Error>>()?))
    }
}

/// The latents of a range of images, one array per level.
fn given<R: Clone>(latents: &Latents<R>, range: Range<usize>) -> ChunkLatents<'_, R> {
    ChunkLatents::Given(latents.0.iter().map(|level| rows(level.view(), range.clone())).collect())
}

/// The values of a range of images, copied only if not contiguous.
pub(super) fn rows<T: Clone>(mut images: ArrayView4<'_, T>, range: Range<usize>) -> Cow<'_, [T]> {
    images.slice_axis_inplace(Axis(0), range.into());
    match images.to_slice() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(images.iter().cloned().collect()),
    }
}

/// Converts the device's values to images.
pub(super) fn array<T>(
    batch: usize,
    [height, width, channels]: [usize; 3],
    values: Vec<T>,
) -> Result<Array4<T>, Error> {
    Array4::from_shape_vec((batch, height, width, channels), values)
        .map_err(|e| Error::Input(format!("the device returned an array of the wrong size: {e}")))
}

fn check_temperature(temperature: f64) -> Result<(), Error> {
    if temperature >= 0.0 && temperature.is_finite() {
        return Ok(());
    }
    Err(Error::Input(format!(
        "invalid temperature {temperature}: it must be 0 or more and finite, such as 0.7"
    )))
}
