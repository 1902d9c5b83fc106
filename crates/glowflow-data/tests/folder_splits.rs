//! Sub-folders for training and testing.

mod common;

use common::{names, open_default, save};
use glowflow_data::{Error, OpenOptions, Splits, open};

fn folder(images: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    images.iter().zip(0..).for_each(|(name, seed)| save(folder.path(), name, seed));
    folder
}

fn open_classes(folder: &tempfile::TempDir) -> Result<Splits, Error> {
    open(folder.path(), &OpenOptions { labels: true, ..Default::default() })
}

#[test]
fn train_and_test_are_no_classes() {
    for (train, test) in [("train", "test"), ("Train", "VAL"), ("training", "validation"), ("train", "valid")]
    {
        let (a, b) = (format!("{train}/1.png"), format!("{test}/2.png"));
        let folder = folder(&[&a, &format!("{train}/x/3.png"), &b]);
        let data = open_default(folder.path());
        assert_eq!(names(&*data.train), [a.as_str(), &format!("{train}/x/3.png")]);
        assert_eq!(names(&*data.test.unwrap()), [b.as_str()]);
        let notice = format!("{train} (2 images) is the training set and {test} (1 image) the test set");
        assert_eq!(data.notices, [notice.as_str()]);
    }
}

#[test]
fn classes_are_the_folders_inside() {
    let folder = folder(&["train/cat/1.png", "train/dog/2.png", "test/dog/3.png", "test/dog/4.png"]);
    let data = open_classes(&folder).unwrap();
    let test = data.test.unwrap();
    assert_eq!(data.train.classes(), ["cat", "dog"]);
    assert_eq!((data.train.label(0), data.train.label(1), test.label(0)), (Some(0), Some(1), Some(1)));
    save(folder.path(), "test/cow/5.png", 5);
    let error = open_classes(&folder).err().unwrap().to_string();
    assert!(error.contains("test/cow/5.png") && error.contains("`cow`"), "{error}");
}

#[test]
fn test_comes_before_val() {
    let folder = folder(&["train/1.png", "val/2.png", "val/3.png", "test/4.png"]);
    let data = open_default(folder.path());
    assert_eq!(names(&*data.test.unwrap()), ["test/4.png"]);
    assert!(data.notices[1].contains("val (2 images) is left out"), "{:?}", data.notices);
}

#[test]
fn anything_else_is_one_dataset() {
    for images in [
        &["train/1.png", "test/2.png", "3.png"][..],
        &["train/1.png", "test/2.png", "more/3.png"],
        &["train/1.png", "train/2.png"],
        &["val/1.png", "test/2.png"],
        &["train.png", "test.png"],
    ] {
        let folder = folder(images);
        let data = open_default(folder.path());
        assert!(data.test.is_none() && data.train.len() == images.len() && data.notices.is_empty());
    }
}
