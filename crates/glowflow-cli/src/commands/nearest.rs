//! `nearest`.

use std::io::Write;

use anyhow::Context;
use glowflow::latent::{Similar, check_level_weights, level_weights, nearest as find_nearest};

use super::aligned::aligned;
use super::pictures::{Picture, Pictures};
use super::{
    PictureOutput, check_outside, check_picture, class_of, counted, grid_png, image_shape, is_stdout,
    report_broken, say, tell, test_data, verdict, watched,
};
use crate::{ExitCode, args};

/// One weight per level.
fn weights(args: &args::Nearest, levels: usize) -> anyhow::Result<Vec<f64>> {
    if !args.level_weights.is_empty() {
        anyhow::ensure!(
            args.level_weights.len() == levels,
            "--level-weights has {} weights, but the model has {levels} levels: give one weight per level",
            args.level_weights.len()
        );
        check_level_weights(&args.level_weights, levels)?;
        return Ok(args.level_weights.clone());
    }
    anyhow::ensure!(
        args.skip_levels < levels,
        "--skip-levels must be at most {}, got {}: the model has {levels} levels",
        levels - 1,
        args.skip_levels
    );
    let mut weights = level_weights(levels);
    weights[..args.skip_levels].fill(0.0);
    Ok(weights)
}

pub fn nearest(args: &args::Nearest, common: &args::Common) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.count > 0, "--count must be at least 1, got 0");
    let glow = common.load_exact(&args.model)?;
    let weights = weights(args, glow.latent_shapes().len())?;
    let class = class_of(args.class.as_deref(), &args.model, &glow)?;
    let pictures = Pictures::of(&glow, &args.model, &args.align)?;
    let Picture { image, labels, .. } = Picture::encode(&glow, &pictures, &args.image, class)?;
    let dataset = test_data(&args.data, &args.model, &glow, class)?;
    anyhow::ensure!(
        dataset.len() > 1,
        "{} has one image to search; similarities are relative to the mean of at least 2",
        args.data.display()
    );
    // Before the photographs are aligned, which can take an hour.
    let mut out = None;
    if let Some(path) = args.out.as_deref() {
        if !path.exists() && !is_stdout(path) {
            check_outside(path, &args.data, "--out")?;
        }
        check_picture(&glow, &[args.count.min(dataset.len()) + 1])?;
        out =
            Some(PictureOutput::check(Some(path), "nearest", &args.model, &[], &[&args.image, &args.data])?);
    }
    let dataset = if pictures.align() { aligned(dataset, &pictures)? } else { watched(dataset) };
    let Similar { nearest: found, not_finite } =
        find_nearest(&glow, image.view(), &labels, &dataset, args.count, &weights, class)?;
    report_broken(&dataset);
    if let Some(out) = out {
        let shape = image_shape(&glow);
        let mut pixels = image.into_raw_vec_and_offset().0;
        for neighbour in &found {
            let start = pixels.len();
            pixels.resize(start + shape.len(), 0);
            dataset.read(neighbour.index, &mut pixels[start..])?;
        }
        out.write(&grid_png(&glow, &pixels, found.len() + 1)?, false)?;
    }
    // Standard output may carry the PNG file.
    let print = |line: String| match out {
        Some(PictureOutput::Stdout) => {
            tell(&line);
            Ok(())
        }
        _ => {
            say!("{line}");
            anyhow::Ok(())
        }
    };
    if common.json {
        print(serde_json::to_string(&found)?)?;
    } else {
        for neighbour in &found {
            print(format!("{:6.3}  {}", neighbour.similarity, neighbour.image))?;
        }
    }
    verdict([(not_finite > 0).then(|| {
        format!(
            "{} skipped, because their latents are not finite; the model may be damaged, or its training diverged",
            counted(not_finite, "image")
        )
    })])
}
