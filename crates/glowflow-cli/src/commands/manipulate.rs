//! `manipulate`: changes one image into one file, or any number of images into a folder.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::latent::{self, Direction, Directions, sweep};
use glowflow::train::class_names;
use glowflow::{Dequantization, Latents, Model, data};
use glowflow_data::encode_png;
use glowflow_report::{file, picture};
use ndarray::{Array4, Axis, concatenate};
use serde_json::json;

use super::delayed_progress::DelayedProgress;
use super::picture_paths::picture_paths;
use super::pictures::{Picture, Pictures, is_broken, reason};
use super::verdict::unsound_pictures;
use super::{
    PictureOutput, check_folder_output, check_outside, check_picture, check_pictures, check_replaced,
    class_of, counted, directions_path, grid_png, image_shape, named, print_json, say, size_of, tell,
    verdict, with_class,
};
use crate::{ExitCode, args};

/// The requested changes.
struct Changes<'a> {
    moves: Vec<(&'a Direction, f64)>,
    sweep: Option<(&'a Direction, usize)>,
}

/// PNG files of changed images.
struct Made {
    files: Vec<Vec<u8>>,
    /// True if all values of the images are finite.
    finite: bool,
}

impl<'a> Changes<'a> {
    fn new(args: &args::Manipulate, directions: &'a Directions) -> anyhow::Result<Self> {
        let moves = args.moves.iter().map(|(name, alpha)| Ok((directions.get(name)?, *alpha)));
        let sweep = args.sweep.as_deref().map(|name| anyhow::Ok((directions.get(name)?, args.frames)));
        Ok(Self { moves: moves.collect::<anyhow::Result<_>>()?, sweep: sweep.transpose()? })
    }

    /// Returns the changed images of a batch as PNG files.
    fn pictures(&self, glow: &Model, latents: &Latents, labels: &[usize]) -> anyhow::Result<Made> {
        let moved = latent::manipulate(latents, &self.moves)?;
        let Some((direction, frames)) = self.sweep else {
            let images = glow.decode(&moved, labels)?;
            let finite = images.all_finite();
            let bytes = images.into_bytes();
            let images = bytes.chunks(glow.config().dimensions());
            let files = images.map(|image| encode_png(image_shape(glow), image)).collect::<Result<_, _>>()?;
            return Ok(Made { files, finite });
        };
        let mut made = Made { files: vec![], finite: true };
        for i in 0..moved.batch() {
            let strip = sweep(&moved.slice(i..i + 1), direction, frames)?;
            let labels = labels.get(i..i + 1).unwrap_or_default().repeat(frames);
            let images = glow.decode(&strip, &labels)?;
            made.finite &= images.all_finite();
            made.files.push(grid_png(glow, &images.into_bytes(), frames)?);
        }
        Ok(made)
    }
}

pub fn manipulate(args: &args::Manipulate, common: &args::Common) -> anyhow::Result<ExitCode> {
    let glow = common.load_exact(&args.model)?;
    let directions =
        Directions::read(&directions_path(args.directions.as_deref(), &args.model, "--directions")?, &glow)?;
    let frames = if args.sweep.is_some() { args.frames } else { 1 };
    anyhow::ensure!(args.sweep.is_none() || frames >= 2, "--frames must be at least 2, got {frames}");
    check_picture(&glow, &[frames])?;
    let changes = Changes::new(args, &directions)?;
    let class = class_of(args.class.as_deref(), &args.model, &glow)?;
    let pictures = Pictures::of(&glow, &args.model, &args.align)?;
    if let Some(folder) = &args.out_dir {
        return to_folder(args, common, &glow, &pictures, &changes, class, folder);
    }
    let [image] = &args.images[..] else {
        anyhow::bail!("{} pictures require an output folder: give --out-dir DIR", args.images.len());
    };
    anyhow::ensure!(
        !image.is_dir(),
        "{} is a folder, so its pictures require an output folder: give --out-dir DIR",
        image.display()
    );
    let out = PictureOutput::check(args.out.as_deref(), "manipulated", &args.model, &[], &[image])?;
    let Picture { labels, latents, .. } = Picture::encode(&glow, &pictures, image, class)?;
    let made = changes.pictures(&glow, &latents, &labels)?;
    out.write(&made.files.concat(), common.json)?;
    check_pictures(made.finite)
}

/// An input image, and its name in the output folder.
struct Source {
    path: PathBuf,
    name: String,
    /// The class given by its sub-folder, if the model has classes and `--class` is not given.
    class: Option<usize>,
}

/// Lists the given images, and those in the given folders at any depth.
fn sources(
    args: &args::Manipulate,
    glow: &Model,
    pictures: &Pictures,
    class: Option<usize>,
) -> anyhow::Result<Vec<Source>> {
    let mut sources = vec![];
    for path in &args.images {
        if !path.is_dir() {
            anyhow::ensure!(path.exists(), "{}: no such file", path.display());
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sources.push(Source { path: path.clone(), name, class });
            continue;
        }
        let names = class_names(&args.model, glow.config());
        let splits = data::open_for(path, glow.config(), &names, class).map_err(with_class)?;
        splits.notices.iter().for_each(|notice| tell(notice));
        for dataset in [Some(splits.train), splits.test].into_iter().flatten() {
            let files: Option<Vec<_>> = (0..dataset.len()).map(|index| dataset.path(index)).collect();
            let files = files.with_context(|| {
                format!(
                    "{} contains images that are not picture files: convert them to pictures with `glowflow encode` and \
                 `glowflow decode` first",
                    path.display()
                )
            })?;
            sources.extend(files.into_iter().enumerate().map(|(index, path)| Source {
                path,
                name: dataset.name(index),
                class: class.or_else(|| dataset.label(index).filter(|_| glow.config().classes() > 0)),
            }));
        }
    }
    // A missing class is reported before any image is written.
    sources.iter().try_for_each(|source| pictures.labels(glow, source.class).map(drop))?;
    Ok(sources)
}

/// Checks that no output overwrites an input.
fn check_kept(sources: &[Source], folder: &Path, paths: &[PathBuf]) -> anyhow::Result<()> {
    let written = paths.iter().filter_map(|path| folder.join(path).canonicalize().ok());
    let written: HashSet<PathBuf> = written.collect();
    let replaced = |source: &&Source| {
        !written.is_empty() && source.path.canonicalize().is_ok_and(|path| written.contains(&path))
    };
    match sources.iter().find(replaced) {
        Some(source) => anyhow::bail!(
            "{} would be overwritten by an output picture: give another folder with --out-dir",
            source.path.display()
        ),
        None => Ok(()),
    }
}

/// Writes one changed image per input to a folder. Unreadable inputs are reported and skipped.
fn to_folder(
    args: &args::Manipulate,
    common: &args::Common,
    glow: &Model,
    pictures: &Pictures,
    changes: &Changes,
    class: Option<usize>,
    folder: &Path,
) -> anyhow::Result<ExitCode> {
    check_folder_output(folder)?;
    args.images.iter().try_for_each(|path| check_outside(folder, path, "--out-dir"))?;
    let sources = sources(args, glow, pictures, class)?;
    let paths = picture_paths(&sources.iter().map(|source| source.name.clone()).collect::<Vec<_>>());
    check_kept(&sources, folder, &paths)?;
    let size = match changes.sweep {
        None => size_of(glow),
        Some((_, frames)) => {
            let blank = vec![0; frames * glow.config().dimensions()];
            picture::grid(&blank, glow.config().image(), frames).dimensions()
        }
    };
    check_replaced(folder, &paths, size)?;
    let (mut broken, mut not_finite, mut finite) = (vec![], vec![], true);
    let mut shown = DelayedProgress::new(sources.len());
    let all: Vec<(&Source, &PathBuf)> = sources.iter().zip(&paths).collect();
    let mut done = 0;
    for batch in all.chunks(glow.decoded_at_once().min(64)) {
        let (mut images, mut classes, mut outs): (Vec<Array4<u8>>, Vec<usize>, Vec<_>) =
            (vec![], vec![], vec![]);
        for (source, out) in batch {
            match pictures.load(std::slice::from_ref(&source.path)) {
                Ok(image) => {
                    images.push(image);
                    classes.extend(pictures.labels(glow, source.class)?);
                    outs.push((source, *out));
                }
                // The picture may be intact.
                Err(error) if !is_broken(&error) => return Err(error),
                Err(error) => {
                    broken.push(format!("skipped {}: {}", source.path.display(), reason(&error)));
                }
            }
        }
        if !images.is_empty() {
            let views: Vec<_> = images.iter().map(|image| image.view()).collect();
            let images = concatenate(Axis(0), &views)?;
            let latents = glow.encode(images.view(), &classes, Dequantization::Typical)?.latents;
            let made = changes.pictures(glow, &latents, &classes)?;
            finite &= made.finite;
            for (i, (made, (source, out))) in made.files.iter().zip(outs).enumerate() {
                if !latents.is_finite(i) {
                    not_finite.push(source.name.as_str());
                }
                let out = folder.join(out);
                if let Some(parent) = out.parent() {
                    std::fs::create_dir_all(parent)
                        .with_context(|| format!("creating {}", parent.display()))?;
                }
                file::replace(&out, made)?;
            }
        }
        done += batch.len();
        shown.update(done);
    }
    drop(shown);
    broken.iter().for_each(|line| tell(line));
    let all = sources.len();
    if common.json {
        print_json(&json!({ "images": all - broken.len() }))?;
    } else {
        say!("{}", counted(all - broken.len(), "image"));
    }
    verdict([
        (!not_finite.is_empty()).then(|| {
            format!(
                "the latents of {} of {all} pictures are not finite: {}; the model may be damaged, or its training diverged",
                not_finite.len(),
                named(&not_finite)
            )
        }),
        unsound_pictures(finite),
        (!broken.is_empty() && !args.allow_broken).then(|| {
            format!("{} of {all} pictures skipped; pass --allow-broken to accept this", broken.len())
        }),
    ])
}
