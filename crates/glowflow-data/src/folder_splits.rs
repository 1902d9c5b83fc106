//! A folder of image files as datasets, with training and test images where its sub-folders say so.
//!
//! Images that all lie in a folder `train` and in one or more of `val` and `test` (in upper or lower
//! case, also `training`, `valid`, `validation`, `dev` and `testing`) have a test set of their own:
//! `test` if there is one, else `val`. A `val` beside a `test` is left out. Classes are then the
//! folders inside these.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::folder::ImageFolder;
use crate::leftovers::counted;
use crate::names::name_of;
use crate::room::Room;
use crate::scan::Found;
use crate::{Dataset, Error, OpenOptions, Splits};

/// Part of a dataset that a sub-folder is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Train,
    Validation,
    Test,
}

impl Role {
    /// Of a file, by the first folder of its path.
    fn of(file: &Path) -> Option<Self> {
        let mut parts = file.iter();
        let (folder, _) = (parts.next()?, parts.next()?);
        match folder.to_str()?.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" | "dev" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

/// Opens the images that were found under `root`.
pub(crate) fn open(root: &Path, found: Found, options: &OpenOptions) -> Result<Splits, Error> {
    let left_out = found.leftovers.notices(None);
    if found.images.is_empty() {
        return Err(match found.leftovers.is_empty() {
            true => Error::EmptyFolder(root.to_owned()),
            false => Error::NothingReadable { path: root.to_owned(), found: left_out.join("; ") },
        });
    }
    let room = Arc::new(Room::new(options.cache_bytes));
    let open = |files, depth, options: &OpenOptions| {
        Ok::<_, Error>(Arc::new(ImageFolder::open(root, files, depth, options, room.clone())?))
    };
    let roles: Option<Vec<Role>> = found.images.iter().map(|file| Role::of(file)).collect();
    let with = |role| -> Vec<PathBuf> {
        let roles = roles.iter().flatten();
        found.images.iter().zip(roles).filter(|(_, of)| **of == role).map(|(file, _)| file.clone()).collect()
    };
    let [train, validation, test] = [Role::Train, Role::Validation, Role::Test].map(with);
    if train.is_empty() || validation.is_empty() && test.is_empty() {
        let all = open(found.images, 0, options)?;
        return Ok(Splits { train: all, test: None, notices: left_out });
    }

    let (test, passed_over) = if test.is_empty() { (validation, test) } else { (test, validation) };
    let mut notices =
        vec![format!("{} is the training set and {} the test set", described(&train), described(&test))];
    if !passed_over.is_empty() {
        notices.push(format!("{} is left out: give the folder alone to use it", described(&passed_over)));
    }
    notices.extend(left_out);
    let train = open(train, 1, options)?;
    let known =
        OpenOptions { shape: Some(train.shape()), classes: train.classes().to_vec(), ..options.clone() };
    let test = open(test, 1, &known)?;
    Ok(Splits { train, test: Some(test), notices })
}

/// The folder of files, with their number.
fn described(files: &[PathBuf]) -> String {
    let folder = files.first().and_then(|file| file.iter().next()).unwrap_or_default();
    format!("{} ({})", name_of(Path::new(folder)), counted(files.len(), "image"))
}
