//! Computes attribute directions: differences of mean latents, and their AUC on held-out images.

use std::sync::Arc;

use glowflow_data::{Attributes, Dataset, Subset};
use ndarray::Array4;

use super::directions::{About, Auc, Direction, Directions};
use super::encode_each;
use crate::{Error, Latents, Model, ModelConfig};

/// Every n-th labelled image, on average, is held out to measure directions.
const HELD_OUT: usize = 5;

/// Seed for choosing the held-out images, the same in every run.
const HELD_OUT_SEED: u64 = 0;

/// Minimum number of images with an attribute, and without it, for its direction, and also for its AUC.
pub const MIN_PER_SIDE: usize = 10;

/// The result of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The directions.
    pub directions: Directions,
    /// Attributes without a direction or an AUC, with the reason.
    pub warnings: Vec<String>,
}

/// Computes the direction of each attribute and measures it, over the labelled images of a dataset. Images
/// are read as a stream, so the dataset may exceed memory.
///
/// The directions named in `remove` are removed from all others, before measuring; see
/// [`Directions::orthogonalize`]. `label`, if given, replaces all classes of the data. Images with non-finite
/// latents are left out, with a warning.
///
/// # Errors
/// Errors of reading and of the model; [`Error::Input`] if no image is labelled, no image has finite latents,
/// no attribute has a direction, or one of `remove` has none.
pub fn find_directions(
    glow: &Model,
    dataset: &Arc<dyn Dataset>,
    attributes: &Attributes,
    remove: &[String],
    label: Option<usize>,
) -> Result<Found, Error> {
    let names = attributes.names();
    if let Some(unknown) = remove.iter().find(|name| !names.contains(name)) {
        return Err(Error::Input(format!(
            "unknown attribute {unknown:?}, expected one of {}",
            names.join(", ")
        )));
    }
    let (used, held_out) = divide(dataset, attributes);
    if used.is_empty() {
        return Err(Error::Input("no image has a label, so no direction can be computed".into()));
    }

    for name in remove {
        let column = names.iter().position(|other| other == name).unwrap_or_default();
        let of_side = |side| used.iter().filter(|&&image| attributes.of(image)[column] == Some(side)).count();
        let (positives, negatives) = (of_side(true), of_side(false));
        if positives.min(negatives) < MIN_PER_SIDE {
            return Err(Error::Input(too_few(name, positives, negatives)));
        }
    }

    let dimensions = glow.config().dimensions();
    let mut sides = vec![[Mean::new(dimensions), Mean::new(dimensions)]; names.len()];
    let mut non_finite = NonFinite::default();
    let part: Arc<dyn Dataset> = Arc::new(Subset::new(Arc::clone(dataset), used.clone()));
    encode_each(glow, &part, label, |batch| {
        for (i, &image) in batch.images.iter().enumerate() {
            let z = flat(&batch.encoded.latents, i);
            if !non_finite.check(&z, || part.name(image)) {
                continue;
            }
            for (sides, &answer) in sides.iter_mut().zip(attributes.of(used[image])) {
                if let Some(positive) = answer {
                    sides[usize::from(positive)].add(&z);
                }
            }
        }
        Ok(())
    })?;
    non_finite.check_any_left()?;

    let mut warnings = vec![];
    let mut directions =
        Directions { config: glow.config().clone(), model: glow.fingerprint(), list: vec![] };
    for (name, [negative, positive]) in names.iter().zip(sides) {
        let (positives, negatives) = (positive.count, negative.count);
        if positives.min(negatives) < MIN_PER_SIDE {
            warnings.push(too_few(name, positives, negatives));
            continue;
        }
        let difference: Vec<f32> =
            positive.mean().zip(negative.mean()).map(|(p, n)| (p - n) as f32).collect();
        if !difference.iter().all(|x| x.is_finite()) {
            warnings.push(format!("{name}: no direction, because the latents of its images are too large"));
            continue;
        }
        let about = About { name: name.clone(), positives, negatives, auc: None };
        directions.list.push(Direction { about, latents: shaped(glow.config(), difference)? });
    }
    if directions.list.is_empty() {
        return Err(Error::Input(format!("no direction can be computed: {}", warnings.join("; "))));
    }
    directions.orthogonalize(remove)?;
    warnings.extend(measure(glow, dataset, attributes, &held_out, &mut directions, label, &mut non_finite)?);
    warnings.extend(non_finite.warning());
    Ok(Found { directions, warnings })
}

/// The reason why an attribute has no direction.
fn too_few(name: &str, positives: usize, negatives: usize) -> String {
    format!(
        "{name}: no direction from {positives} images with it and {negatives} without; {MIN_PER_SIDE} of each are needed"
    )
}

/// Splits the labelled images at random into those for computing directions and those held out.
fn divide(dataset: &Arc<dyn Dataset>, attributes: &Attributes) -> (Vec<usize>, Vec<usize>) {
    let is_labelled = |image: &usize| attributes.of(*image).iter().any(Option::is_some);
    let labelled: Vec<usize> = (0..dataset.len()).filter(is_labelled).collect();
    let all: Arc<dyn Dataset> = Arc::new(Subset::new(Arc::clone(dataset), labelled.clone()));
    let sample = Subset::sample(all, labelled.len() / HELD_OUT, HELD_OUT_SEED);
    let mut held_out = sample.indices().iter().copied().peekable();
    let (mut used, mut rest) = (vec![], vec![]);
    for (i, image) in labelled.into_iter().enumerate() {
        if held_out.next_if_eq(&i).is_some() { rest.push(image) } else { used.push(image) }
    }
    (used, rest)
}

/// Counts images with non-finite latents, which are ignored otherwise.
#[derive(Default)]
struct NonFinite {
    seen: usize,
    count: usize,
    first: Option<String>,
}

impl NonFinite {
    /// Returns whether the latents of an image are usable.
    fn check(&mut self, z: &[f32], name: impl FnOnce() -> String) -> bool {
        let finite = z.iter().all(|x| x.is_finite());
        self.seen += 1;
        if !finite {
            self.count += 1;
            self.first.get_or_insert_with(name);
        }
        finite
    }

    /// Fails if no image was usable.
    fn check_any_left(&self) -> Result<(), Error> {
        match &self.first {
            Some(first) if self.count == self.seen => Err(Error::Input(format!(
                "the model's latents are not finite for any of {} images, such as {first}; the model may be \
                 damaged, or its training diverged",
                self.count
            ))),
            _ => Ok(()),
        }
    }

    fn warning(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        let (count, seen) = (self.count, self.seen);
        Some(format!(
            "{count} of {seen} images have latents that are not finite and are ignored, such as {first}"
        ))
    }
}

/// Measures directions on the images `held_out`; returns warnings about those that could not be measured.
fn measure(
    glow: &Model,
    dataset: &Arc<dyn Dataset>,
    attributes: &Attributes,
    held_out: &[usize],
    directions: &mut Directions,
    label: Option<usize>,
    non_finite: &mut NonFinite,
) -> Result<Vec<String>, Error> {
    let columns: Vec<usize> = (0..attributes.names().len())
        .filter(|&column| directions.list.iter().any(|d| d.about.name == attributes.names()[column]))
        .collect();
    // For each direction: the projection of each image, and whether it has the attribute.
    let mut projections: Vec<Vec<(f64, bool)>> = vec![vec![]; directions.list.len()];
    if !held_out.is_empty() {
        let part: Arc<dyn Dataset> = Arc::new(Subset::new(Arc::clone(dataset), held_out.to_vec()));
        encode_each(glow, &part, label, |batch| {
            for (i, &image) in batch.images.iter().enumerate() {
                let z = batch.encoded.latents.slice(i..i + 1);
                if !non_finite.check(&flat(&z, 0), || part.name(image)) {
                    continue;
                }
                let answers = attributes.of(held_out[image]);
                for ((to, direction), &column) in projections.iter_mut().zip(&directions.list).zip(&columns) {
                    to.extend(answers[column].map(|positive| (z.dot(&direction.latents), positive)));
                }
            }
            Ok(())
        })?;
    }
    let mut warnings = vec![];
    for (direction, projections) in directions.list.iter_mut().zip(projections) {
        let positives = projections.iter().filter(|(_, positive)| *positive).count();
        let negatives = projections.len() - positives;
        if positives.min(negatives) < MIN_PER_SIDE {
            warnings.push(format!(
                "{}: not measured, because of the held-out images {positives} have it and {negatives} do not; {MIN_PER_SIDE} of \
                 each are needed",
                direction.about.name
            ));
        } else {
            direction.about.auc = Some(auc(projections));
        }
    }
    Ok(warnings)
}

/// A running mean of latents.
#[derive(Clone)]
struct Mean {
    count: usize,
    sum: Vec<f64>,
}

impl Mean {
    fn new(len: usize) -> Self {
        Self { count: 0, sum: vec![0.0; len] }
    }

    fn add(&mut self, z: &[f32]) {
        self.count += 1;
        self.sum.iter_mut().zip(z).for_each(|(sum, &z)| *sum += f64::from(z));
    }

    fn mean(&self) -> impl Iterator<Item = f64> + '_ {
        self.sum.iter().map(|sum| sum / self.count as f64)
    }
}

/// Concatenates the latents of one image over all levels.
fn flat(latents: &Latents, image: usize) -> Vec<f32> {
    latents.slice(image..image + 1).0.iter().flatten().copied().collect()
}

/// The inverse of [`flat`].
fn shaped(config: &ModelConfig, flat: Vec<f32>) -> Result<Latents, Error> {
    let mut rest = flat.into_iter();
    let level = |[height, width, channels]: [usize; 3]| {
        let values = rest.by_ref().take(height * width * channels).collect();
        Array4::from_shape_vec((1, height, width, channels), values)
            .map_err(|e| Error::Input(format!("the latents do not have the model's size: {e}")))
    };
    Ok(Latents(config.latent_shapes().into_iter().map(level).collect::<Result<_, _>>()?))
}

/// Computed from the ranks of the positives (Mann-Whitney); equal projections share their mean rank.
fn auc(mut projections: Vec<(f64, bool)>) -> Auc {
    projections.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut positives, mut ranks, mut rank) = (0.0, 0.0, 0.0);
    for tied in projections.chunk_by(|a, b| a.0 == b.0) {
        let of_tied = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        positives += of_tied;
        ranks += of_tied * (rank + (tied.len() as f64 + 1.0) / 2.0);
        rank += tied.len() as f64;
    }
    let negatives = projections.len() as f64 - positives;
    let value = (ranks - positives * (positives + 1.0) / 2.0) / (positives * negatives);
    let (q1, q2) = (value / (2.0 - value), 2.0 * value * value / (1.0 + value));
    let square = value * value;
    let variance =
        (value * (1.0 - value) + (positives - 1.0) * (q1 - square) + (negatives - 1.0) * (q2 - square))
            / (positives * negatives);
    Auc { value, standard_error: variance.max(0.0).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_pairs_in_the_right_order() {
        let points = [(0.1, false), (0.4, true), (0.35, false), (0.8, true), (0.4, false), (-3.0, true)];
        let mut pairs = vec![];
        for (a, _) in points.iter().filter(|p| p.1) {
            for (b, _) in points.iter().filter(|p| !p.1) {
                pairs.push(if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                });
            }
        }
        let expected = pairs.iter().sum::<f64>() / pairs.len() as f64;
        assert!((auc(points.to_vec()).value - expected).abs() < 1e-12);
    }

    #[test]
    fn images_without_finite_latents_are_counted_and_named() {
        let mut non_finite = NonFinite::default();
        assert!(non_finite.check(&[1.0, 2.0], || "a.png".into()));
        assert_eq!(non_finite.warning(), None);
        assert!(!non_finite.check(&[1.0, f32::NAN], || "b.png".into()));
        assert!(!non_finite.check(&[f32::INFINITY], || "c.png".into()));
        assert!(non_finite.check_any_left().is_ok());
        let warning = non_finite.warning().unwrap();
        assert!(warning.contains("2 of 3 images") && warning.contains("b.png"), "{warning}");
    }

    #[test]
    fn perfect_order_has_the_whole_area_and_no_error() {
        let points = (0..20).map(|i| (f64::from(i), i >= 10)).collect();
        assert_eq!(auc(points), Auc { value: 1.0, standard_error: 0.0 });
    }
}
