//! The release archive, built from the program under test.

#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn script(target: &str, out: &Path) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Command::new("bash")
        .arg(root.join("scripts/release.sh"))
        .args(["--binary", env!("CARGO_BIN_EXE_glowflow"), "--target", target, "--out"])
        .arg(out)
        .env("CARGO", env!("CARGO"))
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .unwrap()
}

/// The archive of a successful run, whose path is its output.
fn archive(target: &str, out: &Path) -> PathBuf {
    let run = script(target, out);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    PathBuf::from(String::from_utf8(run.stdout).unwrap().trim())
}

fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no python3");
    }
    found
}

fn unpacked(archive: &Path, folder: &Path) {
    let zip = archive.extension().is_some_and(|ending| ending == "zip");
    let module = if zip { "zipfile" } else { "tarfile" };
    let status = Command::new("python3").args(["-m", module, "-e"]).arg(archive).arg(folder).status();
    assert!(status.unwrap().success());
}

#[test]
fn the_archive_is_complete_and_reproducible() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let first = archive(TARGET, &folder.path().join("first"));
    let second = archive(TARGET, &folder.path().join("second"));
    let name = format!("glowflow-{}-{TARGET}", env!("CARGO_PKG_VERSION"));
    assert_eq!(first.file_name().unwrap().to_str().unwrap(), format!("{name}.tar.gz"));
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "two archives differ");

    let checksum = std::fs::read_to_string(first.with_extension("gz.sha256")).unwrap();
    assert!(checksum.len() > 66 && checksum.ends_with(&format!("  {name}.tar.gz\n")), "{checksum}");

    unpacked(&first, folder.path());
    let unpacked = folder.path().join(name);
    let read = |file: &str| {
        std::fs::read_to_string(unpacked.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    for file in [
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs/model.md",
        "completions/glowflow.bash",
        "completions/_glowflow",
        "completions/glowflow.fish",
        "completions/_glowflow.ps1",
        "man/glowflow.1",
        "man/glowflow-train.1",
    ] {
        assert!(!read(file).is_empty(), "{file} is empty");
    }
    let licences = read("THIRD-PARTY-LICENSES.txt");
    // A dependency, the typeface of plots, and the weights of the face detector.
    for words in ["\nrayon ", "Bitstream", "Shiqi Yu"] {
        assert!(licences.contains(words), "{words} is not in the licences");
    }
    assert!(!licences.contains("\ntempdir ") && !licences.contains("\nureq "), "crates of tests");
    let version = Command::new(unpacked.join("glowflow")).arg("--version").output().unwrap();
    assert_eq!(version.stdout, format!("glowflow {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

#[test]
fn archives_for_windows_are_zip_files() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // The program is not a Windows executable; the packaging is the same.
    let archive = archive("x86_64-pc-windows-gnu", folder.path());
    unpacked(&archive, folder.path());
    let name = format!("glowflow-{}-x86_64-pc-windows-gnu", env!("CARGO_PKG_VERSION"));
    assert!(archive.ends_with(format!("{name}.zip")));
    assert!(folder.path().join(name).join("glowflow.exe").is_file());
}

#[test]
fn wrong_options_print_the_usage() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/release.sh");
    for arguments in [&["--what", "x"][..], &["--out"]] {
        let run = Command::new("bash").arg(&script).args(arguments).output().unwrap();
        let stderr = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.code() == Some(2) && stderr.contains("scripts/release.sh [--target"), "{stderr}");
    }
}
