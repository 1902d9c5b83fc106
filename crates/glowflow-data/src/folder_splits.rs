//! Opens a folder of image files as datasets, split into training and test images if its sub-folders are
//! named accordingly.
//!
//! Images in a folder `train` and in one or more of `val` and `test` (in any case, also `training`, `valid`,
//! `validation`, `dev` and `testing`) form a training and a test set: `test` if it exists, else `val`. A
//! `val` next to a `test` is left out, and so are images outside these folders. Classes are then the folders
//! inside these. A test set without the required classes is left out.
//!
//! The folders may be nested, at any depth, in the only sub-folder of the folder.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::folder::ImageFolder;
use crate::leftovers::{agree, counted};
use crate::memory_budget::MemoryBudget;
use crate::names::name_of;
use crate::scan::Found;
use crate::{Dataset, Error, OpenOptions, Splits};

/// The part of a dataset that a sub-folder holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Train,
    Validation,
    Test,
}

impl Role {
    fn of(folder: &OsStr) -> Option<Self> {
        match folder.to_str()?.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" | "dev" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

/// Files grouped by the role of their folder.
struct Roles {
    /// Number of folders above those with a role.
    depth: usize,
    train: Vec<PathBuf>,
    validation: Vec<PathBuf>,
    test: Vec<PathBuf>,
    outside: Vec<PathBuf>,
}

impl Roles {
    /// `None` unless there is a training set and another set.
    fn of(files: &[PathBuf]) -> Option<Self> {
        let mut depth = 0;
        loop {
            let roles = Self::at(files, depth);
            let has_test = !roles.validation.is_empty() || !roles.test.is_empty();
            if has_test && !roles.train.is_empty() {
                return Some(roles);
            }
            let folders: BTreeSet<&OsStr> = files.iter().filter_map(|file| folder_at(file, depth)).collect();
            if folders.len() != 1 {
                return None;
            }
            depth += 1;
        }
    }

    fn at(files: &[PathBuf], depth: usize) -> Self {
        let mut roles = Self { depth, train: vec![], validation: vec![], test: vec![], outside: vec![] };
        for file in files {
            let role = match folder_at(file, depth).and_then(Role::of) {
                Some(Role::Train) => &mut roles.train,
                Some(Role::Validation) => &mut roles.validation,
                Some(Role::Test) => &mut roles.test,
                None => &mut roles.outside,
            };
            role.push(file.clone());
        }
        roles
    }

    /// The folder that contains `files` of one role.
    fn folder(&self, files: &[PathBuf]) -> String {
        let folder: PathBuf =
            files.iter().take(1).flat_map(|file| file.iter().take(self.depth + 1)).collect();
        name_of(&folder)
    }

    /// The folder of files, with their count.
    fn described(&self, files: &[PathBuf]) -> String {
        format!("{} ({})", self.folder(files), counted(files.len(), "image"))
    }
}

/// The folder of a file's path below `depth` others.
fn folder_at(file: &Path, depth: usize) -> Option<&OsStr> {
    let mut parts = file.iter().skip(depth);
    let folder = parts.next()?;
    parts.next().map(|_| folder)
}

/// Opens the images found under `root`.
pub(crate) fn open(root: &Path, found: Found, options: &OpenOptions) -> Result<Splits, Error> {
    let left_out = found.leftovers.notices(&[]);
    if found.images.is_empty() {
        return Err(match found.leftovers.is_empty() {
            true => Error::EmptyFolder(root.to_owned()),
            false => Error::NothingReadable { path: root.to_owned(), found: left_out.join("; ") },
        });
    }
    let budget = Arc::new(MemoryBudget::new(options.cache_bytes));
    let open = |files, depth, options: &OpenOptions| {
        Ok::<_, Error>(Arc::new(ImageFolder::open(root, files, depth, options, budget.clone())?))
    };
    let Some(roles) = Roles::of(&found.images) else {
        let all = open(found.images, 0, options)?;
        return Ok(Splits { train: all, test: None, notices: left_out });
    };

    let inside = roles.depth + 1;
    let has_classes =
        |files: &&Vec<PathBuf>| files.iter().any(|file| folder_at(file, inside).is_some()) || !options.labels;
    let sets = [&roles.test, &roles.validation];
    let test = sets.into_iter().filter(|files| !files.is_empty()).find(has_classes);
    let training = roles.described(&roles.train);
    let mut notices = vec![match test {
        Some(test) => format!("{training} is the training set and {} the test set", roles.described(test)),
        None => format!("{training} is the training set"),
    }];
    for files in sets.into_iter().filter(|files| !files.is_empty() && Some(*files) != test) {
        let set = roles.described(files);
        notices.push(match has_classes(&files) {
            true => format!("{set} is skipped: give the folder alone to use it"),
            false => format!("{set} is skipped: it has no sub-folders that name classes"),
        });
    }
    if let Some(first) = roles.outside.first() {
        notices.push(format!(
            "{} outside {} and {} {} skipped, such as {}",
            counted(roles.outside.len(), "image"),
            roles.folder(&roles.train),
            roles.folder(test.unwrap_or(&roles.test)),
            agree(roles.outside.len(), "is", "are"),
            name_of(first)
        ));
    }
    notices.extend(left_out);
    let train = open(roles.train.clone(), inside, options)?;
    let known =
        OpenOptions { shape: Some(train.shape()), classes: train.classes().to_vec(), ..options.clone() };
    let open_test = |files: &Vec<PathBuf>| -> Result<Arc<dyn Dataset>, Error> {
        match open(files.clone(), inside, &known) {
            Ok(test) => Ok(test),
            Err(Error::UnknownClass { file, class, known }) if options.classes.is_empty() => {
                Err(Error::UntrainedClass { file, class, known })
            }
            Err(error) => Err(error),
        }
    };
    Ok(Splits { test: test.map(open_test).transpose()?, train, notices })
}
