//! Finds the images in a folder and their classes.
//!
//! Files are found at any depth and numbered in the byte order of their paths relative to the folder. A file
//! is an image if it is named like one (`.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp`, in any case) or if its
//! first bytes are those of a PNG, JPEG, WebP or BMP. Images and archives of other kinds and backup copies of
//! existing files are counted as left over.
//!
//! Hidden files, system files and folders with a given file are left out: such a file marks the folder of a
//! training run, which contains images that are not data.
//!
//! Symbolic links are followed, except to a folder that contains the link or the root. A file with several
//! paths, hard links included, counts once: under a path without symbolic links if there is one, else under
//! the first in byte order.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::Error;
use crate::backups::is_backup;
use crate::file_kind::{FileKind, HEAD};
use crate::identity::{Identity, identity};
use crate::leftovers::Leftovers;
use crate::names::name_of;
use crate::retry::{is_transient, with_retries};
use crate::system_files::is_system;

const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Contents of a folder.
pub(crate) struct Found {
    /// Paths of the images, relative to the folder and in byte order.
    pub images: Vec<PathBuf>,
    /// Other files that may hold images.
    pub leftovers: Leftovers,
}

/// Finds the images under `root`. Folders with a file named `run_marker` are left out.
pub(crate) fn scan(root: &Path, run_marker: Option<&'static str>) -> Result<Found, Error> {
    with_retries(Error::is_transient, || {
        let canonical = root.canonicalize().map_err(|error| Error::of_reading(root, error))?;
        let mut scan = Scan {
            root,
            run_marker,
            canonical,
            folders: HashSet::new(),
            links: VecDeque::new(),
            images: Vec::new(),
            leftovers: Leftovers::default(),
        };
        scan.walk(root, false)?;
        while let Some(link) = scan.links.pop_front() {
            scan.follow(&link)?;
        }
        Ok(scan.finish())
    })
}

/// A scan in progress.
struct Scan<'a> {
    root: &'a Path,
    /// Name of a file in the folder of a training run.
    run_marker: Option<&'static str>,
    canonical: PathBuf,
    /// Folders already visited.
    folders: HashSet<Identity>,
    /// Symbolic links not followed yet.
    links: VecDeque<PathBuf>,
    images: Vec<Candidate>,
    leftovers: Leftovers,
}

/// A path to an image.
struct Candidate {
    /// Relative to the root.
    path: PathBuf,
    /// True if the path contains a symbolic link.
    linked: bool,
    /// Identifies the file if it may have other paths.
    identity: Option<Identity>,
}

impl Scan<'_> {
    /// Visits a folder and its descendants, without following links.
    fn walk(&mut self, top: &Path, linked: bool) -> Result<(), Error> {
        let mut links = Vec::new();
        let mut entries = WalkDir::new(top).into_iter();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.unreadable_entry(error)?;
                    continue;
                }
            };
            let (path, kind) = (entry.path(), entry.file_type());
            let is_top = entry.depth() == 0;
            if kind.is_dir() || is_top {
                let left_out = !is_top && (is_system(path, true) || self.is_run(path));
                if left_out || self.entered(path, linked) {
                    entries.skip_current_dir();
                }
            } else if kind.is_symlink() {
                links.push(path.to_owned());
            } else if kind.is_file() && !is_system(path, false) {
                let metadata = entry.metadata().map_err(io::Error::from);
                self.file(path, metadata, linked)?;
            }
            // Other files are not opened: a pipe would block forever.
        }
        links.sort();
        self.links.extend(links);
        Ok(())
    }

    /// Returns whether a folder belongs to a training run, and counts it as left out.
    fn is_run(&mut self, folder: &Path) -> bool {
        let Some(marker) = self.run_marker.filter(|marker| folder.join(marker).exists()) else {
            return false;
        };
        let folder = self.relative(folder);
        self.leftovers.add_run(folder, marker);
        true
    }

    /// Marks a folder as visited. Returns whether a link leads to a folder visited before.
    fn entered(&mut self, path: &Path, linked: bool) -> bool {
        let identity = fs::metadata(path).ok().and_then(|metadata| identity(path, &metadata));
        identity.is_some_and(|identity| !self.folders.insert(identity)) && linked
    }

    /// Follows a symbolic link.
    fn follow(&mut self, link: &Path) -> Result<(), Error> {
        match fs::metadata(link) {
            Ok(target) if target.is_dir() => {
                let left_out = is_system(link, true) || self.leads_up(link) || self.is_run(link);
                if left_out { Ok(()) } else { self.walk(link, true) }
            }
            Ok(target) if target.is_file() && !is_system(link, false) => self.file(link, Ok(target), true),
            Ok(_) => Ok(()),
            Err(error) if is_system(link, false) => {
                if is_transient(&error) {
                    Err(Error::of_reading(link, error))
                } else {
                    Ok(())
                }
            }
            Err(error) => self.unreadable(link, error),
        }
    }

    /// Returns whether a link leads to a folder that contains the link itself or the root.
    fn leads_up(&self, link: &Path) -> bool {
        let Ok(target) = link.canonicalize() else { return true };
        let parent = link.parent().and_then(|parent| parent.canonicalize().ok());
        let is_in_system_folder = target != self.canonical && is_system(&target, true) && !is_hidden(&target);
        is_in_system_folder
            || self.canonical.starts_with(&target)
            || parent.is_some_and(|parent| parent.starts_with(&target))
    }

    /// Handles an entry that the walk could not read.
    fn unreadable_entry(&mut self, error: walkdir::Error) -> Result<(), Error> {
        let path = error.path().unwrap_or(self.root).to_owned();
        let is_top = path == self.root;
        let reason = io::Error::from(error);
        match reason.kind() {
            // Deleted after its folder was listed.
            ErrorKind::NotFound if !is_top => Ok(()),
            ErrorKind::PermissionDenied if !is_top => {
                if !is_system(&path, true) {
                    self.broken(&path);
                }
                Ok(())
            }
            _ => Err(Error::of_reading(&path, reason)),
        }
    }

    /// Handles a broken link or one whose target is not accessible.
    fn unreadable(&mut self, path: &Path, error: io::Error) -> Result<(), Error> {
        if is_transient(&error) {
            return Err(Error::of_reading(path, error));
        }
        // An inaccessible folder could hold anything, so it is listed like a broken image.
        if error.kind() == ErrorKind::PermissionDenied || has_image_extension(path) {
            self.broken(path);
        }
        Ok(())
    }

    /// Handles a regular file or a link to one.
    fn file(&mut self, path: &Path, metadata: io::Result<Metadata>, linked: bool) -> Result<(), Error> {
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(error) => return self.unreadable(path, error),
        };
        let relative = self.relative(path);
        if !has_image_extension(path) {
            match head_of(path) {
                Ok(head) => match FileKind::of(path, &head, metadata.len()) {
                    FileKind::Image(_) if is_backup(path) => {
                        self.leftovers.add_backup(relative);
                        return Ok(());
                    }
                    FileKind::Image(_) => {}
                    FileKind::Other => return Ok(()),
                    kind => {
                        self.leftovers.add(kind, relative);
                        return Ok(());
                    }
                },
                Err(error) if is_transient(&error) => return Err(Error::of_reading(path, error)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(_) => {
                    self.leftovers.add_unreadable(relative);
                    return Ok(());
                }
            }
        }
        self.images.push(Candidate { path: relative, linked, identity: identity(path, &metadata) });
        Ok(())
    }

    /// Counts a path as an unreadable image; reading it gives the reason.
    fn broken(&mut self, path: &Path) {
        let path = self.relative(path);
        self.images.push(Candidate { path, linked: false, identity: None });
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root).unwrap_or(path).to_owned()
    }

    /// Keeps one path per file.
    fn finish(mut self) -> Found {
        self.images.sort_by(|a, b| (a.linked, bytes(&a.path)).cmp(&(b.linked, bytes(&b.path))));
        let mut seen = HashSet::new();
        let mut images = Vec::with_capacity(self.images.len());
        for Candidate { path, linked, identity } in self.images {
            let has_other_names = linked || identity.as_ref().is_some_and(Identity::has_other_names);
            let is_new = identity.is_none_or(|identity| seen.insert(identity));
            if is_new || !has_other_names {
                images.push(path);
            } else {
                self.leftovers.add_duplicate(path);
            }
        }
        images.sort_by(|a, b| bytes(a).cmp(bytes(b)));
        Found { images, leftovers: self.leftovers }
    }
}

/// Reads the first bytes of a file.
pub(crate) fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn is_hidden(path: &Path) -> bool {
    bytes(Path::new(path.file_name().unwrap_or_default())).starts_with(b".")
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

pub(crate) fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The classes, and the label of each file: the folder at `depth` of its path.
///
/// Classes are in byte order, or those of `known` unless it is empty.
pub(crate) fn classes_of(
    files: &[PathBuf],
    depth: usize,
    known: &[String],
) -> Result<(Vec<String>, Vec<usize>), Error> {
    let class_of = |file: &PathBuf| {
        let mut parts = file.iter().skip(depth);
        match (parts.next(), parts.next()) {
            (Some(folder), Some(_)) => Ok(name_of(Path::new(folder))),
            _ => Err(Error::OutsideClasses(name_of(file))),
        }
    };
    let names: Vec<String> = files.iter().map(class_of).collect::<Result<_, _>>()?;
    let mut classes = known.to_vec();
    if classes.is_empty() {
        classes.clone_from(&names);
        classes.sort();
        classes.dedup();
    }
    let positions: BTreeMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    let label_of = |(name, file): (&String, &PathBuf)| {
        positions.get(name.as_str()).copied().ok_or_else(|| Error::UnknownClass {
            file: name_of(file),
            class: name.clone(),
            known: classes.join(", "),
        })
    };
    let labels = names.iter().zip(files).map(label_of).collect::<Result<_, _>>()?;
    Ok((classes, labels))
}
