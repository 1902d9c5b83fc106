//! NumPy arrays.

use std::fs;
use std::io::{Cursor, Write};

use crate::common::{open_default, open_error, pattern, read, shape};
use glowflow_data::{OpenOptions, Splits, open};
use zip::CompressionMethod;
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
    fs::write(&path, npy("|u1", "(3, 1, 2)", &[1, 2, 3, 4, 5, 6])).unwrap();
    let data = open_default(&path).train;
    assert_eq!((data.len(), data.shape(), read(&*data, 1)), (3, shape(1, 2, 1), vec![3, 4]));

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

/// The result of opening: the images of the file, or the error.
fn opened(contents: impl AsRef<[u8]>) -> Result<Splits, String> {
    opened_as(contents, &OpenOptions::default())
}

fn opened_as(contents: impl AsRef<[u8]>, options: &OpenOptions) -> Result<Splits, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("array");
    fs::write(&path, contents).unwrap();
    open(&path, options).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(contents: impl AsRef<[u8]>, words: &[&str]) {
    match opened(contents) {
        Ok(data) => panic!(
            "read as {} images of {}, not refused with {words:?}",
            data.train.len(),
            data.train.shape()
        ),
        Err(error) => assert!(words.iter().all(|word| error.contains(word)), "{words:?} is not in: {error}"),
    }
}

#[test]
fn headers_of_any_writer_are_read() {
    let pixels: Vec<u8> = (1..=8).collect();
    for header in [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 2L, 2L), }",
        "{'shape': (2, 2, 2), 'fortran_order': False, 'descr': 'u1'}",
        "{\"descr\":\"<u1\",\"fortran_order\":False,\"shape\":(2,2,2,)}\n\n\n",
        "  { 'descr' : u'=u1' ,\n 'fortran_order' : False ,\n 'shape' : ( 2 , 2 , 2 ) , }\0\0\0",
        "{'descr': '>u1', 'fortran_order': False, 'shape': [2, 2, 2], 'made_by': ('other', [1]), }",
        "{'descr': 'uint8', 'fortran_order': False, 'shape': (2, 2, 2)}",
    ] {
        let data =
            opened(npy_with(header, &pixels)).unwrap_or_else(|error| panic!("{header}: {error}")).train;
        assert_eq!((data.len(), data.shape()), (2, shape(2, 2, 1)), "{header}");
        assert_eq!(read(&*data, 1), [5, 6, 7, 8], "{header}");
    }
    // Padded to a page, in versions 2 and 3.
    for version in [2, 3] {
        let header = format!("{:20000}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2), }");
        let mut file = [b"\x93NUMPY", &[version, 0][..], &(header.len() as u32).to_le_bytes()].concat();
        file.extend([header.as_bytes(), &pixels].concat());
        assert_eq!(opened(file).unwrap().train.len(), 2);
    }
    for header in
        ["{}", "{'descr': '|u1'}", "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2), } + 1"]
    {
        refused(npy_with(header, &pixels), &["header"]);
    }
}

#[test]
fn fortran_order_is_transposed() {
    let fortran = |shape: &str, elements: &[u8]| {
        opened(npy_with(
            &format!("{{'descr': '|u1', 'fortran_order': True, 'shape': {shape}, }}\n"),
            elements,
        ))
        .unwrap()
        .train
    };
    // The first index varies fastest: element (i, j, k) is at i + 2 j + 4 k.
    let grey = fortran("(2, 2, 5)", &(0..20).collect::<Vec<u8>>());
    assert_eq!(read(&*grey, 0), [0, 4, 8, 12, 16, 2, 6, 10, 14, 18]);
    assert_eq!(read(&*grey, 1), [1, 5, 9, 13, 17, 3, 7, 11, 15, 19]);
    // Element (i, j, k, c) is at i + 2 j + 2 k + 4 c.
    let colour = fortran("(2, 1, 2, 3)", &(0..12).collect::<Vec<u8>>());
    assert_eq!(read(&*colour, 1), [1, 5, 9, 3, 7, 11]);
}

#[test]
fn whole_numbers_of_any_type_are_pixels() {
    let values = [0_u8, 1, 128, 255];
    let big = |bytes: Vec<Vec<u8>>| bytes.concat();
    for (kind, bytes) in [
        ("<u2", big(values.map(|v| u16::from(v).to_le_bytes().to_vec()).to_vec())),
        (">i4", big(values.map(|v| i32::from(v).to_be_bytes().to_vec()).to_vec())),
        ("<i8", big(values.map(|v| i64::from(v).to_le_bytes().to_vec()).to_vec())),
        (">u8", big(values.map(|v| u64::from(v).to_be_bytes().to_vec()).to_vec())),
        ("<f2", vec![0, 0, 0, 0x3C, 0, 0x58, 0xF8, 0x5B]),
        ("<f4", big(values.map(|v| f32::from(v).to_le_bytes().to_vec()).to_vec())),
        (">f8", big(values.map(|v| f64::from(v).to_be_bytes().to_vec()).to_vec())),
    ] {
        let data = opened(npy(kind, "(2, 1, 2)", &bytes)).unwrap_or_else(|e| panic!("{kind}: {e}")).train;
        assert_eq!([read(&*data, 0), read(&*data, 1)].concat(), values, "{kind}");
    }
}

#[test]
fn other_scales_are_refused_with_the_conversion() {
    let floats = |values: [f32; 4]| npy("<f4", "(2, 1, 2)", &values.map(f32::to_le_bytes).concat());
    refused(floats([0.0, 0.25, 1.0, 0.5]), &["float32", "(255 * array).round().astype(\"uint8\")"]);
    refused(floats([0.0, 1.0, 1.0, 0.0]), &["from 0 to 1", "(255 * array)"]);
    refused(floats([-1.0, 0.25, 1.0, 0.5]), &["(127.5 * (array + 1)).round().astype(\"uint8\")"]);
    refused(floats([0.0, 99.5, 255.0, 3.0]), &["array.round().astype(\"uint8\")"]);
    refused(floats([0.0, 99.5, 300.0, 3.0]), &["from 0 to 300", "scale"]);
    refused(floats([0.0, f32::NAN, 255.0, 3.0]), &["NaN"]);
    let words = [0_u16, 65535, 3, 1].map(u16::to_le_bytes).concat();
    refused(npy("<u2", "(2, 1, 2)", &words), &["uint16", "(array / 257).round().astype(\"uint8\")"]);
    refused(npy("|i1", "(2, 1, 2)", &[0, 255, 1, 1]), &["from -1 to 1"]);
}

#[test]
fn arrays_of_other_things_are_refused_by_name() {
    refused(npy("|b1", "(2, 2, 2)", &[1; 8]), &["bool", "mask", "255 * array.astype(\"uint8\")"]);
    refused(npy("|O", "(2, 2, 2)", &[0x80; 40]), &["Python objects (pickled)"]);
    refused(npy("<U5", "(2, 2, 2)", &[0; 160]), &["text"]);
    refused(npy("<c8", "(2, 2, 2)", &[0; 64]), &["complex numbers"]);
    refused(npy("<M8[s]", "(2, 2, 2)", &[0; 64]), &["dates"]);
    refused(npy("|V3", "(2, 2, 2)", &[0; 24]), &["|V3"]);
}

#[test]
fn one_picture_is_not_many() {
    for (dimensions, ways) in [
        ("(64, 48, 3)", &["array[None] for one picture of 64×48×3", "array[..., None] for 64"][..]),
        ("(64, 48, 1)", &["array[None]", "array[..., None]"]),
        ("(64, 48, 4)", &["array[None][..., :3]", "array[..., None]"]),
        ("(2, 64, 48, 4)", &["64×48×4", "array[..., :3]"]),
        ("(64, 48)", &["array[None] if it is one grey picture", "array.reshape(-1, height, width)"]),
        ("(2, 3, 64, 48)", &["channels come first", "array.transpose(0, 2, 3, 1)"]),
        ("(2, 1, 64, 48)", &["array.transpose(0, 2, 3, 1)"]),
        ("(64, 48, 3, 2)", &["array.transpose(3, 0, 1, 2)"]),
        ("(2, 5, 64, 48, 3)", &["array.reshape(-1, 64, 48, 3)"]),
        ("(6144,)", &["N, height, width"]),
    ] {
        refused(npy("|u1", dimensions, &vec![7; 64 * 48 * 30]), ways);
    }
    // Three grey images or the channels of one image: read, with a notice.
    let data = opened(npy("|u1", "(3, 8, 9)", &[7; 216])).unwrap();
    assert_eq!((data.train.len(), data.train.shape()), (3, shape(8, 9, 1)));
    assert!(data.notices[0].contains("3 grey images") && data.notices[0].contains("transpose(1, 2, 0)"));
    assert!(opened(npy("|u1", "(2, 8, 9)", &[7; 144])).unwrap().notices.is_empty());
}

#[test]
fn npz_may_have_a_test_set() {
    let array = |value: u8| npy("|u1", "(2, 1, 2)", &[value; 4]);
    let labels = |first: u8| npy("|u1", "(2, 1)", &[first, 1]);
    for names in [
        ["x_train", "y_train", "x_test", "y_test"],
        ["X_train", "Y_train", "X_test", "Y_test"],
        ["train_images", "train_labels", "test_images", "test_labels"],
        ["trainImages", "trainLabels", "testImages", "testLabels"],
        ["train/x", "train/y", "test/x", "test/y"],
        ["images", "labels", "test_images", "test_labels"],
        ["train_images", "train_labels", "val_images", "val_labels"],
        ["xtrain", "ytrain", "xvalid", "yvalid"],
    ] {
        let arrays = [array(8), labels(0), array(7), labels(2)];
        // In the order of a sorted archive, which has the test set first.
        let mut archive: Vec<_> = names.into_iter().zip(arrays).collect();
        archive.sort_by_key(|(name, _)| *name);
        let data = opened(npz(&archive)).unwrap_or_else(|error| panic!("{names:?}: {error}"));
        let test = data.test.expect("a test set");
        assert_eq!((read(&*data.train, 1), read(&*test, 0)), (vec![8, 8], vec![7, 7]), "{names:?}");
        assert_eq!((data.train.classes().len(), data.train.label(1), test.label(0)), (3, Some(1), Some(2)));
        let from_validation = names[2].to_lowercase().contains("val");
        assert_eq!(data.notices.iter().any(|notice| notice.contains(names[2])), from_validation, "{names:?}");
    }
    // With both, the validation set is left out, with a notice.
    let archive = [("train_images", array(8)), ("val_images", array(9)), ("test_images", array(7))];
    let data = opened(npz(&archive)).unwrap();
    assert_eq!(read(&*data.test.unwrap(), 0), [7, 7]);
    assert!(data.notices[0].contains("`val_images`"), "{:?}", data.notices);
    // A lone test set is read as the data.
    let data = opened(npz(&[("x_test", array(7)), ("y_test", labels(0))])).unwrap();
    assert!(data.test.is_none() && data.train.label(1) == Some(1));
}

#[test]
fn masks_are_not_taken_for_images() {
    let array = |value: u8| npy("|u1", "(2, 1, 2)", &[value; 4]);
    for names in [
        ["images", "masks"],
        ["x", "mask"],
        ["faces", "segmentation"],
        ["images", "faces"],
        ["arr_0", "arr_1"],
        ["images", "x"],
    ] {
        for order in [[0, 1], [1, 0]] {
            let archive = order.map(|i| (names[i], array(i as u8)));
            let data = opened(npz(&archive)).unwrap_or_else(|error| panic!("{names:?}: {error}"));
            assert_eq!(read(&*data.train, 0), [0, 0], "{names:?}");
            let notice = &data.notices[0];
            assert!(names.iter().all(|name| notice.contains(name)), "{notice}");
        }
    }
    // Names of images for arrays that are not images.
    let names = npy("<U1", "(2,)", &[65, 0, 0, 0, 66, 0, 0, 0]);
    let archive = [("image_names", names.clone()), ("test_image_names", names), ("faces", array(1))];
    assert_eq!(read(&*opened(npz(&archive)).unwrap().train, 0), [1, 1]);
    refused(npz(&[("cats", array(1)), ("dogs", array(2))]), &["`cats` and `dogs`", "`images`"]);
    refused(npz(&[("x", array(1)), ("X", array(2))]), &["`x` and `X`"]);
    assert!(
        opened(npz(&[("faces", array(1)), ("mean", npy("<f8", "(1,)", &[0; 8]))]))
            .unwrap()
            .notices
            .is_empty()
    );
}

#[test]
fn labels_that_are_not_classes_are_left_out_or_refused() {
    let images = ("images", npy("|u1", "(2, 1, 2)", &[1; 4]));
    for (labels, words) in [
        (npy("|u1", "(2, 3)", &[0; 6]), "3 numbers per image"),
        (npy("<f4", "(2,)", &[0.0_f32, 0.5].map(f32::to_le_bytes).concat()), "0.5"),
        (npy("<U1", "(2,)", &[65, 0, 0, 0, 66, 0, 0, 0]), "numpy.unique"),
        (npy("|i1", "(2,)", &[0, 255]), "the label -1"),
        (npy("<i8", "(2,)", &[127; 16]), "the label 9187"),
    ] {
        let archive = npz(&[images.clone(), ("labels", labels)]);
        let data = opened(&archive).unwrap();
        assert!(data.train.classes().is_empty() && data.notices[0].contains(words), "{:?}", data.notices);
        let needed = OpenOptions { labels: true, ..Default::default() };
        let error = opened_as(&archive, &needed).err().expect("labels are needed");
        assert!(error.contains(words) && error.contains("`labels`"), "{error}");
    }
    // Floats and booleans that are valid classes.
    for labels in
        [npy("<f8", "(2,)", &[0.0_f64, 1.0].map(f64::to_le_bytes).concat()), npy("|b1", "(2,)", &[0, 1])]
    {
        assert_eq!(opened(npz(&[images.clone(), ("y", labels)])).unwrap().train.label(1), Some(1));
    }
    // Two kinds of labels, as in CIFAR-100.
    let labels = npy("|u1", "(2,)", &[0, 1]);
    let archive = npz(&[images.clone(), ("fine_labels", labels.clone()), ("coarse_labels", labels)]);
    assert!(opened(&archive).unwrap().notices[0].contains("`fine_labels` and `coarse_labels`"));
    assert!(opened_as(&archive, &OpenOptions { labels: true, ..Default::default() }).is_err());
    // Labels for the training images only.
    let tests = ("test_images", npy("|u1", "(1, 1, 2)", &[1; 2]));
    let archive = [images.clone(), ("labels", npy("|u1", "(2,)", &[0, 1])), tests.clone()];
    let error = opened_as(npz(&archive), &OpenOptions { labels: true, ..Default::default() }).err().unwrap();
    assert!(error.contains("test images have no labels"), "{error}");
    // Labels for the test images only.
    let archive = [images, tests, ("test_labels", npy("|u1", "(1,)", &[0]))];
    let error = opened_as(npz(&archive), &OpenOptions { labels: true, ..Default::default() }).err().unwrap();
    assert!(error.contains("training images have no labels"), "{error}");
}

#[test]
fn labels_of_wrong_count_matter_only_if_classes_are_needed() {
    let needed = OpenOptions { labels: true, ..Default::default() };
    for (dimensions, elements) in [("(3,)", vec![0; 3]), ("(2, 2, 2, 1)", vec![1; 8]), ("(0,)", vec![])] {
        let arrays = [
            ("x_train", npy("|u1", "(2, 2, 2, 3)", &[7; 24])),
            ("y_train", npy("|u1", dimensions, &elements)),
        ];
        let data = opened(npz(&arrays)).unwrap();
        assert_eq!((data.train.len(), data.train.label(0)), (2, None));
        assert!(data.notices[0].contains("`y_train`") && data.notices[0].contains(dimensions));
        let error = opened_as(npz(&arrays), &needed).err().expect("labels are needed");
        assert!(error.contains("`y_train`") && error.contains("for 2 images"), "{error}");
    }
}

#[test]
fn names_of_classes_are_not_taken_for_labels() {
    let options = OpenOptions { labels: true, ..Default::default() };
    let data = opened_as(
        npz(&[
            ("target_names", npy("|u1", "(2,)", &[5, 6])),
            ("images", npy("|u1", "(3, 1, 2)", &[1, 2, 3, 4, 5, 6])),
            ("target", npy("|u1", "(3,)", &[1, 0, 1])),
        ]),
        &options,
    )
    .unwrap();
    assert_eq!([0, 1, 2].map(|image| data.train.label(image).unwrap()), [1, 0, 1]);
}

#[test]
fn bad_arrays_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad");
    let records = "{'descr': [('r', '|u1')], 'fortran_order': False, 'shape': (1, 1, 2), }\n";
    let images = ("x", npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4]));
    let huge = [b"\x93NUMPY\x02\x00".to_vec(), vec![0xFF; 4]].concat();
    for (contents, expected) in [
        (npy("|u1", "(4,)", &[0; 4]), "[4]"),
        (npy("|u1", "(0, 2, 2)", &[]), "no images"),
        (npy("|u1", "(2, 2, 2)", &[0; 7]), "7 bytes"),
        (npy("|u1", "(2, 2, 2)", &[0; 9]), "9 bytes"),
        (npy("<i4", "(2, 2, 2)", &[0; 31]), "31 bytes"),
        (npy("|u1", "(9999999999, 30000, 30000)", &[0; 9]), "9 bytes"),
        (npy("|u1", "(99999999999999999, 30000, 30000)", &[0; 9]), "impossible"),
        (npy("|u1", "(99999999999999999999999, 2, 2)", &[0; 9]), "header"),
        (npy("|u1", "(-1, 2, 2)", &[0; 4]), "header"),
        (npy_with(records, &[0; 2]), "records"),
        (npy_with(&"(".repeat(9000), &[]), "header"),
        (npy_with("", &[]), "header"),
        (b"\x93NUMPY".to_vec(), "header"),
        (b"\x93NUMPY\x09\x00".to_vec(), "version 9"),
        (huge, "4294967295"),
        (b"PK\x03\x04 and no zip".to_vec(), "npz"),
        (npz(&[]), "none of its arrays"),
        (npz(&[("a", npy("<f4", "(1,)", &[0; 4]))]), "(a: float32 (1,))"),
        (npz(&[("a", npy("|O", "(1, 1, 1)", &[0; 4]))]), "Python objects"),
        (npz(&[("a", b"text".to_vec())]), "array `a`"),
        (npz(&[("images", b"text".to_vec())]), "array `images`"),
        (npz(std::slice::from_ref(&images))[..60].to_vec(), "npz"),
        (npz(&[("x_train", npy("<f4", "(1, 1, 2)", &[0; 8]))]), "array `x_train`"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = open_error(&path);
        assert!(error.contains(expected) && error.contains("bad: "), "{expected} is not in {error}");
    }
}

#[test]
fn huge_files_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.npy");
    fs::write(&path, npy("|u1", "(2, 2, 2)", &[0; 8])).unwrap();
    // A sparse file without blocks on disk.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
    let error = open_error(&path);
    assert!(error.contains("declares 8"), "{error}");
}

#[test]
fn damage_is_found_up_to_the_end_of_an_archive() {
    let pixels = pattern(shape(20, 40, 1), 1);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("images.npy", SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(&npy("|u1", "(2, 20, 20)", &pixels)).unwrap();
        let mut archive = zip.finish().unwrap().into_inner();
        assert!(opened(&archive).is_ok());
        // The checksum in the final directory, and the last byte of the contents.
        let directory = archive.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
        archive[directory + 16] ^= 1;
        refused(&archive, &["damaged", "images"]);
        archive[directory + 16] ^= 1;
        if method == CompressionMethod::Stored {
            archive[directory - 1] ^= 1;
            refused(&archive, &["damaged", "images"]);
        }
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
