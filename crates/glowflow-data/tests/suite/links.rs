//! Symbolic links and hard links: each image of a folder counts once.

use std::fs;
use std::os::unix::fs::symlink;

use crate::common::{names, open_default, save};
use glowflow_data::{OpenOptions, open};

#[test]
fn links_never_lead_upwards() {
    let home = tempfile::tempdir().unwrap();
    let photos = home.path().join("photos");
    save(home.path(), "outside.png", 0);
    save(home.path(), "other/outside.png", 1);
    save(&photos, "a/inside.png", 2);
    symlink("..", photos.join("up")).unwrap();
    symlink(home.path(), photos.join("home")).unwrap();
    symlink("/", photos.join("root")).unwrap();
    symlink("..", photos.join("a/photos")).unwrap();
    symlink(".", photos.join("a/itself")).unwrap();
    assert_eq!(names(&*open_default(&photos).train), ["a/inside.png"]);
    // The folder itself may be a link.
    symlink(&photos, home.path().join("link")).unwrap();
    assert_eq!(names(&*open_default(&home.path().join("link")).train), ["a/inside.png"]);
}

#[test]
fn links_of_a_linked_folder_never_lead_above_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    save(elsewhere.path(), "outside.png", 0);
    save(elsewhere.path(), "album/1.png", 1);
    symlink("..", elsewhere.path().join("album/up")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    symlink(elsewhere.path().join("album"), folder.path().join("album")).unwrap();
    assert_eq!(names(&*open_default(folder.path()).train), ["album/1.png"]);
}

#[test]
fn folders_that_link_to_each_other_count_once() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "x/1.png", 1);
    save(folder.path(), "y/2.png", 2);
    symlink("../y", folder.path().join("x/toy")).unwrap();
    symlink("../x", folder.path().join("y/tox")).unwrap();
    assert_eq!(names(&*open_default(folder.path()).train), ["x/1.png", "y/2.png"]);
}

#[test]
fn a_file_with_several_paths_counts_once() {
    let elsewhere = tempfile::tempdir().unwrap();
    save(elsewhere.path(), "x.png", 0);
    save(elsewhere.path(), "sub/y.png", 1);
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "m.png", 2);
    // To a file inside, twice to a folder outside, to a part of it, and to a file in it.
    symlink("m.png", folder.path().join("a.png")).unwrap();
    symlink(elsewhere.path(), folder.path().join("b")).unwrap();
    symlink(elsewhere.path(), folder.path().join("c")).unwrap();
    symlink(elsewhere.path().join("sub"), folder.path().join("d")).unwrap();
    symlink(elsewhere.path().join("x.png"), folder.path().join("z")).unwrap();
    assert_eq!(names(&*open_default(folder.path()).train), ["b/sub/y.png", "b/x.png", "m.png"]);
}

#[test]
fn hard_links_are_one_picture_and_equal_copies_are_two() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "b.png", 0);
    fs::hard_link(folder.path().join("b.png"), folder.path().join("a.png")).unwrap();
    fs::copy(folder.path().join("b.png"), folder.path().join("c.png")).unwrap();
    let data = open_default(folder.path());
    assert_eq!(names(&*data.train), ["a.png", "c.png"]);
    assert_eq!(data.notices, ["skipped 1 link to images that are already included, such as b.png"]);
}

#[test]
fn classes_may_be_made_of_links() {
    let pool = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for class in ["cat", "dog"] {
        save(pool.path(), format!("{class}.png"), class.len());
        fs::create_dir(folder.path().join(class)).unwrap();
        symlink(pool.path().join(format!("{class}.png")), folder.path().join(class).join("1.png")).unwrap();
    }
    let options = OpenOptions { labels: true, ..Default::default() };
    let data = open(folder.path(), &options).unwrap().train;
    assert_eq!((data.classes(), data.len()), (&["cat".to_owned(), "dog".to_owned()][..], 2));
}

#[test]
fn a_link_to_nothing_is_a_broken_image_if_named_like_one() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), "1.png", 0);
    symlink("nowhere", folder.path().join("2.png")).unwrap();
    symlink("3.png", folder.path().join("3.png")).unwrap();
    symlink("nowhere", folder.path().join("nothing")).unwrap();
    let data = open_default(folder.path()).train;
    assert_eq!(names(&*data), ["1.png", "2.png", "3.png"]);
    for image in 1..3 {
        let error = data.read(image, &mut vec![0; data.shape().len()]).unwrap_err();
        assert!(matches!(error, glowflow_data::Error::BrokenImage { .. }), "{error}");
    }
}
