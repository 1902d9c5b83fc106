//! Names of the idx files of MNIST and its variants, such as `train-images-idx3-ubyte.gz`,
//! `t10k-labels.idx1-ubyte` and `emnist-letters-test-images-idx3-ubyte`.

use std::path::Path;

/// The part of a set that a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Train,
    Test,
}

/// The information in a file's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Name of the set, such as `emnist-letters`; empty for MNIST itself.
    pub set: String,
    pub half: Half,
    /// Images if true, else labels.
    pub images: bool,
    pub compressed: bool,
}

/// Parses the name of a file; `None` if it is not an idx file.
pub(crate) fn parse(path: &Path) -> Option<Name> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (name, compressed) = match name.strip_suffix(".gz") {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    let (name, kind) = name.rsplit_once(['-', '.']).and_then(|(front, element)| {
        let (front, idx) = front.rsplit_once(['-', '.'])?;
        (matches!(element, "ubyte" | "int") && idx.strip_prefix("idx")?.parse::<u8>().is_ok())
            .then_some((front, idx))
    })?;
    let (name, images) = match name.strip_suffix("-images") {
        Some(name) if matches!(kind, "idx3" | "idx4") => (name, true),
        _ => (name.strip_suffix("-labels")?, false),
    };
    let (set, half) = match name.rsplit_once('-') {
        Some((set, half)) => (set, half),
        None => ("", name),
    };
    let half = match half {
        "train" => Half::Train,
        "t10k" | "test" => Half::Test,
        _ => return None,
    };
    Some(Name { set: set.to_owned(), half, images, compressed })
}

/// Returns whether a file belongs to EMNIST, whose images are stored transposed.
pub(crate) fn is_transposed(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.starts_with("emnist")
}
