//! Latents in a file decode to the pixels that were encoded, with any model.

use std::sync::Arc;

use crate::common::{config, glow, model_file};
use glowflow::latents_file::{EncodedFile, Fidelity, LatentsFile};
use glowflow::tensor_file::TensorFile;
use glowflow::{Error, GlowConfig, Model, ModelFile};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Dataset, ImageShape, Subset};

/// With this value, some of the [`Patterns`] are reconstructed exactly and others are not.
const ROUGH: f32 = 1.45;

/// Stripes, noise and smooth images.
struct Patterns(usize);

impl Dataset for Patterns {
    fn len(&self) -> usize {
        self.0
    }

    fn shape(&self) -> ImageShape {
        ImageShape { height: 32, width: 32, channels: 3 }
    }

    fn name(&self, index: usize) -> String {
        format!("pattern {index}")
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }

    fn read(&self, index: usize, pixels: &mut [u8]) -> Result<(), glowflow_data::Error> {
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let (y, x) = (i / 96, i / 3 % 32);
            *pixel = match index % 3 {
                0 => 255 * ((x / (1 + index % 5)) % 2) as u8,
                1 => ((i * 2_654_435_761 + index * 40_503) >> 7) as u8,
                _ => (3 * x + 4 * y + index) as u8,
            };
        }
        Ok(())
    }
}

/// Decodes a file; returns the images and their relation to the encoded ones.
fn decoded(file: &LatentsFile, glow: &Model) -> (Vec<Vec<u8>>, Vec<Fidelity>) {
    let mut images = vec![vec![]; file.images.len()];
    let mut fidelities = vec![Fidelity::Unknown; file.images.len()];
    file.decode(glow, |index, pixels, fidelity| {
        images[index] = pixels.iter().copied().collect();
        fidelities[index] = fidelity;
        Ok::<(), Error>(())
    })
    .unwrap();
    (images, fidelities)
}

/// Encodes, writes, reads and decodes the data, and compares the result.
fn check_round_trip(file: &ModelFile, data: Arc<dyn Dataset>) -> EncodedFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents");
    let encoded = LatentsFile::encode(&glow(file), &data, None).unwrap();
    encoded.file.write(&path).unwrap();
    let read = LatentsFile::read(&path).unwrap();
    assert!(read == encoded.file);
    assert!(read.latents.0.iter().flatten().all(|x| x.is_finite()), "latents in a file are numbers");
    // A separate model, as in another process.
    let (images, fidelities) = decoded(&read, &glow(file));
    assert!(fidelities.iter().all(|&fidelity| fidelity == Fidelity::Exact), "{fidelities:?}");
    let mut pixels = vec![0; data.shape().len()];
    for (index, image) in images.iter().enumerate() {
        data.read(index, &mut pixels).unwrap();
        let low = 8 - file.config.bits();
        pixels.iter_mut().for_each(|pixel| *pixel = *pixel >> low << low);
        assert!(*image == pixels, "{} comes back with other pixels", data.name(index));
    }
    encoded
}

/// More images than are encoded at once, so that decoding divides the batches differently.
#[test]
fn every_image_of_every_model_is_reconstructed() {
    let sound = check_round_trip(&model_file(0.05), Arc::new(Portraits::new(70, 32, 0)));
    assert!(sound.file.kept.is_empty() && sound.not_finite.is_empty());

    let rough = check_round_trip(&model_file(ROUGH), Arc::new(Patterns(70)));
    assert!(!rough.file.kept.is_empty() && rough.file.kept.len() < 70, "{} are kept", rough.file.kept.len());

    let mut five_bits = model_file(ROUGH);
    five_bits.config = GlowConfig { bits: 5, ..config() }.into();
    check_round_trip(&five_bits, Arc::new(Patterns(10)));

    let mut overflowing = model_file(0.05);
    overflowing.weights.fill(100.0);
    let lost = check_round_trip(&overflowing, Arc::new(Patterns(5)));
    assert_eq!(lost.not_finite, [0, 1, 2, 3, 4]);
    assert_eq!(lost.file.kept.len(), 5);
}

/// Values do not depend on the number of images encoded or decoded at once.
#[test]
fn latents_do_not_depend_on_the_batch_size() {
    let file = model_file(0.5);
    let data: Arc<dyn Dataset> = Arc::new(Patterns(66));
    let all = LatentsFile::encode(&glow(&file), &data, None).unwrap().file;
    let (images, _) = decoded(&all, &glow(&file));
    for index in [0, 1, 63, 64, 65] {
        let one: Arc<dyn Dataset> = Arc::new(Subset::new(Arc::clone(&data), vec![index]));
        let alone = LatentsFile::encode(&glow(&file), &one, None).unwrap().file;
        assert!(alone.latents == all.latents.select(&[index]));
        assert_eq!(alone.checksums[0], all.checksums[index]);
        assert!(decoded(&alone, &glow(&file)).0[0] == images[index]);
    }
}

#[test]
fn edited_latents_and_other_pixels_are_distinguished() {
    let file = model_file(ROUGH);
    let encoded =
        LatentsFile::encode(&glow(&file), &(Arc::new(Patterns(12)) as Arc<dyn Dataset>), None).unwrap();
    let mut edited = encoded.file.clone();
    let kept = *edited.kept.keys().next().unwrap();
    let free = (0..12).find(|index| !edited.kept.contains_key(index)).unwrap();
    let other = (free + 1..12).find(|index| !edited.kept.contains_key(index)).unwrap();
    for index in [kept, free] {
        edited.latents.0[1][[index, 0, 0, 0]] += 1.0;
    }
    edited.checksums[other].pixels ^= 1;
    let (images, fidelities) = decoded(&edited, &glow(&file));
    for (index, fidelity) in fidelities.into_iter().enumerate() {
        let expected = match index {
            _ if index == kept || index == free => Fidelity::Edited,
            _ if index == other => Fidelity::Different,
            _ => Fidelity::Exact,
        };
        assert_eq!(fidelity, expected, "image {index}");
    }
    let plain = glow(&file).decode(&edited.latents.select(&[kept]), &[]).unwrap();
    assert!(images[kept] == plain.into_bytes(), "edited latents count, and not the pixels kept");

    edited.latents.0[0][[free, 0, 0, 0]] = f32::NAN;
    assert_eq!(decoded(&edited, &glow(&file)).1[free], Fidelity::NotFinite);
}

/// A model with finite weights but non-finite values decodes no image.
#[test]
fn images_of_values_that_are_not_finite_are_named() {
    let mut file = model_file(0.05);
    let dataset = Arc::new(Patterns(3)) as Arc<dyn Dataset>;
    let mut encoded = LatentsFile::encode(&glow(&file), &dataset, None).unwrap().file;
    encoded.kept.clear();
    file.weights.fill(1e30);
    assert_eq!(decoded(&encoded, &glow(&file)).1, [Fidelity::NotFinite; 3]);
    encoded.checksums.clear();
    assert_eq!(decoded(&encoded, &glow(&file)).1, [Fidelity::NotFinite; 3]);
}

/// Files of earlier versions and of other programs have no checksums.
#[test]
fn files_without_checksums_are_read() {
    let file = model_file(0.05);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents");
    let encoded =
        LatentsFile::encode(&glow(&file), &(Arc::new(Patterns(3)) as Arc<dyn Dataset>), None).unwrap();
    encoded.file.write(&path).unwrap();
    let mut old = TensorFile::read(&path).unwrap();
    old.tensors.retain(|name, _| name.starts_with("eps."));
    let header = serde_json::json!({
        "config": file.config,
        "model": file.fingerprint(),
        "images": encoded.file.images,
    });
    old.write(&path, "glow.latents", &header).unwrap();
    let read = LatentsFile::read(&path).unwrap();
    assert!(read.latents == encoded.file.latents);
    assert_eq!(decoded(&read, &glow(&file)).1, [Fidelity::Unknown; 3]);
}
