//! Distinct file names that are not UTF-8 stay distinct.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::common::{names, open_default, save, write};
use glowflow_data::{Attributes, OpenOptions, open};

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[test]
fn class_arrays_and_image_arrays_are_distinguished() {
    let folder = tempfile::tempdir().unwrap();
    for name in [&b"\xe8/\xe8.png"[..], b"\xe8/\xe9.png", b"\xe9/x.png", br"\xe9/x.png", "é/x.png".as_bytes()]
    {
        save(folder.path(), path(name), name.len());
    }
    let data = open(folder.path(), &OpenOptions { labels: true, ..Default::default() }).unwrap().train;
    assert_eq!(data.classes(), [r"\x5cxe9", r"\xe8", r"\xe9", "é"]);
    assert_eq!(
        names(&*data),
        [r"\x5cxe9/x.png", "é/x.png", r"\xe8/\xe8.png", r"\xe8/\xe9.png", r"\xe9/x.png"]
    );
}

#[test]
fn attributes_are_found_by_escaped_names() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), path(b"caf\xe9.png"), 0);
    save(folder.path(), path(b"caf\xe8.png"), 1);
    let table = tempfile::tempdir().unwrap();
    write(table.path(), "table.csv", "image,Sunny\ncaf\\xe9.png,1\ncaf\\xe8.png,0\n");
    let data = open_default(folder.path()).train;
    let attributes = Attributes::read(&table.path().join("table.csv"), &*data).unwrap();
    assert_eq!((attributes.of(0), attributes.of(1)), (&[Some(false)][..], &[Some(true)][..]));
}

#[test]
fn control_characters_and_long_names_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}.png", "x".repeat(251));
    for name in ["a\nb.png", "a\tb.png", "A.png", "a.png", &long] {
        save(folder.path(), name, name.len());
    }
    assert_eq!(names(&*open_default(folder.path()).train), ["A.png", "a\tb.png", "a\nb.png", "a.png", &long]);
}
