//! The pretrained model in the program: its results must never change.

use std::path::Path;
use std::sync::Arc;

use glowflow::card::{Card, README};
use glowflow::evaluate::{Draws, Inversion, evaluate};
use glowflow::faces::{self, Faces};
use glowflow::latent::{DIRECTIONS, Directions, manipulate};
use glowflow::train::{CONFIG, RunConfig, class_names, evaluated, run_folder, trained};
use glowflow::{Dequantization, Error, Latents, Model, ModelFile, pretrained};
use glowflow_data::portraits::{ATTRIBUTES, EYES, Portraits, measure};
use glowflow_data::{Dataset, ImageShape, Subset, load_image};
use ndarray::{Array4, Axis};

/// Its fingerprint.
const FINGERPRINT: u32 = 0xad38_96ff;
/// Bits per dimension of [`sample`] at bin centres.
const MIDPOINT: f64 = 0.893_933_014_086_938;

fn name() -> &'static Path {
    Path::new(pretrained::PORTRAITS)
}

fn model() -> Model {
    Model::from_pretrained("portraits").unwrap()
}

/// The sample of temperature 0.7 and seed 3, as drawn when the model was created.
fn sample() -> Array4<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pretrained/portraits/sample.png");
    let pixels = load_image(&path, ImageShape { height: 64, width: 64, channels: 3 }).unwrap();
    Array4::from_shape_vec((1, 64, 64, 3), pixels).unwrap()
}

fn test_images(count: usize) -> Array4<u8> {
    let portraits = Portraits::new(1000, 64, 1);
    let mut pixels = vec![0; count * portraits.shape().len()];
    let images = pixels.chunks_exact_mut(portraits.shape().len());
    images.enumerate().for_each(|(i, image)| portraits.read(i, image).unwrap());
    Array4::from_shape_vec((count, 64, 64, 3), pixels).unwrap()
}

#[test]
fn likelihoods_and_samples_are_unchanged() {
    let model = model();
    assert_eq!(model.fingerprint(), FINGERPRINT, "{:08x}", model.fingerprint());
    let bits = model.bits_per_dim(sample().view(), &[], Draws::Midpoint).unwrap()[0];
    assert!((bits / MIDPOINT - 1.0).abs() < 1e-6, "{bits}");

    // CPUs round differently, and a value at the border of two bins may fall into either.
    let (drawn, pinned) = (model.sample(1, 0.7, &[], 3).unwrap().pixels, sample());
    let differences: Vec<u8> = drawn.iter().zip(&pinned).map(|(a, b)| a.abs_diff(*b)).collect();
    assert!(differences.iter().all(|&d| d <= 9), "more than a bin");
    assert!(differences.iter().filter(|&&d| d > 0).count() <= 12);
}

#[test]
fn every_pixel_is_reconstructed() {
    let model = model();
    let images = test_images(8);
    let latents = model.encode(images.view(), &[], Dequantization::Typical).unwrap().latents;
    let bin = |pixel: &u8| pixel >> 3;
    let decoded = model.decode(&latents, &[]).unwrap().pixels;
    assert!(decoded.iter().map(bin).eq(images.iter().map(bin)));
}

#[test]
fn directions_change_their_attribute() {
    let model = model();
    let directions = Directions::read(&name().join(DIRECTIONS), &model).unwrap();
    let names: Vec<&str> = directions.list.iter().map(|direction| direction.about.name.as_str()).collect();
    assert_eq!(names, ATTRIBUTES);
    assert!(directions.list.iter().all(|direction| direction.about.weakness().is_none()));

    let images = test_images(12);
    let latents = model.encode(images.view(), &[], Dequantization::Typical).unwrap().latents;
    let shown = |pixels: &Array4<u8>| -> Vec<_> {
        let image = |image: ndarray::ArrayView3<u8>| measure(&image.iter().copied().collect::<Vec<_>>(), 64);
        pixels.axis_iter(Axis(0)).map(image).collect()
    };
    let before = shown(&images);
    for (a, direction) in directions.list.iter().enumerate() {
        let moved = before.iter().enumerate().map(|(i, scores)| {
            let alpha = if scores[a] > 0.0 { -1.5 } else { 1.5 };
            manipulate(&latents.slice(i..i + 1), &[(direction, alpha)]).unwrap()
        });
        let moved = Latents::concatenate(&moved.collect::<Vec<_>>()).unwrap();
        let after = shown(&model.decode(&moved, &[]).unwrap().pixels);
        let changed = before.iter().zip(&after).filter(|(b, c)| (b[a] > 0.0) != (c[a] > 0.0)).count();
        assert!(changed >= 9, "{} changed in {changed} of 12 portraits", ATTRIBUTES[a]);
    }
}

#[test]
fn its_card_matches_the_model() {
    let (model, card) = (model(), Card::read(name()).unwrap());
    assert_eq!(card.fingerprint, format!("{:08x}", model.fingerprint()));
    assert_eq!((card.parameters, &card.model), (model.parameters(), model.config()));
    assert_eq!(card.license, "mit");
    let known = card.evaluation.unwrap();
    let test: Arc<dyn Dataset> = Arc::new(Portraits::new(1000, 64, 1));
    let part: Arc<dyn Dataset> = Arc::new(Subset::new(test, (0..64).collect()));
    let inversion = Inversion { images: 16, seed: 0 };
    let evaluation = evaluate(&model, &part, Draws::default(), inversion, |_| Ok(())).unwrap();
    let (bits, error) = (known.bits_per_dim.unwrap(), evaluation.standard_error);
    assert!((evaluation.bits_per_dim - bits).abs() < 4.0 * error, "{} ± {error}", evaluation.bits_per_dim);
    assert_eq!((evaluation.exact, known.exact), (16, known.inverted));

    // The demo page shows these.
    assert_eq!(trained(name()).unwrap().steps, card.training.steps);
    assert_eq!(evaluated(name()).unwrap().bits_per_dim, bits);
}

/// The command used to train it.
fn command() -> Vec<String> {
    let readme = pretrained::bytes(&name().join(README)).unwrap();
    let readme = String::from_utf8(readme.to_vec()).unwrap();
    let line = readme.lines().find_map(|line| line.strip_prefix("$ glowflow train ")).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_command_in_its_card_has_its_configuration() {
    let words = command();
    let values = |option: &str| -> Vec<String> {
        let pairs = words.windows(2).filter(|pair| pair[0] == option);
        pairs.map(|pair| pair[1].clone()).collect()
    };
    let mut overrides = values("--set");
    overrides.push(format!("data.path={}", values("--data")[0]));
    let mut resolved = RunConfig::resolve(None, None, &overrides).unwrap();
    let mut written = RunConfig::read(&name().join(CONFIG)).unwrap();
    let steps = Card::read(name()).unwrap().training.steps;
    let end = values("--steps").first().map(|steps| steps.parse().unwrap()).or(resolved.train.steps);
    assert_eq!(end, Some(steps));
    // Resolved by the run.
    (resolved.train.precision, written.train.precision) = Default::default();
    assert_eq!(resolved, written);
}

#[test]
fn its_name_is_accepted_wherever_a_model_is_expected() {
    let file = ModelFile::read(name()).unwrap();
    assert_eq!(file.fingerprint(), FINGERPRINT);
    assert_eq!(run_folder(&ModelFile::path(name())), name());
    for path in [name().to_owned(), ModelFile::path(name())] {
        assert_eq!(faces::read(&path).unwrap(), Some(Faces::Aligned(EYES)));
        assert!(class_names(&path, &file.config).is_empty());
    }
    let tuned = RunConfig::fine_tune(name(), None, None, &[]).unwrap();
    assert_eq!(tuned.train.from.unwrap(), ModelFile::path(name()));
    assert_eq!(tuned.train.from_fingerprint.unwrap(), format!("{FINGERPRINT:08x}"));

    // It is embedded in the program, and small.
    let names = ["model.safetensors", DIRECTIONS, CONFIG, README, "config.json", "eyes.toml"];
    let sizes = names.map(|file| pretrained::bytes(&name().join(file)).unwrap().len());
    assert!(sizes.iter().sum::<usize>() < 1_500_000, "{sizes:?}");
    assert!(pretrained::bytes(Path::new("portraits/other")).is_none());
    assert!(pretrained::bytes(Path::new("other/model.safetensors")).is_none());
    let message = match faces::write(name(), Faces::None) {
        Err(Error::Input(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(message.contains("is included in the program"), "{message}");
}
