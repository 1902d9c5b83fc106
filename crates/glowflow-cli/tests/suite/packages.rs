//! Metadata of the crates for crates.io and citations, and the files of their packages.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn cargo(arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The packages that can be published.
fn packages() -> Vec<Value> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps"])).unwrap();
    let packages: Vec<Value> = metadata["packages"].as_array().unwrap().clone();
    let packages: Vec<Value> = packages.into_iter().filter(|package| package["publish"].is_null()).collect();
    assert!(packages.len() >= 8);
    packages
}

#[test]
fn metadata_are_complete() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        for key in ["description", "license", "repository", "readme", "rust_version"] {
            let value = package[key].as_str().unwrap_or_default();
            assert!(!value.is_empty(), "{name} has no {key}");
        }
        for key in ["keywords", "categories"] {
            let values = package[key].as_array().unwrap();
            assert!((1..=5).contains(&values.len()), "{name} has {} {key}", values.len());
            assert!(values.iter().all(|value| value.as_str().unwrap().len() <= 32), "{name}: {values:?}");
        }
    }
}

/// The files that the sources in `folder` embed by macros.
fn embedded(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(embedded(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for name in ["include_str!(\"", "include_bytes!(\""] {
                let files = text.split(name).skip(1).map(|rest| rest.split('"').next().unwrap());
                found.extend(files.map(|file| folder.join(file)));
            }
        }
    }
    found
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

#[test]
fn packages_hold_what_is_compiled_and_no_tests() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        let list = cargo(&["package", "--list", "--allow-dirty", "--quiet", "-p", name]);
        let files: BTreeSet<PathBuf> = list.lines().map(PathBuf::from).collect();
        for file in ["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(files.contains(Path::new(file)), "{name} has no {file}: {files:#?}");
        }
        for file in &files {
            assert!(!file.starts_with("tests") && !file.starts_with("benches"), "{name}: {}", file.display());
        }
        for file in embedded(&folder.join("src")) {
            let file = plain(&file);
            let inside = file.strip_prefix(folder).unwrap_or_else(|_| panic!("{name}: {}", file.display()));
            assert!(
                files.contains(inside),
                "{name} embeds {}, which is not in the package",
                inside.display()
            );
        }
    }
}

#[test]
fn citations_name_the_version() {
    let citation = std::fs::read_to_string(root().join("CITATION.cff")).unwrap();
    assert!(citation.contains(&format!("\nversion: {}\n", env!("CARGO_PKG_VERSION"))), "{citation}");
}
