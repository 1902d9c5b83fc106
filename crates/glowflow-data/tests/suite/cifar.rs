//! CIFAR-10 binaries.

use std::fs;
use std::path::Path;

use crate::common::{open_as, open_default, open_error, read, shape};

/// A record of the given label with constant colour planes.
fn record(label: u8, rgb: [u8; 3]) -> Vec<u8> {
    let mut record = vec![label];
    rgb.iter().for_each(|&value| record.extend([value; 1024]));
    record
}

fn write_batches(folder: &Path) {
    for number in 1..=5 {
        let records = [record(number, [number, 2, 3]), record(0, [number, 5, 6])].concat();
        fs::write(folder.join(format!("data_batch_{number}.bin")), records).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), record(9, [7, 8, 9])).unwrap();
}

#[test]
fn batches_are_training_data_and_test_batch_is_test_data() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    write_batches(&inner);
    for path in [folder.path(), &inner] {
        let data = open_default(path);
        let test = data.test.unwrap();
        assert_eq!((data.train.len(), test.len()), (10, 1));
        assert_eq!(data.train.shape(), shape(32, 32, 3));
        assert_eq!(read(&*data.train, 4), [3, 2, 3].repeat(1024));
        assert_eq!((data.train.label(4), data.train.label(5)), (Some(3), Some(0)));
        assert_eq!(read(&*test, 0), [7, 8, 9].repeat(1024));
        assert_eq!(test.classes()[test.label(0).unwrap()], "truck");
    }
}

#[test]
fn planes_become_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.bin");
    let mut record = record(1, [0, 0, 0]);
    (record[1 + 33], record[1 + 1024 + 33], record[1 + 2048 + 33]) = (10, 20, 30);
    fs::write(&path, record).unwrap();
    let data = open_default(&path).train;
    let pixels = read(&*data, 0);
    assert_eq!(pixels[33 * 3..34 * 3], [10, 20, 30]);
    assert_eq!(pixels.iter().map(|&v| usize::from(v)).sum::<usize>(), 60);
    assert_eq!(read(&*open_as(&path, shape(8, 8, 1)).train, 0).len(), 64);
}

#[test]
fn class_names_come_from_the_meta_file() {
    let folder = tempfile::tempdir().unwrap();
    write_batches(folder.path());
    assert_eq!(open_default(folder.path()).train.classes()[0], "airplane");
    fs::write(folder.path().join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
    assert_eq!(open_default(folder.path()).train.classes()[0], "a");
}

#[test]
fn a_lone_test_batch_is_all_the_data() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("test_batch.bin"), record(9, [7, 8, 9])).unwrap();
    let data = open_default(folder.path());
    assert!(data.train.len() == 1 && data.test.is_none());
}

#[test]
fn files_other_than_cifar_10_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data_batch_1.bin");
    for (contents, expected) in [
        (Vec::new(), "0 bytes"),
        (vec![0; 3074], "3074 bytes"),
        ([record(0, [0; 3]), record(10, [0; 3])].concat(), "record 1 has the label 10"),
    ] {
        fs::write(&path, contents).unwrap();
        for opened in [folder.path(), &path] {
            let error = open_error(opened);
            assert!(error.contains(expected) && error.contains("data_batch_1.bin"), "{error}");
        }
    }
    // A sparse file without blocks on disk.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
    assert!(open_error(&path).contains("4398046511104 bytes"));
}
