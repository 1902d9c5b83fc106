//! Detects the kind of a file by its first bytes or, if these are ambiguous, by its name.

use std::path::Path;

use image::ImageFormat;

use crate::idx_names;
use crate::names::name_of;
use crate::scan::{has_image_extension, head_of};

/// Bytes at the start of a file that [`FileKind::of`] examines.
pub(crate) const HEAD: usize = 64;

/// The kind of a file in a collection of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// An image in a supported format.
    Image(ImageFormat),
    /// An image in an unsupported format, such as "HEIC image".
    OtherImage(&'static str),
    /// A video, such as "MP4 video".
    Video(&'static str),
    /// An archive, such as "zip archive".
    Archive(&'static str),
    /// Arrays that may hold images, such as "NumPy array".
    Array(&'static str),
    /// An unsupported version of CIFAR.
    OtherCifar(&'static str),
    /// Anything else, such as tables, captions and programs.
    Other,
}

/// Returns whether a file is of a kind that is read as images: pictures, arrays, and the files of CIFAR-10 and
/// MNIST. Only its beginning and its name are examined.
pub fn may_hold_images(path: &Path) -> bool {
    let kind = || Some(FileKind::of(path, &head_of(path).ok()?, path.metadata().ok()?.len()));
    // A damaged picture is one, too.
    has_image_extension(path) || kind().is_some_and(|kind| matches!(kind, FileKind::Image(_) | Array(_)))
}

use FileKind::{Archive, Array, Other, OtherCifar, OtherImage, Video};

impl FileKind {
    /// The kind of the file `path`, which begins with `head` and is `len` bytes long.
    pub fn of(path: &Path, head: &[u8], len: u64) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(format) = image_format(head) {
            return Self::Image(format);
        }
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        // CIFAR binaries can begin with any bytes.
        let by_content = if extension == "bin" { Other } else { by_content(head, extension) };
        match by_content {
            Other => by_name(&name, extension, head, len),
            kind => kind,
        }
    }

    /// A sentence about `count` unused files of this kind, for example `example`.
    pub fn notice(self, count: usize, example: &str) -> Option<String> {
        let (what, way_out) = match self {
            OtherImage(what) => (what, "convert to JPEG or PNG first"),
            Video(what) => (what, "extract frames as JPEG or PNG first"),
            Archive(what) => (what, "unpack first"),
            Array(what) => (what, "train, eval and score read the file itself"),
            OtherCifar(what) => (what, "only the binary version of CIFAR-10 is supported"),
            Self::Image(_) | Other => return None,
        };
        let plural = if count == 1 { "" } else { "s" };
        let folder = folder_to_give(Path::new(example)).filter(|_| matches!(self, Array(_)));
        let way_out =
            folder.map_or(way_out.to_owned(), |folder| format!("give the folder {folder} to use it"));
        Some(format!("skipped {count} {what}{plural}, such as {example}: {way_out}"))
    }

    /// The reason why a file of this kind cannot be opened as images. The text completes "FILE is …".
    pub fn refusal(self) -> Option<String> {
        match self {
            OtherImage(what) => {
                Some(format!("{}, which cannot be read: convert it to JPEG or PNG", an(what)))
            }
            Video(what) => Some(format!("{}, which cannot be read: extract frames as JPEG or PNG", an(what))),
            Archive(what) => Some(format!("{}: unpack it and give the folder", an(what))),
            OtherCifar(what) => {
                Some(format!("{}, which cannot be read: download the binary version of CIFAR-10", an(what)))
            }
            Self::Image(_) | Array(_) | Other => None,
        }
    }
}

/// The folder to open instead of `file`, if the file is part of a dataset.
fn folder_to_give(file: &Path) -> Option<String> {
    let is_part = idx_names::parse(file).is_some() || is_cifar(&file.file_name()?.to_string_lossy());
    let folder = file.parent().filter(|folder| is_part && !folder.as_os_str().is_empty())?;
    Some(name_of(folder))
}

fn is_cifar(name: &str) -> bool {
    name.starts_with("data_batch_") || name.starts_with("test_batch")
}

/// `what` with its indefinite article.
fn an(what: &str) -> String {
    const VOWELS: [&str; 9] = ["AV", "EPS", "ICO", "idx", "MP", "OpenEXR", "RAR", "SVG", "XCF"];
    let article = if VOWELS.iter().any(|vowel| what.starts_with(vowel)) { "an" } else { "a" };
    format!("{article} {what}")
}

/// The format of an image that begins with `head`, if it is supported.
fn image_format(head: &[u8]) -> Option<ImageFormat> {
    let format = crate::image_file::format_of(head)?;
    // Two letters alone do not identify a BMP: text files can begin with them too.
    (format != ImageFormat::Bmp || is_bmp(head)).then_some(format)
}

/// Returns whether the size field of the second header is that of a known version.
fn is_bmp(head: &[u8]) -> bool {
    let size = head.get(14..18).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    matches!(size, Some(12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

fn by_content(head: &[u8], extension: &str) -> FileKind {
    let raw = raw_photograph(extension);
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4).unwrap_or_default() {
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                OtherImage("HEIC image")
            }
            b"avif" | b"avis" => OtherImage("AVIF image"),
            b"crx " => OtherImage("camera raw image"),
            b"jp2 " | b"jpx " => OtherImage("JPEG 2000 image"),
            b"qt  " => Video("QuickTime video"),
            b"M4A " | b"M4B " => Other,
            _ => Video("MP4 video"),
        },
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] | [b'I', b'I', b'+', 0, ..] => {
            raw.unwrap_or(OtherImage("TIFF image"))
        }
        [b'I', b'I', b'R', b'O' | b'S', ..] | [b'I', b'I', b'U', 0, ..] => OtherImage("camera raw image"),
        [b'F', b'U', b'J', b'I', b'F', b'I', b'L', b'M', b'C', b'C', b'D', ..] => {
            OtherImage("camera raw image")
        }
        [b'G', b'I', b'F', b'8', ..] => OtherImage("GIF image"),
        [0xFF, 0x0A, ..] if extension == "jxl" => OtherImage("JPEG XL image"),
        [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => OtherImage("JPEG XL image"),
        [0, 0, 0, 12, b'j', b'P', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => OtherImage("JPEG 2000 image"),
        [b'8', b'B', b'P', b'S', ..] => OtherImage("Photoshop image"),
        [b'g', b'i', b'm', b'p', b' ', b'x', b'c', b'f', ..] => OtherImage("XCF image"),
        [b'q', b'o', b'i', b'f', ..] => OtherImage("QOI image"),
        [0x76, 0x2F, 0x31, 0x01, ..] => OtherImage("OpenEXR image"),
        [b'D', b'D', b'S', b' ', ..] => OtherImage("DDS image"),
        [b'<', b's', b'v', b'g', ..] => OtherImage("SVG image"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => Video("AVI video"),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Video("Matroska or WebM video"),
        [0, 0, 1, 0xBA | 0xB3, ..] => Video("MPEG video"),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => match extension {
            "npz" => Array("NumPy archive"),
            // Office documents, programs and books are zip archives too.
            "zip" | "cbz" | "" => Archive("zip archive"),
            _ => Other,
        },
        [b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C, ..] => Archive("7z archive"),
        [b'R', b'a', b'r', b'!', 0x1A, 7, ..] => Archive("RAR archive"),
        _ if head.starts_with(crate::npy::MAGIC) => Array("NumPy array"),
        [0, 0, 8, 1..=4, ..] => Array("idx file"),
        _ => Other,
    }
}

fn raw_photograph(extension: &str) -> Option<FileKind> {
    const RAW: [&str; 22] = [
        "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef",
        "nrw", "orf", "pef", "raf", "raw", "rw2", "sr2", "srw",
    ];
    RAW.contains(&extension).then_some(OtherImage("camera raw image"))
}

fn by_name(name: &str, extension: &str, head: &[u8], len: u64) -> FileKind {
    let is_tar = ["tar", "tgz", "tbz2", "txz"].contains(&extension)
        || [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"].iter().any(|ending| name.ends_with(ending));
    let cifar = is_cifar(name);
    match extension {
        _ if is_tar => Archive("tar archive"),
        "bin" if cifar => Array("CIFAR-10 file"),
        "bin" if ["train.bin", "test.bin"].contains(&name) && len > 0 && len.is_multiple_of(3074) => {
            OtherCifar("CIFAR-100 file")
        }
        "" if cifar && head.first() == Some(&0x80) => OtherCifar("pickled CIFAR file"),
        "gz" if name.contains("-ubyte") => Array("idx file"),
        "heic" | "heif" | "hif" => OtherImage("HEIC image"),
        "avif" => OtherImage("AVIF image"),
        "tif" | "tiff" => OtherImage("TIFF image"),
        "gif" => OtherImage("GIF image"),
        "jxl" => OtherImage("JPEG XL image"),
        "jp2" | "j2k" | "jpx" => OtherImage("JPEG 2000 image"),
        "psd" | "psb" => OtherImage("Photoshop image"),
        "svg" | "svgz" => OtherImage("SVG image"),
        "ico" => OtherImage("ICO image"),
        "tga" => OtherImage("TGA image"),
        "pbm" | "pgm" | "ppm" | "pnm" | "pam" => OtherImage("Netpbm image"),
        "exr" => OtherImage("OpenEXR image"),
        "hdr" if head.starts_with(b"#?R") => OtherImage("Radiance image"),
        "eps" => OtherImage("EPS image"),
        "wmf" | "emf" => OtherImage("WMF image"),
        "dcm" => OtherImage("DICOM image"),
        "mp4" | "m4v" => Video("MP4 video"),
        "mov" => Video("QuickTime video"),
        "avi" => Video("AVI video"),
        "mkv" | "webm" => Video("Matroska or WebM video"),
        "mpg" | "mpeg" => Video("MPEG video"),
        _ => raw_photograph(extension).unwrap_or(Other),
    }
}
