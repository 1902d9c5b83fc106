//! Files, and only files, are replaced atomically.

use std::path::Path;

use glowflow_report::file::{check_writable, replace, replace_for_good, write_new};

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
    check_writable(&path).unwrap();
    assert!(names(folder.path()).is_empty(), "a check leaves nothing");
    replace(&path, b"first").unwrap();
    check_writable(&path).unwrap();
    replace_for_good(&path, b"second").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"second");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn errors_give_advice_and_leave_no_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    for (name, words) in
        [("nowhere/a.txt", ["nowhere", "create the folder first"]), ("there", ["there", "give a file in it"])]
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
fn links_are_followed() {
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
}

/// Temporary files of killed writers are removed; those of live ones, and files with other names, stay.
#[test]
fn abandoned_temporary_files_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().write(true).open(path).unwrap()
    };
    make(".glowflow-killed000000", "half");
    make(".glowflow-killedEmpty1", "");
    make(".hidden", "someone else's");
    make(".glowflow-latents", "a user's own");
    let alive = make(".glowflow-alive0000000", "half");
    alive.lock().unwrap();
    replace(&folder.path().join("a.txt"), b"whole").unwrap();
    let left = [".glowflow-alive0000000", ".glowflow-latents", ".hidden", "a.txt"];
    assert_eq!(names(folder.path()), left);
}

#[test]
fn concurrent_writers_of_one_file_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::thread::scope(|scope| {
        for writer in 0..60_u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..5 {
                    check_writable(path).unwrap();
                    replace(path, &[writer; 10_000]).unwrap();
                    let found = std::fs::read(path).unwrap();
                    assert!(found.len() == 10_000 && found.iter().all(|byte| *byte == found[0]));
                }
            });
        }
    });
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn new_files_take_the_first_free_name() {
    let folder = tempfile::tempdir().unwrap();
    let written: Vec<_> = std::thread::scope(|scope| {
        let write = || write_new(folder.path(), "samples", "png", b"whole").unwrap();
        let writers: Vec<_> = (0..20).map(|_| scope.spawn(write)).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let mut expected: Vec<_> = (2..=20).map(|i| format!("samples-{i}.png")).collect();
    expected.push("samples.png".into());
    expected.sort();
    assert_eq!(names(folder.path()), expected);
    let mut written: Vec<_> =
        written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    written.sort();
    assert_eq!(written, expected);
    assert!(write_new(&folder.path().join("nowhere"), "a", "png", b"x").is_err());
}

#[test]
fn names_may_be_as_long_as_the_system_allows() {
    let folder = tempfile::tempdir().unwrap();
    let longest = folder.path().join("x".repeat(251) + ".png");
    check_writable(&longest).unwrap();
    replace(&longest, b"whole").unwrap();
    assert_eq!(std::fs::read(&longest).unwrap(), b"whole");
    let longer = folder.path().join("x".repeat(252) + ".png");
    assert!(check_writable(&longer).is_err(), "better known before there is work to lose");
    assert!(replace(&longer, b"whole").is_err());
    assert_eq!(names(folder.path()).len(), 1);
}

#[test]
#[cfg(unix)]
fn permissions_match_the_replaced_file_or_the_default() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mode = |name: &str| at(name).metadata().unwrap().permissions().mode() & 0o777;
    std::fs::write(at("plain"), "").unwrap();
    replace(&at("new"), b"x").unwrap();
    assert_eq!(mode("new"), mode("plain"));
    std::fs::set_permissions(at("new"), std::fs::Permissions::from_mode(0o640)).unwrap();
    replace_for_good(&at("new"), b"y").unwrap();
    assert_eq!(mode("new"), 0o640);
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
