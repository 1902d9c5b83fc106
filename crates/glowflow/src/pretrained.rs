//! The pretrained model in the program: portraits of 64×64 pixels, with the directions of their attributes.
//!
//! Its name [`PORTRAITS`] is accepted in place of a run's folder wherever a model is expected, unless a file
//! or folder of that name exists. The files are embedded in the program: `model.safetensors` and
//! `directions.safetensors` in bf16, `config.toml`, `config.json`, `eyes.toml`, and `README.md`, which
//! describes how they were created.
//!
//! ```
//! use glowflow::Model;
//!
//! let model = Model::from_pretrained("portraits")?;
//! let samples = model.sample(2, 0.7, &[], 0)?;
//! assert_eq!(samples.pixels.dim(), (2, 64, 64, 3));
//! # Ok::<(), glowflow::Error>(())
//! ```

use std::path::Path;

use crate::Error;

/// Name of the model of portraits.
pub const PORTRAITS: &str = "portraits";

macro_rules! file {
    ($file:literal) => {
        ($file, include_bytes!(concat!("../pretrained/portraits/", $file)))
    };
}

/// The files of the model, by name.
static FILES: [(&str, &[u8]); 6] = [
    file!("model.safetensors"),
    file!("directions.safetensors"),
    file!("config.toml"),
    file!("config.json"),
    file!("eyes.toml"),
    file!("README.md"),
];

/// Names of the pretrained models.
pub fn names() -> [&'static str; 1] {
    [PORTRAITS]
}

/// Returns whether a path names a pretrained model, and no existing file or folder.
pub fn is_pretrained(path: &Path) -> bool {
    path == Path::new(PORTRAITS) && !path.exists()
}

/// Returns whether a path is a folder, or names a pretrained model.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir() || is_pretrained(path)
}

/// Returns whether a path is a file, or one of a pretrained model.
pub fn exists(path: &Path) -> bool {
    path.exists() || bytes(path).is_some()
}

/// Contents of a file of a pretrained model, such as `portraits/README.md`; `None` for any other path.
pub fn bytes(path: &Path) -> Option<&'static [u8]> {
    let name = path.strip_prefix(PORTRAITS).ok()?.to_str()?;
    let (_, bytes) = FILES.iter().find(|(file, _)| *file == name)?;
    is_pretrained(Path::new(PORTRAITS)).then_some(bytes)
}

/// Checks that a path can be loaded with [`Model::from_pretrained`](crate::Model::from_pretrained).
pub(crate) fn check_name(name: &Path) -> Result<(), Error> {
    if is_pretrained(name) || name.exists() {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{} is neither a model file or folder nor a model included in the program, which are {}",
        name.display(),
        names().join(", ")
    )))
}

/// Checks that an output does not belong to a pretrained model.
pub(crate) fn check_writable(model: &Path) -> Result<(), Error> {
    if is_pretrained(model) {
        return Err(Error::Input(format!(
            "the model {} is included in the program and cannot be changed: give the path of another file",
            model.display()
        )));
    }
    Ok(())
}
