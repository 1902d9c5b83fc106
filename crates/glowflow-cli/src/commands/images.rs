//! `sample`, `encode` and `decode`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use glowflow::latent::at_temperatures;
use glowflow::latents_file::LatentsFile;
use glowflow::{Glow, check_count};
use glowflow_report::picture;
use serde_json::json;

use super::picture_paths::picture_paths;
use super::{
    check_output, check_picture, check_picture_output, class_of, print_json, report_broken, save_image, say,
    test_data, warn_of_latents, warn_of_pictures, watched,
};
use crate::args;

/// Writes one PNG for each image and name.
fn save_images(
    glow: &Glow,
    images: &ndarray::Array4<u8>,
    folder: &Path,
    name: impl Fn(usize) -> PathBuf,
) -> anyhow::Result<()> {
    for (i, image) in images.outer_iter().enumerate() {
        let path = folder.join(name(i));
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        let pixels: Vec<u8> = image.iter().copied().collect();
        save_image(glow, &pixels, &path)?;
    }
    Ok(())
}

pub fn sample(args: &args::Sample, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load(args.precision.into(), &args.model)?;
    let count = args.count.unwrap_or(if args.temperatures.is_empty() { 64 } else { 8 });
    anyhow::ensure!(count > 0, "--count 0 leaves nothing to draw");
    let classes = glow.config().classes;
    anyhow::ensure!(
        classes == 0 || args.class.is_some(),
        "the model has {classes} classes: say which one to draw with --class 0 to {}",
        classes.saturating_sub(1)
    );
    let class = class_of(args.class.as_deref(), &args.model, &glow)?;
    let mut counts = vec![count];
    if !args.temperatures.is_empty() {
        counts.push(args.temperatures.len());
    }
    // Before there is a label for each.
    check_count(&counts, glow.config().dimensions())?;
    if let Some(path) = &args.out {
        check_picture(&glow, &counts)?;
        check_picture_output(path, &args.model, &[])?;
    }
    let labels = class.map_or(vec![], |class| vec![class; count]);
    let (samples, columns) = if args.temperatures.is_empty() {
        let root = count.isqrt();
        let columns = root + usize::from(root * root < count);
        (glow.sample(count, args.temperature, &labels, args.seed)?, columns)
    } else {
        let samples = at_temperatures(&glow, count, &args.temperatures, &labels, args.seed)?;
        (samples, args.temperatures.len())
    };
    warn_of_pictures(&glow);
    if let Some(folder) = &args.out_dir {
        save_images(&glow, &samples, folder, |i| format!("{i:05}.png").into())?;
    }
    if let Some(path) = &args.out {
        let picture = picture::grid(&samples.into_raw_vec_and_offset().0, glow.config().image, columns);
        picture::save_png(path, &picture)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn encode(args: &args::Encode, common: &args::Common) -> anyhow::Result<ExitCode> {
    check_output(&args.out, &args.model)?;
    let glow = common.load_exact(&args.model)?;
    let label = class_of(args.label.as_deref(), &args.model, &glow)?;
    let dataset = watched(test_data(&args.data, &args.model, &glow, label)?);
    let latents = LatentsFile::encode(&glow, &dataset, label)?;
    latents.write(&args.out)?;
    warn_of_latents(&latents.latents);
    report_broken(&dataset);
    count(latents.images.len(), common.json)
}

pub fn decode(args: &args::Decode, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load_exact(&args.model)?;
    let file = LatentsFile::read(&args.latents)?;
    anyhow::ensure!(
        file.model == glow.fingerprint(),
        "{} holds latents of another model than {}: decode with the model that encoded them",
        args.latents.display(),
        args.model.display()
    );
    let images = glow.decode(&file.latents, &file.labels)?;
    warn_of_pictures(&glow);
    let paths = picture_paths(&file.images);
    save_images(&glow, &images, &args.out_dir, |i| paths[i].clone())?;
    count(file.images.len(), common.json)
}

fn count(images: usize, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_json(&json!({ "images": images }))?;
    } else {
        say!("{images} images");
    }
    Ok(ExitCode::SUCCESS)
}
