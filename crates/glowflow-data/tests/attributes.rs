//! Tables of attributes: what they say of which image, and what is wrong with them.

use std::path::{Path, PathBuf};

use glowflow_data::portraits::Portraits;
use glowflow_data::{Attributes, Dataset, Error, ImageShape, OpenOptions, open, save_png};

/// A folder with images of these names and a table of this text beside it.
struct Labelled {
    _folder: tempfile::TempDir,
    images: std::sync::Arc<dyn Dataset>,
    table: PathBuf,
}

fn labelled(names: &[&str], text: impl AsRef<[u8]>) -> Labelled {
    let folder = tempfile::tempdir().unwrap();
    let shape = ImageShape { height: 2, width: 2, channels: 1 };
    for name in names {
        let path = folder.path().join("images").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        save_png(&path, shape, &[7; 4]).unwrap();
    }
    let table = folder.path().join("attributes.csv");
    std::fs::write(&table, text).unwrap();
    let images = open(&folder.path().join("images"), &OpenOptions::default()).unwrap().train;
    Labelled { _folder: folder, images, table }
}

fn read(names: &[&str], text: impl AsRef<[u8]>) -> Result<Attributes, Error> {
    let labelled = labelled(names, text);
    Attributes::read(&labelled.table, &*labelled.images)
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[test]
fn ones_are_yes_zeros_and_minus_ones_no_and_empty_fields_unknown() {
    let attributes = read(
        &["a.png", "b.png", "c.png"],
        "image,Smiling,Hat,Beard\nb.png, 1,0,\na.png,-1,+1,1\nelsewhere.png,1,1,1\n",
    )
    .unwrap();
    assert_eq!(attributes.names(), ["Smiling", "Hat", "Beard"]);
    assert_eq!(attributes.of(0), [NO, YES, YES]);
    assert_eq!(attributes.of(1), [YES, NO, None]);
    assert_eq!(attributes.of(2), [None, None, None], "an image without a row");
    assert!(attributes.left_out().is_empty());
}

#[test]
fn columns_of_other_things_are_left_out_and_named() {
    let attributes =
        read(&["a.png", "b.png"], "image,age,Hat,left_eye_x\na.png,31,1,0\nb.png,1,0,0.5\n").unwrap();
    assert_eq!(attributes.names(), ["Hat"]);
    assert_eq!(attributes.left_out(), [r#"age ("31" for a.png)"#, r#"left_eye_x ("0.5" for b.png)"#]);
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [NO]]);
}

#[test]
fn rows_are_found_by_path_and_by_file_name_where_that_is_clear() {
    let attributes = read(&["x/a.png", "y/b.png"], "image,Hat\nx/a.png,1\nb.png,0\n").unwrap();
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [NO]]);
    // Two images are called a.png: only the path tells which is meant.
    let attributes = read(&["x/a.png", "y/a.png"], "image,Hat\nx/a.png,1\na.png,0\n").unwrap();
    assert_eq!([attributes.of(0), attributes.of(1)], [[YES], [None]]);
}

#[test]
fn what_is_no_such_table_is_said() {
    for (text, words) in [
        (&b""[..], "no column of attributes"),
        (b"image,Hat\n", "no column of attributes"),
        (b"image,age\na.png,31\n", "there is age (\"31\" for a.png)"),
        (b"image,Hat,Hat\na.png,1,0\n", "two columns are named \"Hat\""),
        (b"image,Hat\na.png,1\na.png,0\n", "a.png has two rows"),
        (b"image,Hat,Beard\na.png,1\n", "record 1"),
        (b"image,Hat\nz.png,1\n", "names \"z.png\", the data \"a.png\""),
        (b"image,Hat\n\xff\xfe.png,1\n", "UTF-8"),
    ] {
        let error = read(&["a.png"], text).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("attributes.csv"), "{words:?} is not said: {error}");
    }
    let Labelled { images, .. } = labelled(&["a.png"], "");
    let error = Attributes::read(Path::new("missing.csv"), &*images).unwrap_err();
    assert!(matches!(error, Error::Read { .. }) && error.to_string().contains("missing.csv"), "{error}");
}

#[test]
fn portraits_come_with_what_was_drawn() {
    let portraits = Portraits::new(5, 16, 3);
    let attributes = Attributes::of_portraits(&portraits);
    for image in 0..5 {
        let drawn = portraits.attributes(image);
        assert_eq!(attributes.names(), drawn.map(|(name, _)| name));
        assert_eq!(attributes.of(image), drawn.map(|(_, present)| Some(present)));
    }
}
