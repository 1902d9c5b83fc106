//! `sample`, `encode` and `decode`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::latent::at_temperatures;
use glowflow::latents_file::{EncodedFile, Fidelity, LatentsFile};
use glowflow::train::class_names;
use glowflow::{Model, check_count};
use glowflow_report::picture;
use ndarray::ArrayView3;
use serde_json::json;

use super::picture_paths::picture_paths;
use super::{
    PictureOutput, check_folder_output, check_output, check_picture, check_pictures, check_replaced,
    class_choices, class_of, counted, left_out, named, print_json, report_broken, save_image, say, size_of,
    tell, test_data, verdict, watched,
};
use crate::{ExitCode, args};

/// Writes one image to a PNG file below a folder.
fn save_below(glow: &Model, image: ArrayView3<u8>, folder: &Path, name: &Path) -> anyhow::Result<()> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let pixels: Vec<u8> = image.iter().copied().collect();
    save_image(glow, &pixels, &path)
}

/// The file of a sample.
fn sample_path(index: usize) -> PathBuf {
    format!("{index:05}.png").into()
}

pub fn sample(args: &args::Sample, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load(args.precision, &args.model)?;
    let count = args.count.unwrap_or(if args.temperatures.is_empty() { 64 } else { 8 });
    anyhow::ensure!(count > 0, "--count must be at least 1, got 0");
    let classes = glow.config().classes();
    anyhow::ensure!(
        classes == 0 || args.class.is_some(),
        "the model has {classes} classes: give the class to sample with {}",
        class_choices(classes, &class_names(&args.model, glow.config()))
    );
    let class = class_of(args.class.as_deref(), &args.model, &glow)?;
    let mut counts = vec![count];
    if !args.temperatures.is_empty() {
        counts.push(args.temperatures.len());
    }
    // Checked first, because the labels are allocated per image.
    check_count(&counts, glow.config().dimensions())?;
    let out = match &args.out_dir {
        Some(folder) => {
            check_folder_output(folder)?;
            check_replaced(folder, &(0..count).map(sample_path).collect::<Vec<_>>(), size_of(&glow))?;
            None
        }
        None => {
            check_picture(&glow, &counts)?;
            Some(PictureOutput::check(args.out.as_deref(), "samples", &args.model, &[], &[])?)
        }
    };
    let labels = class.map_or(vec![], |class| vec![class; count]);
    let (samples, columns) = if args.temperatures.is_empty() {
        let root = count.isqrt();
        let columns = root + usize::from(root * root < count);
        (glow.sample(count, args.temperature, &labels, args.seed)?, columns)
    } else {
        let samples = at_temperatures(&glow, count, &args.temperatures, &labels, args.seed)?;
        (samples, args.temperatures.len())
    };
    let finite = samples.all_finite();
    if let Some(folder) = &args.out_dir {
        for (i, image) in samples.pixels.outer_iter().enumerate() {
            save_below(&glow, image, folder, &sample_path(i))?;
        }
    }
    if let Some(out) = out {
        let picture = picture::grid(&samples.into_bytes(), glow.config().image(), columns);
        out.write(&picture::encode(&picture).map_err(anyhow::Error::msg)?, common.json)?;
    }
    check_pictures(finite)
}

pub fn encode(args: &args::Encode, common: &args::Common) -> anyhow::Result<ExitCode> {
    check_output(&args.out, &args.model, &[&args.data])?;
    let glow = common.load_exact(&args.model)?;
    let label = class_of(args.class.as_deref(), &args.model, &glow)?;
    let dataset = watched(test_data(&args.data, &args.model, &glow, label)?);
    let EncodedFile { file, not_finite } = LatentsFile::encode(&glow, &dataset, label)?;
    file.write(&args.out)?;
    report_broken(&dataset);
    let (count, kept) = (file.images.len(), file.kept.len());
    let names = |indices: &mut dyn Iterator<Item = &usize>| {
        named(&indices.map(|&index| file.images[index].as_str()).collect::<Vec<_>>())
    };
    if kept > 0 {
        tell(&format!(
            "warning: {kept} of {count} images do not invert exactly: {}. The file also stores their pixels, so that \
             decode restores them exactly",
            names(&mut file.kept.keys())
        ));
    }
    if common.json {
        print_json(&json!({ "images": count, "kept_as_pixels": kept }))?;
    } else {
        let kept = if kept > 0 { format!(", {kept} of them kept as pixels") } else { String::new() };
        say!("{}{kept}", counted(count, "image"));
    }
    let without_latents = (!not_finite.is_empty()).then(|| {
        format!(
            "the latents of {} of {count} images are not finite, and are stored as 0: {}; the model may be damaged, or its \
             training diverged",
            not_finite.len(),
            names(&mut not_finite.iter())
        )
    });
    verdict([without_latents, left_out(&*dataset, args.allow_broken)])
}

pub fn decode(args: &args::Decode, common: &args::Common) -> anyhow::Result<ExitCode> {
    check_folder_output(&args.out_dir)?;
    let glow = common.load_exact(&args.model)?;
    let file = read_latents(&args.latents, args.edited)?;
    anyhow::ensure!(
        file.model == glow.fingerprint(),
        "{} contains latents of another model than {}: decode them with the model that encoded them",
        args.latents.display(),
        args.model.display()
    );
    let paths = picture_paths(&file.images);
    check_replaced(&args.out_dir, &paths, size_of(&glow))?;
    let mut fidelities = vec![Fidelity::Unknown; file.images.len()];
    file.decode(&glow, |index, pixels, fidelity| {
        fidelities[index] = fidelity;
        save_below(&glow, pixels, &args.out_dir, &paths[index])
    })?;

    let count = file.images.len();
    let those = |which: Fidelity| -> Vec<&String> {
        file.images.iter().zip(&fidelities).filter(|(_, f)| **f == which).map(|(name, _)| name).collect()
    };
    let exact = those(Fidelity::Exact).len();
    if common.json && file.checksums.is_empty() {
        print_json(&json!({ "images": count }))?;
    } else if common.json {
        print_json(&json!({ "images": count, "exact": exact }))?;
    } else {
        say!("{}", counted(count, "image"));
    }
    let trouble = |which: Fidelity, what: &str| {
        let names = those(which);
        (!names.is_empty()).then(|| format!("{} of {count} images {what}: {}", names.len(), named(&names)))
    };
    let edited = trouble(
        Fidelity::Edited,
        "do not decode to the pixels that were encoded, because their latents were edited (pass --edited to accept this)",
    );
    verdict([
        trouble(
            Fidelity::Different,
            "do not decode to the pixels that were encoded: another device or version may have encoded them",
        ),
        edited.filter(|_| !args.edited),
        trouble(
            Fidelity::NotFinite,
            "have latents or decoded values that are not finite, so their pixels are meaningless",
        ),
    ])
}

/// Reads latents. If `edited`, they may differ from the written ones.
fn read_latents(path: &Path, edited: bool) -> anyhow::Result<LatentsFile> {
    if edited {
        return Ok(LatentsFile::read_edited(path)?);
    }
    LatentsFile::read(path).map_err(|error| match LatentsFile::read_edited(path) {
        Ok(_) => anyhow::anyhow!("{error}, or pass --edited to decode it anyway"),
        Err(_) => error.into(),
    })
}
