//! Files are replaced as a whole, and nothing but files is.

use std::path::Path;

use glowflow_report::file::{check_writable, replace, replace_for_good};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn content_is_replaced_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    // What a program that was killed has left.
    std::fs::write(folder.path().join(".a.txt.part"), "half").unwrap();
    check_writable(&path).unwrap();
    assert!(names(folder.path()).is_empty(), "a check leaves nothing");
    replace(&path, b"first").unwrap();
    check_writable(&path).unwrap();
    replace_for_good(&path, b"second").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn errors_name_the_way_out_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    for (name, words) in
        [("nowhere/a.txt", ["nowhere", "make the folder first"]), ("there", ["there", "name a file in it"])]
    {
        let path = folder.path().join(name);
        for error in [check_writable(&path).unwrap_err(), replace(&path, b"x").unwrap_err()] {
            assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
        }
        let error = replace_for_good(&path, b"x").unwrap_err().to_string();
        assert!(error.contains(words[1]), "{error}");
    }
    assert_eq!(names(folder.path()), ["there"]);
}

#[test]
#[cfg(unix)]
fn links_are_followed_and_none_is_written_through_by_chance() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("there")).unwrap();
    symlink("there/a.txt", at("link")).unwrap();
    symlink("link", at("link to link")).unwrap();
    for content in ["first", "second"] {
        check_writable(&at("link to link")).unwrap();
        replace(&at("link to link"), content.as_bytes()).unwrap();
        assert_eq!(std::fs::read_to_string(at("there/a.txt")).unwrap(), content);
    }
    assert!(at("link").is_symlink() && at("link to link").is_symlink());

    std::fs::write(at("precious"), "kept").unwrap();
    symlink("precious", at(".b.txt.part")).unwrap();
    replace(&at("b.txt"), b"written").unwrap();
    assert_eq!(std::fs::read_to_string(at("precious")).unwrap(), "kept");
    assert!(!at("b.txt").is_symlink());
}

/// A pipe stays a pipe, and its reader gets everything.
#[test]
#[cfg(target_os = "linux")]
fn a_pipe_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    check_writable(&pipe).unwrap();
    for for_good in [false, true] {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read_to_string(pipe).unwrap()
        });
        if for_good {
            replace_for_good(&pipe, b"through the pipe").unwrap();
        } else {
            replace(&pipe, b"through the pipe").unwrap();
        }
        assert_eq!(reader.join().unwrap(), "through the pipe");
    }
    assert!(!pipe.metadata().unwrap().is_file());
    assert_eq!(names(folder.path()), ["pipe"]);
}
