//! `interpolate`, `attributes` and `resample`.

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use glowflow::faces::{self, Faces};
use glowflow::latent::{
    About, Direction, Found, find_directions, interpolate as interpolate_images, redraw_details,
};
use glowflow::train::class_names;
use glowflow::{Latents, data, pretrained};
use glowflow_report::animation;
use serde_json::json;

use super::pictures::{Picture, Pictures};
use super::{
    PictureOutput, check_output, check_picture, check_pictures, class_of, directions_path, grid_png,
    print_json, report_broken, sample_images, say, tell, watched, with_class,
};
use crate::{ExitCode, args};

pub fn interpolate(args: &args::Interpolate, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load_exact(&args.model)?;
    let moving = args.out.as_deref().and_then(animation::Format::of);
    let mut paths = args.images.clone();
    if moving.is_some() {
        paths.push(args.images[0].clone());
    }
    check_picture(&glow, &[paths.len() - 1, args.frames])?;
    let inputs: Vec<_> = args.images.iter().collect();
    let out =
        PictureOutput::check(args.out.as_deref(), "interpolation", &args.model, &["apng", "gif"], &inputs)?;
    let pictures = Pictures::of(&glow, &args.model, &args.align)?;
    let label = class_of(args.class.as_deref(), &args.model, &glow)?;
    let labels = pictures.labels(&glow, label)?.repeat(paths.len());
    let images = pictures.load(&paths)?;
    let frames = interpolate_images(&glow, images.view(), &labels, args.frames, args.path)?;
    let finite = frames.all_finite();
    let (pixels, shape) = (frames.into_bytes(), glow.config().image());
    let picture = match moving {
        Some(format) => animation::encode(format, &pixels, shape, animation::FRAME_MILLISECONDS)
            .map_err(anyhow::Error::msg)?,
        None => grid_png(&glow, &pixels, args.frames)?,
    };
    out.write(&picture, common.json)?;
    check_pictures(finite)
}

/// Attribute names in the values of an option: each value is one of `known`, or several separated by commas.
fn names_in(values: &[String], known: &[String]) -> Vec<String> {
    let mut names = vec![];
    for value in values {
        if known.contains(value) {
            names.push(value.clone());
        } else {
            let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
            names.extend(parts.map(str::to_owned));
        }
    }
    names
}

pub fn attributes(args: &args::Attributes, common: &args::Common) -> anyhow::Result<ExitCode> {
    let fixed = pretrained::is_pretrained(&args.model);
    anyhow::ensure!(
        !(fixed && (args.out.is_none() || args.eyes.is_some())),
        "the model {} is included in the program, and its directions and eye positions cannot be changed: give another \
         file for the directions with --out, and omit --eyes",
        args.model.display()
    );
    let out = directions_path(args.out.as_deref(), &args.model, "--out")?;
    let inputs: Vec<_> = args.labels.iter().chain([&args.data]).collect();
    check_output(&out, &args.model, &inputs)?;
    let glow = common.load_exact(&args.model)?;
    let (config, names) = (glow.config(), class_names(&args.model, glow.config()));
    let label = class_of(args.class.as_deref(), &args.model, &glow)?;
    let data::Labelled { dataset, attributes, notices } =
        data::open_labelled(&args.data, args.labels.as_deref(), config, &names, label).map_err(with_class)?;
    notices.iter().for_each(|notice| tell(notice));
    let mut facts = attributes.notices().to_vec();
    if !attributes.left_out().is_empty() {
        facts.push(format!("neither yes nor no, skipped: {}", attributes.left_out().join(", ")));
    }
    let sample = sample_images(dataset, args.images, args.seed)?;
    let attributes = attributes.of_subset(sample.indices());
    let dataset = watched(Arc::new(sample));
    let remove = names_in(&args.orthogonalize, attributes.names());
    let found = find_directions(&glow, &dataset, &attributes, &remove, label);
    report_broken(&dataset);
    let Found { directions, mut warnings } = found.inspect_err(|_| {
        // The left-out labels may be the reason.
        facts.iter().for_each(|fact| tell(&format!("warning: {fact}")));
    })?;
    directions.write(&out)?;
    if let Some(eyes) = args.eyes {
        faces::write(&args.model, Faces::Aligned(eyes))?;
    }
    warnings.extend(facts);
    if common.json {
        let about = |Direction { about, .. }: &Direction| {
            let About { name, positives, negatives, auc } = about;
            let weak = about.weakness();
            json!({ "name": name, "positives": positives, "negatives": negatives, "auc": auc, "weak": weak })
        };
        let about: Vec<_> = directions.list.iter().map(about).collect();
        print_json(&json!({ "directions": about, "warnings": warnings }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = directions.list.iter().map(|direction| direction.about.name.chars().count()).max();
    let width = width.unwrap_or(0).max("attribute".len());
    say!("{:width$}  {:>8}  {:>8}  {:13}  most similar (cosine)", "attribute", "with", "without", "AUC");
    for (i, direction) in directions.list.iter().enumerate() {
        let about = &direction.about;
        let auc =
            about.auc.map_or("–".into(), |auc| format!("{:.3} ± {:.3}", auc.value, auc.standard_error));
        let alike =
            directions.nearest(i).map_or(String::new(), |(name, cosine)| format!("{name} {cosine:.2}"));
        let (with, without) = (about.positives, about.negatives);
        say!("{:width$}  {with:8}  {without:8}  {auc:13}  {alike}", about.name);
    }
    for Direction { about, .. } in &directions.list {
        if let Some(reason) = about.weakness() {
            say!("weak: {}: {reason}", about.name);
        }
    }
    for warning in &warnings {
        say!("warning: {warning}");
    }
    say!("\nwritten to {}", out.display());
    Ok(ExitCode::SUCCESS)
}

pub fn resample(args: &args::Resample, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load_exact(&args.model)?;
    anyhow::ensure!(args.count > 0, "--count must be at least 1, got 0");
    let rows = match args.levels {
        Some(levels) => levels..=levels,
        None => 1..=glow.latent_shapes().len(),
    };
    check_picture(&glow, &[rows.clone().count(), args.count])?;
    let out = PictureOutput::check(args.out.as_deref(), "resampled", &args.model, &[], &[&args.image])?;
    let label = class_of(args.class.as_deref(), &args.model, &glow)?;
    let pictures = Pictures::of(&glow, &args.model, &args.align)?;
    let Picture { labels, latents, .. } = Picture::encode(&glow, &pictures, &args.image, label)?;
    let mut points = vec![];
    for levels in rows {
        points.push(latents.clone());
        points.push(redraw_details(&glow, &latents, levels, args.count, args.temperature, args.seed)?);
    }
    let points = Latents::concatenate(&points)?;
    let images = glow.decode(&points, &labels.repeat(points.batch()))?;
    let finite = images.all_finite();
    out.write(&grid_png(&glow, &images.into_bytes(), args.count + 1)?, common.json)?;
    check_pictures(finite)
}
