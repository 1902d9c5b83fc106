//! MNIST-style idx files.

use std::fs;
use std::io::Write;

use crate::common::{open_as, open_default, open_error, pattern, read, shape};
use glowflow_data::{OpenOptions, open};

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
        // Both halves share one set of classes.
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
fn bad_files_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad-idx3-ubyte");
    let good = idx(&[2, 2, 2], &[0; 8]);
    let zipped = gzip(&idx(&[20, 9, 9], &pattern(shape(20, 81, 1), 1)));
    for (contents, expected) in [
        (good[..15].to_vec(), "cut short"),
        (good[..20].to_vec(), "4 bytes of elements"),
        ([&good[..], &[0]].concat(), "more bytes"),
        (idx(&[2, 4], &[0; 8]), "has 2 dimensions"),
        (vec![0, 0, 0x0A, 3, 0, 0, 0, 1], "[00, 00, 0a, 03]"),
        ([&[0, 0, 0x0D][..], &idx(&[1, 1, 1], &[0; 4])[3..]].concat(), "32-bit floats"),
        (idx(&[0, 2, 2], &[]), "no images"),
        (idx(&[1, 0, 2], &[]), "0×2×1"),
        (idx(&[1, 2, 2, 5], &[0; 20]), "2×2×5"),
        (idx(&[u32::MAX, u32::MAX, 2], &[0; 8]), "4294967295"),
        (idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 8]), "4294967295×4294967295×1"),
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

/// A folder with these files.
fn folder_of(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(folder.path().join(name), contents).unwrap();
    }
    folder
}

const LABELS: OpenOptions =
    OpenOptions { shape: None, labels: true, classes: Vec::new(), cache_bytes: 0, run_marker: None };

#[test]
fn relatives_of_mnist_are_found_by_their_names() {
    let images = idx(&[2, 1, 2], &[1, 2, 3, 4]);
    let test = idx(&[1, 1, 2], &[5, 6]);
    for names in [
        [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "test-images-idx3-ubyte",
            "test-labels-idx1-ubyte",
        ],
        [
            "TRAIN-IMAGES.IDX3-UBYTE",
            "TRAIN-LABELS.IDX1-UBYTE",
            "T10K-IMAGES.IDX3-UBYTE",
            "T10K-LABELS.IDX1-UBYTE",
        ],
        [
            "kmnist-train-images-idx3-ubyte",
            "kmnist-train-labels-idx1-ubyte",
            "kmnist-t10k-images-idx3-ubyte",
            "kmnist-t10k-labels-idx1-ubyte",
        ],
        [
            "my-set-train-images.idx3-ubyte",
            "my-set-train-labels.idx1-ubyte",
            "my-set-test-images.idx3-ubyte",
            "my-set-test-labels.idx1-ubyte",
        ],
    ] {
        for zipped in [false, true] {
            let file = |at: usize, contents: &Vec<u8>| match zipped {
                true => (format!("{}.gz", names[at]), gzip(contents)),
                false => (names[at].to_owned(), contents.clone()),
            };
            let files =
                [file(0, &images), file(1, &idx(&[2], &[1, 0])), file(2, &test), file(3, &idx(&[1], &[2]))];
            let folder =
                folder_of(&files.each_ref().map(|(name, contents)| (name.as_str(), contents.clone())));
            let data = open_default(folder.path());
            let test = data.test.unwrap_or_else(|| panic!("{names:?} has a test set"));
            assert_eq!((read(&*data.train, 1), read(&*test, 0)), (vec![3, 4], vec![5, 6]), "{names:?}");
            assert_eq!((data.train.label(0), test.label(0)), (Some(1), Some(2)), "{names:?}");
        }
    }
}

#[test]
fn emnist_is_upright() {
    // Stored column by column: an image of 2 rows and 3 columns is stored as 3 rows of 2.
    let stored = idx(&[2, 3, 2], &[1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
    let folder = folder_of(&[
        ("emnist-letters-train-images-idx3-ubyte.gz", gzip(&stored)),
        ("emnist-letters-train-labels-idx1-ubyte.gz", gzip(&idx(&[2], &[1, 26]))),
        ("emnist-letters-mapping.txt", b"1 65 97\n".to_vec()),
    ]);
    let data = open(folder.path(), &LABELS).unwrap();
    assert_eq!((data.train.shape(), data.train.len()), (shape(2, 3, 1), 2));
    assert_eq!([0, 1].map(|i| read(&*data.train, i)), [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]);
    // Letters are numbered from 1, so there is no class 0.
    assert_eq!((data.train.classes().len(), data.train.label(1)), (27, Some(26)));
    assert!(
        data.notices.iter().any(|notice| notice.contains("no image is of class 0")),
        "{:?}",
        data.notices
    );
    let single = folder.path().join("emnist-letters-train-images-idx3-ubyte.gz");
    assert_eq!(read(&*open_default(&single).train, 0), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn several_sets_in_a_folder_are_listed() {
    let images = idx(&[1, 1, 1], &[1]);
    let folder = folder_of(&[
        ("emnist-letters-train-images-idx3-ubyte", images.clone()),
        ("emnist-digits-train-images-idx3-ubyte", images.clone()),
        ("train-images-idx3-ubyte", images),
    ]);
    let error = open_error(folder.path());
    assert!(error.contains("one without a name, emnist-digits, emnist-letters"), "{error}");
}

#[test]
fn labels_of_another_kind_are_left_out_or_refused() {
    // QMNIST's labels are eight 32-bit integers per image.
    let mut labels = vec![0, 0, 0x0C, 2];
    [1_u32, 8].iter().for_each(|n| labels.extend(n.to_be_bytes()));
    labels.extend([0; 32]);
    let folder = folder_of(&[
        ("qmnist-train-images-idx3-ubyte", idx(&[1, 1, 2], &[3, 4])),
        ("qmnist-train-labels-idx2-int", labels),
    ]);
    let data = open_default(folder.path());
    assert_eq!(read(&*data.train, 0), [3, 4]);
    assert!(data.notices[0].contains("32-bit integers"), "{:?}", data.notices);
    let error = open(folder.path(), &LABELS).err().unwrap().to_string();
    assert!(error.contains("idx2-int") && error.contains("idx1-ubyte"), "{error}");
}

#[test]
fn missing_labels_are_reported_if_classes_are_needed() {
    let images = idx(&[1, 1, 2], &[3, 4]);
    let train = [("train-images-idx3-ubyte", images.clone()), ("train-labels-idx1-ubyte", idx(&[1], &[0]))];
    let folder = folder_of(&[&train[..], &[("t10k-images-idx3-ubyte", images)]].concat());
    assert_eq!(open_default(folder.path()).test.unwrap().label(0), None);
    let error = open(folder.path(), &LABELS).err().unwrap().to_string();
    assert!(error.contains("test images have no labels"), "{error}");
}

#[test]
fn damage_to_the_end_of_a_gzip_file_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    let whole = gzip(&idx(&[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]));
    for length in 2..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(open_error(&path).contains("cut short"), "{length} of {} bytes", whole.len());
    }
    // The final checksum and length.
    for at in whole.len() - 8..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert!(open_error(folder.path()).contains("damaged"), "byte {at}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(open_default(&path).train.len(), 2);
}
