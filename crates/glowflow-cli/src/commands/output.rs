//! Where commands write: files, the standard output, or a new file under a name of the program's own.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use glowflow::{Model, ModelFile};
use glowflow_data::encode_png;
use glowflow_report::file;
use serde_json::json;

use super::{image_shape, print_json, say};

/// Whether a path stands for the standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Checks, before there is work to lose, that a file can be written, and that it is not the model.
pub fn check_output(out: &Path, model: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_stdout(out),
        "- stands for the standard output, and this is written to a file only: name a file, or ./- for one of that name"
    );
    let model = ModelFile::path(model);
    let same = out.canonicalize().is_ok_and(|out| model.canonicalize().is_ok_and(|model| out == model));
    anyhow::ensure!(!same, "{} is the model itself: name another file to write", out.display());
    Ok(file::check_writable(out)?)
}

/// Checks that a folder to write to is one.
pub fn check_folder_output(out: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_stdout(out),
        "- stands for the standard output, which is not a folder: name a folder, or ./- for one of that name"
    );
    Ok(())
}

/// Checks that the folder to write to, given by an `option`, is not a folder of pictures that are read, and not in it.
pub fn check_outside(out: &Path, data: &Path, option: &str) -> anyhow::Result<()> {
    let inside = data.is_dir() && resolved(out)?.starts_with(data.canonicalize()?);
    anyhow::ensure!(
        !inside,
        "{} lies in {}, whose pictures it would be counted among: name a folder outside with {option}",
        out.display(),
        data.display()
    );
    Ok(())
}

/// The absolute path, without links, of a folder that need not exist yet.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let found = path.ancestors().find_map(|folder| {
        let rest = path.strip_prefix(folder).ok()?;
        Some(folder.canonicalize().ok()?.join(rest))
    });
    Ok(found.unwrap_or(path))
}

/// One image as a PNG file in its own size.
pub fn save_image(glow: &Model, pixels: &[u8], path: &Path) -> anyhow::Result<()> {
    Ok(file::replace(path, &encode_png(image_shape(glow), pixels)?)?)
}

/// Where a picture goes.
#[derive(Clone, Copy, Debug)]
pub enum PictureOutput<'a> {
    /// To the standard output.
    Stdout,
    /// To this file.
    File(&'a Path),
    /// To a new PNG file of this name, or this name and a number, in the current folder.
    New(&'static str),
}

impl<'a> PictureOutput<'a> {
    /// Checks, before there is work to lose, that the picture can be written. The name of its file must say what it is: a
    /// PNG, or one of the `animations` if there are such. `name` is for a picture without a file of its own.
    pub fn check(
        out: Option<&'a Path>,
        name: &'static str,
        model: &Path,
        animations: &[&str],
    ) -> anyhow::Result<Self> {
        let Some(out) = out else {
            file::check_writable(Path::new(&format!("{name}.png")))?;
            return Ok(Self::New(name));
        };
        if is_stdout(out) {
            anyhow::ensure!(
                !std::io::stdout().is_terminal(),
                "--out - would write a picture to the terminal: redirect the standard output, or name a file"
            );
            return Ok(Self::Stdout);
        }
        let known = || ["png"].iter().chain(animations);
        let ending = out.extension().unwrap_or_default();
        let fits = ending.is_empty() || known().any(|name| ending.eq_ignore_ascii_case(name));
        let endings: Vec<_> = known().map(|name| format!(".{name}")).collect();
        anyhow::ensure!(
            fits,
            "{} cannot be written: end its name in {}, which is what pictures are written as",
            out.display(),
            endings.join(" or ")
        );
        check_output(out, model)?;
        Ok(Self::File(out))
    }

    /// Writes the file of a picture. A name that the program chose is printed.
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
