//! Counts the files of a folder that are not used although they may hold images.

use std::path::{Path, PathBuf};

use crate::file_kind::FileKind;
use crate::names::name_of;

/// Counts files by kind, with the first of each kind as an example.
#[derive(Default)]
pub(crate) struct Leftovers {
    kinds: Vec<(FileKind, Vec<PathBuf>)>,
    unreadable: Vec<PathBuf>,
    duplicates: Vec<PathBuf>,
    backups: Vec<PathBuf>,
    runs: Vec<PathBuf>,
    /// Name of the file that all `runs` contain.
    run_marker: &'static str,
}

impl Leftovers {
    /// `path` is relative to the folder.
    pub fn add(&mut self, kind: FileKind, path: PathBuf) {
        match self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, paths)) => paths.push(path),
            None => self.kinds.push((kind, vec![path])),
        }
    }

    /// Counts a file of unknown kind because it cannot be opened.
    pub fn add_unreadable(&mut self, path: PathBuf) {
        self.unreadable.push(path);
    }

    /// Counts another path to an image that is already included.
    pub fn add_duplicate(&mut self, path: PathBuf) {
        self.duplicates.push(path);
    }

    /// Counts a backup copy of an existing file.
    pub fn add_backup(&mut self, path: PathBuf) {
        self.backups.push(path);
    }

    /// Counts the folder of a training run, recognised by the file `marker`.
    pub fn add_run(&mut self, path: PathBuf, marker: &'static str) {
        self.runs.push(path);
        self.run_marker = marker;
    }

    /// Returns whether no leftover could hold images.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.unreadable.is_empty() && self.runs.is_empty()
    }

    /// One sentence per kind, the most frequent first, except for the files `used`.
    pub fn notices(&self, used: &[&Path]) -> Vec<String> {
        let unused = |paths: &[PathBuf]| -> Vec<PathBuf> {
            paths.iter().filter(|path| !used.contains(&path.as_path())).cloned().collect()
        };
        let mut kinds: Vec<_> = self.kinds.iter().map(|(kind, paths)| (*kind, unused(paths))).collect();
        kinds.retain(|(_, paths)| !paths.is_empty());
        kinds.sort_by_key(|(_, paths)| std::cmp::Reverse(paths.len()));
        let example = |paths: &[PathBuf]| paths.iter().min().map(|path| name_of(path)).unwrap_or_default();
        let mut notices: Vec<_> =
            kinds.iter().filter_map(|(kind, paths)| kind.notice(paths.len(), &example(paths))).collect();
        if !self.unreadable.is_empty() {
            notices.push(format!(
                "skipped {} without read permission, such as {}",
                counted(self.unreadable.len(), "file"),
                example(&self.unreadable)
            ));
        }
        if !self.backups.is_empty() {
            notices.push(format!(
                "skipped {} of existing files, such as {}",
                match self.backups.len() {
                    1 => "1 backup copy".to_owned(),
                    count => format!("{count} backup copies"),
                },
                example(&self.backups)
            ));
        }
        if !self.runs.is_empty() {
            notices.push(format!(
                "skipped {} with {}, such as {}: images written by training are not data",
                counted(self.runs.len(), "folder"),
                self.run_marker,
                example(&self.runs)
            ));
        }
        if !self.duplicates.is_empty() {
            notices.push(format!(
                "skipped {} to images that are already included, such as {}",
                counted(self.duplicates.len(), "link"),
                example(&self.duplicates)
            ));
        }
        notices
    }
}

/// `1 image`, `2 images`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The form of a word that agrees with `count`.
pub(crate) fn agree<'a>(count: usize, one: &'a str, several: &'a str) -> &'a str {
    if count == 1 { one } else { several }
}
