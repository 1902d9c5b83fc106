//! Image folders: the images found, their order and their classes.

use std::fs;

use crate::common::{numbered_folder, open_as, open_default, open_error, pattern, read, shape};
use glowflow_data::{OpenOptions, open, save_png};
use image::{ExtendedColorType, ImageFormat};

const SMALL: glowflow_data::ImageShape = shape(4, 6, 3);

fn names(path: &std::path::Path) -> Vec<String> {
    let data = open_default(path).train;
    (0..data.len()).map(|i| data.name(i)).collect()
}

#[test]
fn every_format_is_read_under_any_name() {
    let pixels = pattern(SMALL, 1);
    for (name, format, lossless) in [
        ("a.png", ImageFormat::Png, true),
        ("a.BMP", ImageFormat::Bmp, true),
        ("a.webp", ImageFormat::WebP, true),
        ("a.jpeg", ImageFormat::Jpeg, false),
        ("named-wrongly.jpg", ImageFormat::Png, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        image::save_buffer_with_format(&path, &pixels, 6, 4, ExtendedColorType::Rgb8, format).unwrap();
        for opened in [folder.path(), path.as_path()] {
            let data = open_default(opened).train;
            assert_eq!((data.len(), data.shape(), data.name(0).as_str()), (1, SMALL, name));
            assert!(!lossless || read(&*data, 0) == pixels, "{name}");
        }
    }
}

#[test]
fn files_are_in_byte_order_without_hidden_ones() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.png", "a/z.PNG", "a.png", "Z.png", "a/deep/er/1.png", ".hidden.png", ".git/x.png"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        save_png(&path, SMALL, &pattern(SMALL, 0)).unwrap();
    }
    fs::write(folder.path().join("notes.txt"), "no image").unwrap();
    assert_eq!(names(folder.path()), ["Z.png", "a.png", "a/deep/er/1.png", "a/z.PNG", "b.png"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    save_png(&elsewhere.path().join("x.png"), SMALL, &pattern(SMALL, 0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), folder.path().join("linked")).unwrap();
    symlink(folder.path(), folder.path().join("circle")).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    assert_eq!(names(folder.path()), ["linked/x.png"]);
}

#[test]
fn sub_folders_are_classes_on_request() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["dog/1.png", "cat/2.png", "cat/young/3.png"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        save_png(&path, SMALL, &pattern(SMALL, 0)).unwrap();
    }
    let unlabelled = open_default(folder.path()).train;
    assert!(unlabelled.classes().is_empty() && unlabelled.label(0).is_none());

    let labels = OpenOptions { labels: true, ..Default::default() };
    let data = open(folder.path(), &labels).unwrap().train;
    assert_eq!(data.classes(), ["cat", "dog"]);
    assert_eq!([0, 1, 2].map(|i| data.label(i).unwrap()), [0, 0, 1]);

    let fixed = |classes: &[&str]| OpenOptions {
        classes: classes.iter().map(|&class| class.to_owned()).collect(),
        ..labels.clone()
    };
    let data = open(folder.path(), &fixed(&["dog", "bird", "cat"])).unwrap().train;
    assert_eq!([0, 1, 2].map(|i| data.label(i).unwrap()), [2, 2, 0]);
    let error = open(folder.path(), &fixed(&["cat"])).err().unwrap().to_string();
    assert!(error.contains("dog/1.png") && error.contains("`dog`"), "{error}");

    save_png(&folder.path().join("stray.png"), SMALL, &pattern(SMALL, 0)).unwrap();
    let error = open(folder.path(), &labels).err().unwrap().to_string();
    assert!(error.contains("stray.png"), "{error}");
}

#[test]
fn classes_of_data_without_labels_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.png");
    save_png(&path, SMALL, &pattern(SMALL, 0)).unwrap();
    let error = open(&path, &OpenOptions { labels: true, ..Default::default() }).err().unwrap();
    assert!(error.to_string().contains("no labels"), "{error}");
}

#[test]
fn files_that_cannot_be_opened_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    assert!(open_error(folder.path()).contains("no images in"));
    let missing = folder.path().join("missing");
    assert!(open_error(&missing).contains("missing: "));
    let text = folder.path().join("text");
    fs::write(&text, "hello there").unwrap();
    assert!(open_error(&text).contains("hello there"));
}

#[test]
fn impossible_shapes_are_refused() {
    let (folder, _) = numbered_folder(1, SMALL);
    for bad in [shape(0, 4, 3), shape(4, 1 << 20, 3), shape(4, 4, 2)] {
        let options = OpenOptions { shape: Some(bad), ..Default::default() };
        let error = open(folder.path(), &options).err().unwrap().to_string();
        assert!(error.contains(&bad.to_string()), "{error}");
    }
}

#[test]
fn a_full_cache_changes_nothing() {
    let (folder, _) = numbered_folder(5, SMALL);
    for cache_bytes in [0, 2 * SMALL.len(), usize::MAX] {
        let data = open(folder.path(), &OpenOptions { cache_bytes, ..Default::default() }).unwrap().train;
        for i in (0..5).chain(0..5) {
            assert_eq!(read(&*data, i), pattern(SMALL, i));
        }
    }
}

#[test]
fn cached_images_are_not_read_again() {
    let (folder, _) = numbered_folder(2, SMALL);
    let data =
        open(folder.path(), &OpenOptions { cache_bytes: usize::MAX, ..Default::default() }).unwrap().train;
    read(&*data, 0);
    fs::remove_dir_all(folder.path()).unwrap();
    assert_eq!(read(&*data, 0), pattern(SMALL, 0));
    assert!(data.read(1, &mut vec![0; SMALL.len()]).is_err());
}

#[test]
fn a_buffer_of_the_wrong_size_is_an_error() {
    let (folder, _) = numbered_folder(1, SMALL);
    let data = open_as(folder.path(), SMALL).train;
    let error = data.read(0, &mut [0; 5]).unwrap_err().to_string();
    assert!(error.contains("5 bytes") && error.contains("72"), "{error}");
    let error = save_png(&folder.path().join("x.png"), SMALL, &[0; 5]).unwrap_err().to_string();
    assert!(error.contains("5 bytes"), "{error}");
    let nowhere = folder.path().join("no/such/folder.png");
    let error = save_png(&nowhere, SMALL, &[0; 72]).unwrap_err().to_string();
    assert!(error.contains("folder.png"), "{error}");
}
