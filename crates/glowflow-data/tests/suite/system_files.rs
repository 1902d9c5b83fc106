//! Files and folders that systems create for themselves are ignored.

use crate::common::{names, open_default, save, write};

#[test]
fn thumbnails_and_bins_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "album/photo.png", 0);
    for name in [
        "@eaDir/photo.jpg/SYNOPHOTO_THUMB_XL.png",
        "album/@eaDir/thumb.png",
        "#recycle/old.png",
        "@Recycle/old.png",
        "$RECYCLE.BIN/S-1-5/old.png",
        "System Volume Information/x.png",
        "__MACOSX/album/._photo.png",
        "__MACOSX/album/photo.png",
        ".AppleDouble/photo.png",
        "lost+found/1.png",
        ".thumbnails/photo.png",
        "album/._photo.png",
        "album/Thumbs.db",
        "desktop.ini",
        "Catalog Previews.lrdata/0/1.png",
        "Pictures.photoslibrary/resources/derivatives/1.png",
        "Pictures.photoslibrary/originals/0/1.png",
    ] {
        save(folder.path(), name, 1);
    }
    let data = open_default(folder.path());
    assert_eq!(names(&*data.train), ["Pictures.photoslibrary/originals/0/1.png", "album/photo.png"]);
    assert_eq!(data.notices, [""; 0]);
    // A folder that is requested explicitly is read.
    assert_eq!(open_default(&folder.path().join("@eaDir")).train.len(), 1);
}

/// macOS writes a file `._NAME` for each file that it copies to another system.
#[test]
fn companions_of_data_files_are_left_out() {
    let idx = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7];
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "emnist-letters-train-images-idx3-ubyte", idx);
    write(folder.path(), "._emnist-letters-train-images-idx3-ubyte", [0, 5, 22, 7]);
    assert_eq!(open_default(folder.path()).train.len(), 1);

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "data_batch_1.bin", vec![1; 3073]);
    write(folder.path(), "._data_batch_1.bin", [0, 5, 22, 7]);
    assert_eq!(open_default(folder.path()).train.len(), 1);
}
