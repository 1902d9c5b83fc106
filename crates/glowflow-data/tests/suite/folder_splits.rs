//! Sub-folders for training and test images.

use crate::common::{names, open_default, save};
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
fn train_and_test_are_not_classes() {
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
    assert!(error.contains("test/cow/5.png is a test image of class `cow`"), "{error}");
    assert!(error.contains("cat, dog"), "{error}");
}

#[test]
fn test_comes_before_val() {
    let folder = folder(&["train/1.png", "val/2.png", "val/3.png", "test/4.png"]);
    let data = open_default(folder.path());
    assert_eq!(names(&*data.test.unwrap()), ["test/4.png"]);
    assert!(data.notices[1].contains("val (2 images) is skipped"), "{:?}", data.notices);
}

#[test]
fn other_folders_are_one_dataset() {
    for images in [
        &["train/1.png", "train/2.png"][..],
        &["train/1.png", "more/2.png", "3.png"],
        &["val/1.png", "test/2.png"],
        &["train.png", "test.png"],
        &["a/train/1.png", "a/test/2.png", "b/3.png"],
    ] {
        let folder = folder(images);
        let data = open_default(folder.path());
        assert!(data.test.is_none() && data.train.len() == images.len() && data.notices.is_empty());
    }
}

#[test]
fn images_elsewhere_join_neither_set() {
    for elsewhere in [&["preview.png"][..], &["unlabeled/1.png", "unlabeled/x/2.png"], &["test1/1.png"]] {
        let folder = folder(&[&["train/a/1.png", "test/a/2.png"], elsewhere].concat());
        let data = open_classes(&folder).unwrap();
        assert_eq!(names(&*data.train), ["train/a/1.png"]);
        assert_eq!(names(&*data.test.unwrap()), ["test/a/2.png"]);
        let (count, are) = [("1 image", "is"), ("2 images", "are")][elsewhere.len() - 1];
        let notice =
            format!("{count} outside train and test {are} skipped, such as {}", elsewhere.first().unwrap());
        assert_eq!(data.notices[1], notice);
    }
}

#[test]
fn the_sets_may_lie_in_the_only_sub_folder() {
    let folder = folder(&["photos/v1/train/cat/1.png", "photos/v1/val/cat/2.png", "photos/cover.png"]);
    let data = open_classes(&folder).unwrap();
    assert_eq!(data.train.classes(), ["cat"]);
    assert_eq!(names(&*data.test.unwrap()), ["photos/v1/val/cat/2.png"]);
    assert!(data.notices[0].starts_with("photos/v1/train (1 image) is the training"), "{:?}", data.notices);
    assert!(data.notices[1].contains("outside photos/v1/train and photos/v1/val"), "{:?}", data.notices);
}

#[test]
fn a_test_set_without_class_folders_is_left_out_if_classes_are_needed() {
    let folder = folder(&["train/cat/1.png", "train/dog/2.png", "test/3.png", "test/4.png"]);
    let data = open_classes(&folder).unwrap();
    assert_eq!((data.train.len(), data.test.is_none()), (2, true));
    assert!(data.notices[1].contains("test (2 images) is skipped"), "{:?}", data.notices);
    assert_eq!(open_default(folder.path()).test.unwrap().len(), 2);
    // Validation images with classes become the test set instead.
    save(folder.path(), "val/cat/5.png", 5);
    let data = open_classes(&folder).unwrap();
    assert_eq!(names(&*data.test.unwrap()), ["val/cat/5.png"]);
}

#[test]
fn messages_about_classes_mention_no_commands() {
    let folder = folder(&["train/cat/1.png", "train/2.png", "test/cat/3.png"]);
    let error = open_classes(&folder).err().unwrap().to_string();
    assert!(error.contains("train/2.png") && !error.contains("--"), "{error}");
}
