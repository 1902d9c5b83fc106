//! Output of commands: files, standard output, or a new file with a default name.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::model::MODEL;
use glowflow::train::checkpoint::{CHECKPOINT, PREVIOUS};
use glowflow::train::{BEST, CONFIG, METRICS};
use glowflow::{Model, ModelFile};
use glowflow_data::{ImageShape, encode_png, find_images, load_picture, may_hold_images};
use glowflow_report::file;
use serde_json::json;

use super::{image_shape, print_json, say};

/// Returns whether a path denotes standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Files of a run without which it cannot be resumed or described.
const OF_A_RUN: [&str; 6] = [CONFIG, METRICS, MODEL, BEST, CHECKPOINT, PREVIOUS];

/// Checks, before any work, that a file can be written, and replaces neither the model, nor one of the
/// `inputs` or an image in a folder of inputs, nor the state of a run.
pub fn check_output(out: &Path, model: &Path, inputs: &[&PathBuf]) -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_stdout(out),
        "- denotes standard output, but this output must be a file: give a file, or ./- for a file named -"
    );
    let same = |other: &Path| {
        out.canonicalize().is_ok_and(|out| other.canonicalize().is_ok_and(|other| out == other))
    };
    anyhow::ensure!(
        !same(&ModelFile::path(model)),
        "{} is the model itself: give another output file",
        out.display()
    );
    anyhow::ensure!(
        !inputs.iter().any(|input| if input.is_dir() { is_among(out, input) } else { same(input) }),
        "{} is an input, which would be overwritten: give another output file",
        out.display()
    );
    let of_a_run = OF_A_RUN.iter().any(|name| out.file_name().is_some_and(|file| file == *name));
    anyhow::ensure!(
        !(of_a_run && out.exists() && out.with_file_name(CONFIG).exists()),
        "{} is a file of a run, which would be overwritten: give another output file",
        out.display()
    );
    Ok(file::check_writable(out)?)
}

/// Returns whether a file is one of the images in a folder of inputs, or a link to one.
fn is_among(out: &Path, inputs: &Path) -> bool {
    if !out.is_file() || !may_hold_images(out) {
        return false;
    }
    let Ok(resolved) = out.canonicalize() else { return false };
    match find_images(inputs, Some(MODEL)) {
        Ok(list) => list
            .images
            .iter()
            .any(|image| list.root.join(image).canonicalize().is_ok_and(|image| image == resolved)),
        // Arrays.
        Err(_) => inputs.canonicalize().is_ok_and(|inputs| resolved.starts_with(inputs)),
    }
}

/// Checks that an output folder is neither standard output nor a file.
pub fn check_folder_output(out: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_stdout(out),
        "- denotes standard output, which is not a folder: give a folder, or ./- for a folder named -"
    );
    anyhow::ensure!(!out.is_file(), "{} is a file: give a folder", out.display());
    Ok(())
}

/// Width and height of one image of the model.
pub fn size_of(glow: &Model) -> (u32, u32) {
    let ImageShape { height, width, .. } = image_shape(glow);
    (width as u32, height as u32)
}

/// Checks, before any work, that the pictures of this width and height replace only such pictures below
/// `folder`, which an earlier call has written.
pub fn check_replaced(folder: &Path, paths: &[PathBuf], size: (u32, u32)) -> anyhow::Result<()> {
    for path in paths.iter().map(|path| folder.join(path)).filter(|path| path.symlink_metadata().is_ok()) {
        let found = load_picture(&path).map(|(_, shape)| (shape.width as u32, shape.height as u32));
        anyhow::ensure!(
            found.is_ok_and(|found| found == size),
            "{} exists, and is not a picture of {}×{} pixels as written here: give another folder with --out-dir",
            path.display(),
            size.0,
            size.1
        );
    }
    Ok(())
}

/// Checks that the output folder, given by `option`, is neither a folder of input images nor inside one.
pub fn check_outside(out: &Path, data: &Path, option: &str) -> anyhow::Result<()> {
    let inside = data.is_dir() && resolved(out)?.starts_with(data.canonicalize()?);
    anyhow::ensure!(
        !inside,
        "{} is inside {}, so its pictures would count as input: give a folder outside with {option}",
        out.display(),
        data.display()
    );
    Ok(())
}

/// The absolute path, with links resolved, of a folder that may not exist yet.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let found = path.ancestors().find_map(|folder| {
        let rest = path.strip_prefix(folder).ok()?;
        Some(folder.canonicalize().ok()?.join(rest))
    });
    Ok(found.unwrap_or(path))
}

/// Writes one image as a PNG file in its original size.
pub fn save_image(glow: &Model, pixels: &[u8], path: &Path) -> anyhow::Result<()> {
    Ok(file::replace(path, &encode_png(image_shape(glow), pixels)?)?)
}

/// Destination of a picture.
#[derive(Clone, Copy, Debug)]
pub enum PictureOutput<'a> {
    /// Standard output.
    Stdout,
    /// This file.
    File(&'a Path),
    /// A new PNG file in the current folder with this name, numbered if the name is taken.
    New(&'static str),
}

impl<'a> PictureOutput<'a> {
    /// Checks, before any work, that the picture can be written. The file's extension must be that of a PNG
    /// or one of `animations`. `name` is used if no file is given.
    pub fn check(
        out: Option<&'a Path>,
        name: &'static str,
        model: &Path,
        animations: &[&str],
        inputs: &[&PathBuf],
    ) -> anyhow::Result<Self> {
        let Some(out) = out else {
            file::check_writable(Path::new(&format!("{name}.png")))?;
            return Ok(Self::New(name));
        };
        if is_stdout(out) {
            anyhow::ensure!(
                !std::io::stdout().is_terminal(),
                "--out - would write a picture to the terminal: redirect standard output, or give a file"
            );
            return Ok(Self::Stdout);
        }
        let known = || ["png"].iter().chain(animations);
        let ending = out.extension().unwrap_or_default();
        let fits = ending.is_empty() || known().any(|name| ending.eq_ignore_ascii_case(name));
        let endings: Vec<_> = known().map(|name| format!(".{name}")).collect();
        anyhow::ensure!(
            fits,
            "{} has no supported extension for pictures: use {}",
            out.display(),
            endings.join(" or ")
        );
        check_output(out, model, inputs)?;
        Ok(Self::File(out))
    }

    /// Writes the encoded picture. A default file name is printed.
    pub fn write(self, bytes: &[u8], json: bool) -> anyhow::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush()).context("writing the picture")
            }
            Self::File(path) => Ok(file::replace(path, bytes)?),
            Self::New(name) => {
                let path = file::write_new(Path::new(""), name, "png", bytes)?;
                if json {
                    print_json(&json!({ "out": path.display().to_string() }))?;
                } else {
                    say!("written to {}", path.display());
                }
                Ok(())
            }
        }
    }
}
