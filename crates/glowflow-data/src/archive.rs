//! Detects archives given instead of their contents.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use zip::ZipArchive;

use crate::leftovers::counted;
use crate::scan::has_image_extension;

/// The reason why a zip archive without arrays is not an `.npz` file. The text completes "FILE …".
pub(crate) fn zip_without_arrays(path: &Path) -> Option<String> {
    let zip = ZipArchive::new(BufReader::new(File::open(path).ok()?)).ok()?;
    let names: Vec<String> = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    if names.is_empty() || names.iter().any(|name| name.ends_with(".npy")) {
        return None;
    }
    let images = names.iter().filter(|name| has_image_extension(Path::new(name))).count();
    let contents = match images {
        0 => format!("{}, none an image or a NumPy array", counted(names.len(), "file")),
        _ => counted(images, "picture"),
    };
    Some(format!("is a zip archive that holds {contents}: unpack it and give the folder"))
}

/// Returns whether a file is a tar archive, plain or gzip-compressed.
pub(crate) fn is_tar(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut file = BufReader::new(file);
    has_tar_header(&mut file) || {
        let Ok(file) = File::open(path) else { return false };
        has_tar_header(&mut MultiGzDecoder::new(BufReader::new(file)))
    }
}

fn has_tar_header(file: &mut impl Read) -> bool {
    let mut header = [0; 512];
    file.read_exact(&mut header).is_ok() && &header[257..262] == b"ustar"
}
