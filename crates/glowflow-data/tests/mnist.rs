//! MNIST-style idx files.

mod common;

use std::fs;
use std::io::Write;

use common::{open_as, open_default, open_error, read, shape};

fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|n| file.extend(n.to_be_bytes()));
    file.extend(elements);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn folders_have_both_halves_with_labels() {
    let pixels: Vec<u8> = (0..24).collect();
    let files = [
        ("train-images-idx3-ubyte", idx(&[4, 2, 3], &pixels)),
        ("train-labels-idx1-ubyte", idx(&[4], &[1, 0, 2, 1])),
        ("t10k-images-idx3-ubyte", idx(&[1, 2, 3], &[9; 6])),
        ("t10k-labels-idx1-ubyte", idx(&[1], &[4])),
    ];
    for (zipped, dash) in [(false, "-"), (true, "-"), (false, ".")] {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in &files {
            let name = name.replace("-idx", &format!("{dash}idx"));
            match zipped {
                true => fs::write(folder.path().join(name + ".gz"), gzip(contents)).unwrap(),
                false => fs::write(folder.path().join(name), contents).unwrap(),
            }
        }
        let data = open_default(folder.path());
        let test = data.test.unwrap();
        assert_eq!((data.train.len(), data.train.shape(), test.len()), (4, shape(2, 3, 1), 1));
        assert_eq!(read(&*data.train, 2), pixels[12..18]);
        assert_eq!([0, 1, 2, 3].map(|i| data.train.label(i).unwrap()), [1, 0, 2, 1]);
        // One set of classes for both halves.
        assert_eq!(data.train.classes(), ["0", "1", "2", "3", "4"]);
        assert_eq!((test.classes().len(), test.label(0)), (5, Some(4)));
    }
}

#[test]
fn single_files_may_be_grey_or_colour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images");
    fs::write(&path, idx(&[2, 1, 2], &[1, 2, 3, 4])).unwrap();
    let data = open_as(&path, shape(1, 2, 3)).train;
    assert_eq!((data.len(), read(&*data, 1), data.label(0)), (2, vec![3, 3, 3, 4, 4, 4], None));
    fs::write(&path, gzip(&idx(&[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6]))).unwrap();
    let data = open_default(&path).train;
    assert_eq!((data.shape(), read(&*data, 0)), (shape(1, 2, 3), vec![1, 2, 3, 4, 5, 6]));
}

#[test]
fn bad_files_are_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad-idx3-ubyte");
    let good = idx(&[2, 2, 2], &[0; 8]);
    let zipped = gzip(&idx(&[20, 9, 9], &common::pattern(shape(20, 81, 1), 1)));
    for (contents, expected) in [
        (good[..15].to_vec(), "cut short"),
        (good[..20].to_vec(), "4 bytes of elements"),
        ([&good[..], &[0]].concat(), "more bytes"),
        (idx(&[2, 4], &[0; 8]), "has 2 dimensions"),
        (vec![0, 0, 0x0D, 3, 0, 0, 0, 1], "[00, 00, 0d, 03]"),
        (idx(&[0, 2, 2], &[]), "no images"),
        (idx(&[1, 0, 2], &[]), "0×2×1"),
        (idx(&[1, 2, 2, 5], &[0; 20]), "2×2×5"),
        (idx(&[u32::MAX, u32::MAX, 2], &[0; 8]), "4294967295"),
        (idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 8]), "impossible"),
        (zipped[..zipped.len() / 2].to_vec(), "cut short or damaged"),
        (gzip(b"something else"), "[73, 6f, 6d, 65]"),
        (gzip(b""), "cut short"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = open_error(&path);
        assert!(error.contains(expected) && error.contains("bad-idx3-ubyte"), "{error}");
    }
}

#[test]
fn labels_must_match_the_images() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train-images-idx3-ubyte"), idx(&[2, 1, 1], &[0; 2])).unwrap();
    fs::write(folder.path().join("train-labels-idx1-ubyte"), idx(&[3], &[0; 3])).unwrap();
    let error = open_error(folder.path());
    assert!(error.contains("3 labels for the 2 images"), "{error}");
}

#[test]
fn every_damage_to_the_end_of_a_gzip_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    let whole = gzip(&idx(&[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]));
    for length in 10..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(open_error(&path).contains("cut short"), "{length} of {} bytes", whole.len());
    }
    // The checksum and the length at the end.
    for at in whole.len() - 8..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert!(open_error(folder.path()).contains("damaged"), "byte {at}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open_default(&path).train.len(), 2);
}
