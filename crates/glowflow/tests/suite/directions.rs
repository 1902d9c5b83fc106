//! Attribute directions: computation, measurement, files, and moving along them.

use std::path::Path;
use std::sync::Arc;

use glowflow::latent::finding::MIN_PER_SIDE;
use glowflow::latent::{Directions, Found, find_directions, manipulate, sweep};
use glowflow::tensor_file::TensorFile;
use glowflow::{Dequantization, Error, GlowConfig, Latents, Model, ModelFile};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Attributes, Dataset, Subset};
use glowflow_kernels::Cpu;
use ndarray::{Array4, Axis};

/// More images than a model encodes at once.
const IMAGES: usize = 300;

fn config() -> GlowConfig {
    GlowConfig { image: [16, 16, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() }
}

fn glow(seed: u64) -> Model {
    Model::new(config(), seed).unwrap()
}

fn portraits() -> Arc<Portraits> {
    Arc::new(Portraits::new(IMAGES, 16, 5))
}

/// A table of the images' attributes with the header `columns`; line `i` is `rows(i)`.
fn table(columns: &str, rows: impl Fn(usize) -> String) -> Attributes {
    let file = tempfile::NamedTempFile::new().unwrap();
    let portraits = portraits();
    let rows = (0..IMAGES).map(|i| format!("{},{}\n", portraits.name(i), rows(i)));
    std::fs::write(file.path(), format!("image,{columns}\n{}", rows.collect::<String>())).unwrap();
    Attributes::read(file.path(), &*portraits).unwrap()
}

fn find(glow: &Model, attributes: &Attributes, remove: &[&str]) -> Result<Found, Error> {
    let remove: Vec<String> = remove.iter().map(|&name| name.to_owned()).collect();
    let dataset: Arc<dyn Dataset> = portraits();
    find_directions(glow, &dataset, attributes, &remove, None)
}

/// The images held out for measuring if all are labelled: a fifth, drawn with seed 0.
fn held_out() -> Vec<usize> {
    Subset::sample(portraits(), IMAGES / 5, 0).indices().to_vec()
}

/// Latents of all images, encoded in one call.
fn latents(glow: &Model) -> Latents {
    let portraits = portraits();
    let mut pixels = Array4::<u8>::zeros((IMAGES, 16, 16, 3));
    for (i, mut image) in pixels.axis_iter_mut(Axis(0)).enumerate() {
        portraits.read(i, image.as_slice_mut().unwrap()).unwrap();
    }
    glow.encode(pixels.view(), &[], Dequantization::Midpoint).unwrap().latents
}

fn flat(latents: &Latents) -> Vec<f64> {
    latents.0.iter().flatten().map(|&x| f64::from(x)).collect()
}

fn cosine(directions: &Directions, a: &str, b: &str) -> f64 {
    let [a, b] = [a, b].map(|name| &directions.get(name).unwrap().latents);
    a.dot(b) / (a.dot(a) * b.dot(b)).sqrt()
}

#[test]
fn a_direction_is_the_difference_of_means_and_measured_on_other_images() {
    let glow = glow(1);
    let portraits = portraits();
    let attributes = Attributes::of_portraits(&portraits);
    let all = latents(&glow);
    let points: Vec<Vec<f64>> = (0..IMAGES).map(|i| flat(&all.slice(i..i + 1))).collect();
    let Found { directions, warnings } = find(&glow, &attributes, &[]).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(directions.list.len(), attributes.names().len());
    let mut imperfect = 0;
    for (column, direction) in directions.list.iter().enumerate() {
        assert_eq!(direction.about.name, attributes.names()[column]);
        let has = |i: usize| attributes.of(i)[column].unwrap();
        let kept = held_out();
        let of = |held_out: bool, with: bool| {
            let kept = &kept;
            (0..IMAGES).filter(move |i| kept.contains(i) == held_out && has(*i) == with)
        };
        let (with, without) = (of(false, true).count(), of(false, false).count());
        assert_eq!((direction.about.positives, direction.about.negatives), (with, without));
        let mean = |with: bool, d: usize| {
            of(false, with).map(|i| points[i][d]).sum::<f64>() / of(false, with).count() as f64
        };
        let found = flat(&direction.latents);
        for (d, found) in found.iter().enumerate() {
            let expected = mean(true, d) - mean(false, d);
            assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found}, not {expected}");
        }

        let along = |i: usize| points[i].iter().zip(&found).map(|(a, b)| a * b).sum::<f64>();
        let pairs = of(true, true).flat_map(|a| of(true, false).map(move |b| (a, b)));
        let right: Vec<f64> = pairs.map(|(a, b)| f64::from(u8::from(along(a) > along(b)))).collect();
        let expected = right.iter().sum::<f64>() / right.len() as f64;
        let auc = direction.about.auc.unwrap();
        assert!((auc.value - expected).abs() < 1e-3, "{auc:?}, not {expected}");
        assert_eq!(auc.standard_error > 0.0, auc.value < 1.0, "{auc:?}");
        assert!(auc.standard_error < 0.1, "{auc:?}");
        imperfect += usize::from(auc.value < 1.0);
    }
    assert!(imperfect > 0, "all directions are perfect: the test is too easy");
}

#[test]
fn too_few_examples_give_a_warning_and_no_auc() {
    let half = |i: usize| i % 2;
    let held_out = held_out();
    let used: Vec<usize> = (0..IMAGES).filter(|i| !held_out.contains(i)).collect();
    // Of the images used, `Few` has one fewer than needed; of those held out, none lacks `Early`.
    let few = |i: usize| usize::from(used[..MIN_PER_SIDE - 1].contains(&i));
    let early = |i: usize| usize::from(held_out.contains(&i) || i.is_multiple_of(3));
    let attributes = table("Half,Few,Early,Never", |i| format!("{},{},{},0", half(i), few(i), early(i)));
    let Found { directions, warnings } = find(&glow(1), &attributes, &[]).unwrap();
    let names: Vec<_> =
        directions.list.iter().map(|d| (d.about.name.as_str(), d.about.auc.is_some())).collect();
    assert_eq!(names, [("Half", true), ("Early", false)]);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (warning, words) in warnings.iter().zip([
        ["Few: no direction from 9", "10 of each"],
        ["Never: no direction from 0", "10 of each"],
        ["Early: not measured", "10 of each"],
    ]) {
        assert!(words.iter().all(|word| warning.contains(word)), "{warning}");
    }
    // Before any image is encoded.
    let error = find(&glow(1), &attributes, &["Few"]).unwrap_err().to_string();
    assert!(error.starts_with("Few: no direction from 9"), "{error}");
    // Unknown counts as neither with nor without the attribute.
    let unknown =
        table("Half,Some", |i| format!("{},{}", half(i), if i < 200 { "" } else { ["0", "1"][half(i)] }));
    let found = find(&glow(1), &unknown, &[]).unwrap().directions;
    let some = &found.get("Some").unwrap().about;
    let known = |with| used.iter().filter(|&&i| i >= 200 && half(i) == with).count();
    assert_eq!((some.positives, some.negatives), (known(1), known(0)));

    let error = find(&glow(1), &table("Never", |_| "0".into()), &[]).unwrap_err();
    assert!(error.to_string().contains("Never: no direction from 0"), "{error}");
}

#[test]
fn attributes_of_every_nth_image_have_directions() {
    let periods = [3, 4, 5, 6, 10];
    let columns = |i: usize| {
        let has = |(period, offset)| u8::from(i % period == offset).to_string();
        let all = periods.iter().flat_map(|&period| [0, period - 1].map(|offset| (period, offset)));
        all.map(has).collect::<Vec<_>>().join(",")
    };
    let attributes = table("a,b,c,d,e,f,g,h,i,j", columns);
    let Found { directions, .. } = find(&glow(1), &attributes, &[]).unwrap();
    assert_eq!(directions.list.len(), 10);
    for (column, direction) in directions.list.iter().enumerate() {
        let all = IMAGES / periods[column / 2];
        let share = direction.about.positives as f64 / all as f64;
        assert!((0.6..0.98).contains(&share), "{share} of {all} images are used, but a fifth is held out");
    }
    // The same images are held out each time.
    assert_eq!(find(&glow(1), &attributes, &[]).unwrap().directions, directions);
}

#[test]
fn latents_that_are_not_finite_give_no_directions() {
    let attributes = table("Half", |i| (i % 2).to_string());
    // Every weight is finite, but their products are not.
    let plain = glow(1);
    let mut file = ModelFile::new(plain.config().clone(), 1).unwrap();
    file.weights.fill(1e30);
    let broken = Model::on(Cpu::new(), &file);
    let error = find(&broken, &attributes, &[]).unwrap_err().to_string();
    assert!(error.contains("not finite") && error.contains(&portraits().name(0)), "{error}");
}

#[test]
fn orthogonal_directions_leave_those_named_alone() {
    let glow = glow(1);
    let attributes = Attributes::of_portraits(&portraits());
    let names = attributes.names();
    let [first, second, third] = [&*names[0], &*names[1], &*names[2]];
    let plain = find(&glow, &attributes, &[]).unwrap().directions;
    assert!(cosine(&plain, first, third).abs() > 1e-3, "there is something to remove");
    let found = find(&glow, &attributes, &[first, second]).unwrap().directions;
    for name in names {
        for other in [first, second] {
            // Each of the named directions lost the projection on the other one; the rest lost both.
            let removed = plain.get(other).unwrap();
            let latents = &found.get(name).unwrap().latents;
            let along = latents.dot(&removed.latents)
                / (latents.dot(latents) * removed.latents.dot(&removed.latents)).sqrt();
            assert_eq!(along.abs() < 1e-4, name != other, "{name} along {other}: {along}");
        }
    }
    // The final directions are measured.
    let aucs = |directions: &Directions| directions.list.iter().map(|d| d.about.auc).collect::<Vec<_>>();
    assert_ne!(aucs(&found), aucs(&plain));

    let error = find(&glow, &attributes, &["Moustache"]).unwrap_err().to_string();
    assert!(error.contains("Moustache") && names.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn attributes_that_always_go_together_can_be_removed_together() {
    let attributes = table("A,Same,Other", |i| format!("{},{},{}", i % 2, i % 2, i % 3 % 2));
    let found = find(&glow(1), &attributes, &["A", "Same"]).unwrap().directions;
    let other = &found.get("Other").unwrap().latents;
    let plain = find(&glow(1), &attributes, &[]).unwrap().directions;
    assert!(flat(other).iter().all(|x| x.is_finite()));
    assert!(
        other.dot(other)
            > 0.1 * plain.get("Other").unwrap().latents.dot(&plain.get("Other").unwrap().latents)
    );
    assert!(other.dot(&plain.get("A").unwrap().latents).abs() < 1e-3);
}

fn written(glow: &Model, folder: &Path) -> (Directions, std::path::PathBuf) {
    let directions = find(glow, &Attributes::of_portraits(&portraits()), &[]).unwrap().directions;
    let path = folder.join("directions.safetensors");
    directions.write(&path).unwrap();
    (directions, path)
}

#[test]
fn a_file_round_trips_and_belongs_to_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let (directions, path) = written(&glow(1), folder.path());
    assert_eq!(Directions::read(&path, &glow(1)).unwrap(), directions);

    let refuse = |path: &Path, glow: &Model, words: &[&str]| {
        let error = Directions::read(path, glow).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refuse(&path, &glow(2), &["another model"]);
    refuse(&folder.path().join("nowhere"), &glow(1), &["nowhere", "does not exist"]);
    // No memory must be allocated for shapes that the model does not have.
    for (levels, image) in [(1 << 60, [16, 16, 3]), (1 << 31, [16, 16, 3]), (2, [0, 0, 3])] {
        let config = GlowConfig { levels, image, ..config() };
        let other = folder.path().join("other");
        Directions { config: config.into(), ..directions.clone() }.write(&other).unwrap();
        refuse(&other, &glow(1), &["another model"]);
    }
    // Files that are truncated, lack a tensor, or have another format.
    let bytes = std::fs::read(&path).unwrap();
    let broken = folder.path().join("broken");
    for bytes in [&bytes[..bytes.len() / 2], &bytes[..7], b"no safetensors at all"] {
        std::fs::write(&broken, bytes).unwrap();
        refuse(&broken, &glow(1), &["broken"]);
    }
    let mut file = TensorFile::read(&path).unwrap();
    let header: serde_json::Value = file.header("glow.directions", &path).unwrap();
    file.tensors.remove("0.eps.0");
    file.write(&broken, "glow.directions", &header).unwrap();
    refuse(&broken, &glow(1), &["0.eps.0", "[8, 8, 6]"]);
}

#[test]
fn a_move_by_nothing_changes_no_bit_and_no_pixel() {
    let glow = glow(1);
    let folder = tempfile::tempdir().unwrap();
    let (directions, _) = written(&glow, folder.path());
    let all = latents(&glow).slice(0..20);
    let still: Vec<_> = directions.list.iter().map(|direction| (direction, 0.0)).collect();
    let moved = manipulate(&all, &still).unwrap();
    let bits = |latents: &Latents| latents.0.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&moved) == bits(&all));
    let decoded = glow.decode(&moved, &[]).unwrap().pixels;
    let portraits = portraits();
    for (i, image) in decoded.axis_iter(Axis(0)).enumerate() {
        let mut pixels = vec![0; 16 * 16 * 3];
        portraits.read(i, &mut pixels).unwrap();
        assert!(image.iter().eq(&pixels), "portrait {i} comes back with other pixels");
    }
}

#[test]
fn a_move_adds_its_part_of_each_direction_to_each_image() {
    let glow = glow(1);
    let folder = tempfile::tempdir().unwrap();
    let (directions, _) = written(&glow, folder.path());
    let [a, b] = [&directions.list[0], &directions.list[1]];
    let two = latents(&glow).slice(0..2);
    let moved = manipulate(&two, &[(a, 0.5), (b, -1.0)]).unwrap();
    for i in 0..2 {
        let (before, after) = (flat(&two.slice(i..i + 1)), flat(&moved.slice(i..i + 1)));
        let parts = flat(&a.latents).into_iter().zip(flat(&b.latents));
        for ((before, after), (a, b)) in before.iter().zip(after).zip(parts) {
            let expected = before + 0.5 * a - b;
            assert!((after - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{after}, not {expected}");
        }
    }

    let one = two.slice(0..1);
    let frames = sweep(&one, a, 5).unwrap();
    assert_eq!(frames.batch(), 5);
    for (frame, alpha) in [(0, -1.0), (1, -0.5), (2, 0.0), (4, 1.0)] {
        assert_eq!(frames.slice(frame..frame + 1), manipulate(&one, &[(a, alpha)]).unwrap(), "{alpha}");
    }
}

#[test]
fn moves_too_far_or_of_another_model_are_refused() {
    let glow = glow(1);
    let folder = tempfile::tempdir().unwrap();
    let (directions, _) = written(&glow, folder.path());
    let direction = &directions.list[0];
    let one = latents(&glow).slice(0..1);
    for alpha in [3.01, -3.01, f64::NAN, f64::INFINITY] {
        let error = manipulate(&one, &[(direction, alpha)]).unwrap_err().to_string();
        assert!(error.contains(&alpha.to_string()) && error.contains("−3 to 3"), "{error}");
    }
    let deeper = GlowConfig { levels: 3, ..config() };
    let other = Model::new(deeper, 1).unwrap().draw(1, 0.7, 1).unwrap();
    let error = manipulate(&other, &[(direction, 0.5)]).unwrap_err().to_string();
    assert!(error.contains("another shape"), "{error}");
}
