//! NumPy arrays.

mod common;

use std::fs;
use std::io::{Cursor, Write};

use common::{open_default, open_error, read, shape};
use zip::write::{SimpleFileOptions, ZipWriter};

fn npy_with(header: &str, elements: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(elements);
    file
}

fn npy(kind: &str, dimensions: &str, elements: &[u8]) -> Vec<u8> {
    npy_with(
        &format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {dimensions}, }}   \n"),
        elements,
    )
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in arrays {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
        zip.write_all(contents).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn npy_is_grey_or_rgb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array");
    fs::write(&path, npy("|u1", "(2, 1, 3)", &[1, 2, 3, 4, 5, 6])).unwrap();
    let data = open_default(&path).train;
    assert_eq!((data.len(), data.shape(), read(&*data, 1)), (2, shape(1, 3, 1), vec![4, 5, 6]));

    // Version 2 has a longer length field.
    let mut two = npy("|u1", "(1, 1, 2, 3)", &[1, 2, 3, 4, 5, 6]);
    two[6] = 2;
    two.splice(10..10, [0, 0]);
    fs::write(&path, two).unwrap();
    assert_eq!(open_default(&path).train.shape(), shape(1, 2, 3));
}

#[test]
fn npz_has_images_and_perhaps_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arrays.npz");
    let images = npy("|u1", "(3, 1, 2)", &[1, 2, 3, 4, 5, 6]);
    let unrelated = ("mean", npy("<f8", "(1,)", &[0; 8]));
    for (kind, bytes) in [
        ("<i8", [[2, 0, 0, 0, 0, 0, 0, 0], [0; 8], [1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        (">u2", vec![0, 2, 0, 0, 0, 1]),
        ("|u1", vec![2, 0, 1]),
        ("|i1", vec![2, 0, 1]),
    ] {
        for (name, dimensions) in [("labels", "(3,)"), ("y", "(3, 1)")] {
            let labels = (name, npy(kind, dimensions, &bytes));
            fs::write(&path, npz(&[unrelated.clone(), labels, ("faces", images.clone())])).unwrap();
            let data = open_default(&path).train;
            assert_eq!((data.len(), read(&*data, 2)), (3, vec![5, 6]));
            assert_eq!([0, 1, 2].map(|i| data.label(i).unwrap()), [2, 0, 1]);
            assert_eq!(data.classes(), ["0", "1", "2"]);
        }
    }
    fs::write(&path, npz(&[("arr_0", images)])).unwrap();
    assert!(open_default(&path).train.classes().is_empty());
}

#[test]
fn npz_may_have_a_test_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mnist.npz");
    let archive = npz(&[
        ("x_test", npy("|u1", "(1, 1, 1)", &[7])),
        ("x_train", npy("|u1", "(2, 1, 1)", &[8, 9])),
        ("y_train", npy("|u1", "(2,)", &[0, 1])),
        ("y_test", npy("|u1", "(1,)", &[2])),
    ]);
    fs::write(&path, archive).unwrap();
    let data = open_default(&path);
    let test = data.test.unwrap();
    assert_eq!((read(&*data.train, 1), read(&*test, 0)), (vec![9], vec![7]));
    assert_eq!((data.train.classes().len(), test.label(0)), (3, Some(2)));
}

#[test]
fn bad_arrays_are_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad");
    let fortran = "{'descr': '|u1', 'fortran_order': True, 'shape': (1, 1, 2), }\n";
    let records = "{'descr': [('r', '|u1')], 'fortran_order': False, 'shape': (1, 1, 2), }\n";
    let images = ("x", npy("|u1", "(2, 1, 1)", &[1, 2]));
    let huge = [b"\x93NUMPY\x02\x00".to_vec(), vec![0xFF; 4]].concat();
    for (contents, expected) in [
        (npy("<f4", "(1, 1, 1)", &[0; 4]), "<f4"),
        (npy("|u1", "(4,)", &[0; 4]), "[4]"),
        (npy("|u1", "(1, 2, 2, 4)", &[0; 16]), "2×2×4"),
        (npy("|u1", "(1, 3, 8, 8)", &[0; 192]), "N, height, width, channels"),
        (npy("|u1", "(0, 2, 2)", &[]), "no images"),
        (npy("|u1", "(2, 2, 2)", &[0; 7]), "7 bytes"),
        (npy("|u1", "(2, 2, 2)", &[0; 9]), "more bytes"),
        (npy("|u1", "(9999999999, 30000, 30000)", &[0; 9]), "9 bytes"),
        (npy("|u1", "(99999999999999999, 30000, 30000)", &[0; 9]), "impossible"),
        (npy("|u1", "(99999999999999999999999, 2, 2)", &[0; 9]), "header"),
        (npy("|u1", "(-1, 2, 2)", &[0; 4]), "header"),
        (npy_with(fortran, &[0; 2]), "Fortran"),
        (npy_with(records, &[0; 2]), "header"),
        (npy_with(&"(".repeat(9000), &[]), "header"),
        (npy_with("", &[]), "header"),
        (b"\x93NUMPY".to_vec(), "header"),
        (b"\x93NUMPY\x09\x00".to_vec(), "version 9"),
        (huge, "4294967295"),
        (b"PK\x03\x04 and no zip".to_vec(), "npz"),
        (npz(&[]), "none of its arrays"),
        (npz(&[("a", npy("<f4", "(1, 1, 1)", &[0; 4]))]), "(a)"),
        (npz(&[("a", b"text".to_vec())]), "array `a`"),
        (npz(&[images.clone(), ("labels", npy("|u1", "(3,)", &[0; 3]))]), "array `labels`"),
        (npz(&[images.clone(), ("y", npy("<f4", "(2,)", &[0; 8]))]), "<f4"),
        (npz(&[images.clone(), ("y", npy("|i1", "(2,)", &[0, 255]))]), "0xff"),
        (npz(&[images.clone(), ("y", npy("<i8", "(2,)", &[127; 16]))]), "0x7f7f"),
        (npz(std::slice::from_ref(&images))[..60].to_vec(), "npz"),
        (npz(&[("x_train", npy("<f4", "(1, 1, 1)", &[0; 4]))]), "array `x_train`"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = open_error(&path);
        assert!(error.contains(expected) && error.contains("bad: "), "{error}");
    }
}

#[test]
fn damaged_archives_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.npz");
    let whole = npz(&[("x", npy("|u1", "(2, 1, 1)", &[1, 2])), ("y", npy("|u1", "(2,)", &[1, 2]))]);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xFF;
        fs::write(&path, &damaged).unwrap();
        let _ = glowflow_data::open(&path, &Default::default());
        fs::write(&path, &whole[..at]).unwrap();
        assert!(glowflow_data::open(&path, &Default::default()).is_err());
    }
}
