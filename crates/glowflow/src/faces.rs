//! Positions of the faces in a model's images, in a small file in the model's folder.
//!
//! Photographs are aligned so that their eyes are at the same positions as in the training images. The file
//! [`EYES`] in a run's folder, or in a folder of aligned images, contains
//!
//! ```toml
//! left = [0.39, 0.51]     # x and y of the eye on the left, as fractions of width and height
//! right = [0.61, 0.51]
//! ```
//!
//! or `faces = false` for images without faces. Without the file, the positions are unknown. A model file
//! outside a run may share its folder with others and has a separate file: `faces.eyes.toml` for
//! `faces.safetensors`.

use std::path::{Path, PathBuf};

use glowflow_data::Eyes;
use serde::{Deserialize, Serialize};

use crate::tensor_file::write_atomically;
use crate::train::{CONFIG, run_folder};
use crate::{Error, pretrained, text_file};

/// Name of the file with the positions of the eyes.
pub const EYES: &str = "eyes.toml";

/// Comment at the top of the file.
const COMMENT: &str = "# Positions of the eyes in these images, as fractions of width and height.\n\n";

/// Positions of the faces in a model's images, if there are any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Faces {
    /// Aligned faces, with their eyes at these positions.
    Aligned(Eyes),
    /// No faces.
    None,
}

/// Contents of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    faces: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<[f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    right: Option<[f64; 2]>,
}

/// Path of the file for a model or a folder of images.
fn eyes_file(path: &Path) -> PathBuf {
    let folder = run_folder(path);
    if path.is_file() && !folder.join(CONFIG).exists() {
        return path.with_extension(EYES);
    }
    folder.join(EYES)
}

/// Reads the face positions of a model (a run's folder, or a file in one) or of a folder of images; `None`
/// without a file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::File`] if its contents are invalid.
pub fn read(path: &Path) -> Result<Option<Faces>, Error> {
    let file = eyes_file(path);
    if !pretrained::exists(&file) {
        return Ok(None);
    }
    let invalid = |reason: String| {
        Error::file(&file, format!("{reason}; expected left = [x, y] and right = [x, y], or faces = false"))
    };
    let contents: Contents =
        toml::from_str(&text_file::read(&file)?).map_err(|error| invalid(error.message().to_owned()))?;
    match contents {
        Contents { faces: None | Some(true), left: Some(left), right: Some(right) } => {
            let eyes = Eyes::new(left, right).map_err(|error| invalid(error.to_string()))?;
            Ok(Some(Faces::Aligned(eyes)))
        }
        Contents { faces: Some(false), left: None, right: None } => Ok(Some(Faces::None)),
        _ => Err(invalid("the positions are incomplete or contradictory".into())),
    }
}

/// Stores the face positions in the images of a model (a run's folder, or a file in one), or of a folder of
/// images.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written; [`Error::Input`] for a pretrained model.
pub fn write(path: &Path, faces: Faces) -> Result<(), Error> {
    pretrained::check_writable(path)?;
    let contents = match faces {
        Faces::Aligned(eyes) => Contents { faces: None, left: Some(eyes.left()), right: Some(eyes.right()) },
        Faces::None => Contents { faces: Some(false), left: None, right: None },
    };
    let text = toml::to_string(&contents)
        .map_err(|error| Error::Config(format!("the positions of the eyes cannot be written: {error}")))?;
    write_atomically(&eyes_file(path), format!("{COMMENT}{text}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_stored_next_to_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.safetensors");
        std::fs::write(&model, []).unwrap();
        std::fs::write(folder.path().join(CONFIG), []).unwrap();
        assert_eq!(read(&model).unwrap(), None);
        for faces in [Faces::Aligned(Eyes::CELEBA), Faces::None] {
            write(&model, faces).unwrap();
            assert_eq!(read(&model).unwrap(), Some(faces));
            assert_eq!(read(folder.path()).unwrap(), Some(faces));
        }
    }

    #[test]
    fn models_outside_a_run_have_separate_files() {
        let folder = tempfile::tempdir().unwrap();
        let [faces, other] =
            ["faces", "other"].map(|name| folder.path().join(name).with_extension("safetensors"));
        for model in [&faces, &other] {
            std::fs::write(model, []).unwrap();
        }
        write(&faces, Faces::Aligned(Eyes::CELEBA)).unwrap();
        assert!(folder.path().join("faces.eyes.toml").exists());
        write(folder.path(), Faces::None).unwrap();
        assert_eq!(read(&faces).unwrap(), Some(Faces::Aligned(Eyes::CELEBA)));
        assert_eq!(read(&other).unwrap(), None);
        assert_eq!(read(folder.path()).unwrap(), Some(Faces::None));
    }

    #[test]
    fn invalid_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "left = [0.3, 0.5]",
            "faces = true",
            "faces = false\nleft = [0.3, 0.5]\nright = [0.7, 0.5]",
            "left = [0.7, 0.5]\nright = [0.3, 0.5]",
            "left = 3",
            "mouth = [0.5, 0.8]",
        ] {
            std::fs::write(folder.path().join(EYES), text).unwrap();
            let message = read(folder.path()).unwrap_err().to_string();
            assert!(message.contains(EYES) && message.contains("faces = false"), "{text}: {message}");
        }
    }
}
