//! Files of a folder are recognised by content, and omissions are reported.

use std::fs;

use crate::common::{names, open_default, open_error, pattern, save, shape, write};
use glowflow_data::{Error, OpenOptions, batches_in_order, load_image, open};
use image::{ExtendedColorType, ImageFormat};

const SMALL: glowflow_data::ImageShape = shape(4, 6, 3);

#[test]
fn images_are_recognised_under_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = pattern(SMALL, 1);
    for (name, format) in [
        ("a.jfif", ImageFormat::Jpeg),
        ("b.JPE", ImageFormat::Jpeg),
        ("c", ImageFormat::Png),
        ("d.dib", ImageFormat::Bmp),
        ("e.webp.1", ImageFormat::WebP),
        ("f.heic", ImageFormat::Jpeg),
        ("g.txt", ImageFormat::Png),
        ("h.jpg_large", ImageFormat::Jpeg),
    ] {
        let path = folder.path().join(name);
        image::save_buffer_with_format(path, &pixels, 6, 4, ExtendedColorType::Rgb8, format).unwrap();
    }
    // Text that begins like a BMP.
    write(folder.path(), "notes.txt", "BMW, Audi and Volkswagen: photographs of cars");
    write(folder.path(), "labels.csv", "image,label\n");
    write(folder.path(), "empty", "");
    let data = open_default(folder.path());
    let expected = ["a.jfif", "b.JPE", "c", "d.dib", "e.webp.1", "f.heic", "g.txt", "h.jpg_large"];
    assert_eq!(names(&*data.train), expected);
    assert_eq!(batches_in_order(data.train.clone(), 8, 1).unwrap().next().unwrap().unwrap().indices.len(), 8);
    assert_eq!(data.notices, [""; 0]);
}

/// Files that cannot be read as images, with their descriptions.
fn others() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let ftyp = |brand: &[u8; 4]| [&[0, 0, 0, 24], &b"ftyp"[..], brand, &[0; 20]].concat();
    vec![
        ("heif.jpg_", ftyp(b"heic"), "HEIC image"),
        ("IMG_0001.HEIC", ftyp(b"mif1"), "HEIC image"),
        ("a.avif", ftyp(b"avif"), "AVIF image"),
        ("scan", b"II*\0\x08\0\0\0".to_vec(), "TIFF image"),
        ("big.tiff", b"MM\0*\0\0\0\x08".to_vec(), "TIFF image"),
        ("a.gif", b"GIF89a\x01\0\x01\0".to_vec(), "GIF image"),
        ("a.jxl", b"\xFF\x0A\xFA".to_vec(), "JPEG XL image"),
        ("b.jxl", b"\0\0\0\x0CJXL \r\n\x87\n".to_vec(), "JPEG XL image"),
        ("a.jp2", b"\0\0\0\x0CjP  \r\n\x87\n".to_vec(), "JPEG 2000 image"),
        ("a.CR2", b"II*\0\x10\0\0\0CR".to_vec(), "camera raw image"),
        ("a.nef", b"MM\0*\0\0\0\x08".to_vec(), "camera raw image"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201".to_vec(), "camera raw image"),
        ("a.cr3", ftyp(b"crx "), "camera raw image"),
        ("a.psd", b"8BPS\0\x01".to_vec(), "Photoshop image"),
        ("a.svg", b"<?xml version='1.0'?><svg>".to_vec(), "SVG image"),
        ("a.ico", b"\0\0\x01\0\x01\0".to_vec(), "ICO image"),
        ("a.mp4", ftyp(b"isom"), "MP4 video"),
        ("a.mov", ftyp(b"qt  "), "QuickTime video"),
        ("a.zip", b"PK\x03\x04\x14\0".to_vec(), "zip archive"),
        ("a.tar.gz", b"\x1F\x8B\x08\0".to_vec(), "tar archive"),
        ("a.7z", b"7z\xBC\xAF\x27\x1C".to_vec(), "7z archive"),
        ("a.rar", b"Rar!\x1A\x07\x01\0".to_vec(), "RAR archive"),
        ("a.npy", b"\x93NUMPY\x01\0".to_vec(), "NumPy array"),
        ("a.npz", b"PK\x03\x04\x14\0".to_vec(), "NumPy archive"),
        ("a-ubyte", b"\0\0\x08\x03\0\0\0\x01".to_vec(), "idx file"),
    ]
}

#[test]
fn files_of_other_kinds_next_to_images_are_reported() {
    for (name, contents, what) in others() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "image.png", 0);
        write(folder.path(), format!("sub/{name}"), &contents);
        let data = open_default(folder.path());
        assert_eq!(names(&*data.train), ["image.png"]);
        let [notice] = &data.notices[..] else { panic!("{name}: {:?}", data.notices) };
        assert!(notice.contains(&format!("1 {what}, such as")) && notice.contains(name), "{notice}");
    }
}

#[test]
fn files_of_one_kind_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "image.png", 0);
    for i in 0..12 {
        write(folder.path(), format!("IMG_{i:04}.HEIC"), b"\0\0\0\x18ftypheic\0\0\0\0");
    }
    let notices = open_default(folder.path()).notices;
    assert_eq!(notices.len(), 1);
    assert!(notices[0].contains("12 HEIC images, such as IMG_0000.HEIC: convert"), "{notices:?}");
}

#[test]
fn the_error_of_a_folder_without_images_lists_its_kinds() {
    for (name, contents, what) in others() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), name, &contents);
        let error = open_error(folder.path());
        assert!(error.contains("no images") && error.contains(what) && error.contains(name), "{error}");
    }
}

#[test]
fn a_single_file_of_another_kind_is_named() {
    for (name, contents, what) in others() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), name, &contents);
        let error = open_error(&folder.path().join(name));
        if !what.contains("NumPy") && !what.contains("idx") && what != "zip archive" && what != "tar archive"
        {
            assert!(error.contains(what) && !error.contains("begins with"), "{error}");
        }
    }
}

#[test]
fn errors_describe_files_that_are_not_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.jpg");
    for (contents, expected) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0"[..], "HEIC"),
        (b"GIF89a", "GIF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"text", "not a PNG, JPEG, WebP or BMP"),
    ] {
        fs::write(&path, contents).unwrap();
        let error = load_image(&path, SMALL).unwrap_err();
        assert!(matches!(&error, Error::BrokenImage { reason, .. } if reason.contains(expected)), "{error}");
    }
}

#[test]
fn placeholders_for_data_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x.npz", "x.bin", "x.gz", "x"] {
        write(folder.path(), name, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
        assert!(open_error(&folder.path().join(name)).contains("git lfs pull"));
        write(folder.path(), name, "<html><body>404 Not Found</body></html>");
        assert!(open_error(&folder.path().join(name)).contains("web page"));
    }
}

fn zip(names: &[&str]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for name in names {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn archives_are_refused_with_advice_to_unpack() {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    for (name, contents, expected) in [
        ("photos.zip", zip(&["photos/1.jpg", "photos/2.PNG", "photos/readme.txt"]), "2 pictures"),
        ("photos.npz", zip(&["1.jpg"]), "1 picture"),
        ("texts.zip", zip(&["1.txt"]), "none an image"),
        ("photos.tar", tar, "tar archive"),
        ("photos.tgz", gzip.finish().unwrap(), "tar archive"),
        ("photos.7z", b"7z\xBC\xAF\x27\x1C\0\0".to_vec(), "7z archive"),
        ("photos.rar", b"Rar!\x1A\x07\x01\0".to_vec(), "RAR archive"),
    ] {
        write(folder.path(), name, contents);
        let error = open_error(&folder.path().join(name));
        assert!(error.contains(expected) && error.contains("unpack") && error.contains(name), "{error}");
    }
}

#[test]
fn arrays_next_to_images_are_reported_and_vice_versa() {
    let record = vec![1; 3073];
    let folder = tempfile::tempdir().unwrap();
    for i in 0..5 {
        save(folder.path(), format!("{i}.png"), i);
    }
    write(folder.path(), "cifar-10-batches-bin/data_batch_1.bin", record.repeat(3));
    let data = open_default(folder.path());
    assert_eq!(data.train.len(), 3);
    assert!(data.notices.iter().any(|notice| notice.starts_with(
        "reading the 3 CIFAR-10 images; 5 image files are ignored, such as 0.png. Move them to a folder"
    )));
    let incomplete = "1 CIFAR-10 file is incomplete: data_batch_1.bin has 3 images, not 10000";
    assert!(data.notices.iter().any(|notice| notice == incomplete), "{:?}", data.notices);

    write(folder.path(), "train-images-idx3-ubyte", [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7]);
    assert!(open_error(folder.path()).contains("holds CIFAR-10 files and idx files"));
    fs::remove_dir_all(folder.path().join("cifar-10-batches-bin")).unwrap();
    let data = open_default(folder.path());
    assert_eq!(data.train.len(), 1);
    assert!(data.notices.iter().any(|notice| {
        notice.starts_with("reading the 1 idx image; 5 image files are ignored, such as 0.png")
    }));

    fs::remove_file(folder.path().join("train-images-idx3-ubyte")).unwrap();
    write(folder.path(), "deep/down/data_batch_1.bin", &record);
    let data = open_default(folder.path());
    assert_eq!(data.train.len(), 5);
    assert!(data.notices.iter().any(|notice| notice.contains("1 CIFAR-10 file")), "{:?}", data.notices);
}

#[test]
fn data_files_deeper_down_are_not_taken_for_those_that_were_read() {
    let image = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "train-images-idx3-ubyte", image);
    assert_eq!(open_default(folder.path()).notices, [""; 0]);
    write(folder.path(), "FashionMNIST/raw/train-images-idx3-ubyte", image);
    let notices = open_default(folder.path()).notices;
    assert_eq!(notices.len(), 1);
    assert!(notices[0].contains("1 idx file, such as FashionMNIST/raw/train-images"), "{notices:?}");
}

#[test]
fn the_folder_of_data_files_deeper_down_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"] {
        write(folder.path(), format!("MNIST/raw/{name}"), [0, 0, 8, 3, 0, 0, 0, 0]);
    }
    assert!(open_error(folder.path()).contains("give the folder MNIST/raw"));
}

#[test]
fn folders_of_training_runs_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "image.png", 0);
    save(folder.path(), "runs/a/samples.png", 1);
    write(folder.path(), "runs/a/model.safetensors", "");
    let options = OpenOptions { run_marker: Some("model.safetensors"), ..Default::default() };
    let data = open(folder.path(), &options).unwrap();
    assert_eq!(names(&*data.train), ["image.png"]);
    assert!(data.notices[0].contains("skipped 1 folder with model.safetensors, such as runs/a"));
}

#[test]
fn backup_copies_of_images_do_not_count_twice() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "a.png", 0);
    write(folder.path(), "MVI_1.AVI", "RIFF    AVI ");
    let image = fs::read(folder.path().join("a.png")).unwrap();
    for name in ["a.png_original", "a.png~", "a.png.bak", "MVI_1.THM"] {
        write(folder.path(), name, &image);
    }
    // The only copies of their originals.
    for name in ["b.png_original", "c.png~", "MVI_2.THM"] {
        write(folder.path(), name, &image);
    }
    let data = open_default(folder.path());
    assert_eq!(names(&*data.train), ["MVI_2.THM", "a.png", "b.png_original", "c.png~"]);
    let notice = "skipped 4 backup copies of existing files, such as MVI_1.THM";
    assert!(data.notices.iter().any(|other| other == notice), "{:?}", data.notices);
}

#[test]
fn other_versions_of_cifar_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "python/data_batch_1", b"\x80\x02}q\x01");
    let error = open_error(folder.path());
    assert!(error.contains("pickled CIFAR file") && error.contains("binary version"), "{error}");
    fs::remove_dir_all(folder.path().join("python")).unwrap();
    write(folder.path(), "train.bin", vec![3; 2 * 3074]);
    assert!(open_error(folder.path()).contains("CIFAR-100 file"));
    assert!(open_error(&folder.path().join("train.bin")).contains("CIFAR-100"));
}

#[cfg(unix)]
#[test]
fn pipes_are_never_opened() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "image.png", 0);
    for name in ["pipe.png", "pipe"] {
        let path = folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        std::os::unix::fs::symlink(&path, folder.path().join(format!("link to {name}"))).unwrap();
        assert!(open_error(&path).contains("a pipe or a device"));
    }
    assert_eq!(names(&*open_default(folder.path()).train), ["image.png"]);
}
