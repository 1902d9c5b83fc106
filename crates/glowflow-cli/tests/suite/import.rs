//! `import`: checkpoints of other programs, converted to a model that scores and inverts.

use std::path::{Path, PathBuf};

use crate::common::run;
use glowflow::ModelFile;

/// A checkpoint next to the checkout; `None`, with a message, if it does not exist.
fn checkpoint(name: &str) -> Option<PathBuf> {
    let path = Path::new("../../../shared/peer_checkpoints").join(name);
    let found = path.canonicalize().ok();
    if found.is_none() {
        eprintln!("skipped: {} is not there", path.display());
    }
    found
}

#[test]
fn a_checkpoint_becomes_a_model() {
    let Some(path) = checkpoint("y0ast/affine_lu/glow_checkpoint_1.pt") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = format!("import {} --from y0ast --out model.safetensors", path.display());
    let outcome = run(folder, &line).ok();
    for part in ["bits/dim", "test image", "inverse error", "unused         optimizer", "\"levels\":3"] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:#?}");
    }
    assert_eq!(ModelFile::read(&folder.join("model.safetensors")).unwrap().config.image(), [16, 16, 3]);
    let json = run(folder, &format!("{line} --json")).ok().json();
    assert!(json["bits_per_dim"].as_f64().unwrap().is_finite());
    assert!(json["inverse_error"].as_f64().unwrap() < 1e-3);
    run(folder, "sample --model model.safetensors --count 2 --out samples.png").ok();
}

#[test]
fn missing_settings_are_requested() {
    let Some(path) = checkpoint("rosinality/affine_lu/model_000001.pt") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let import = |options: &str| {
        run(folder, &format!("import {} --from rosinality {options} --out m.safetensors", path.display()))
    };
    let outcome = import("");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("give --image N and --bits N"), "{outcome:#?}");
    let outcome = import("--image 16");
    assert!(outcome.stderr.contains("give --bits N"), "{outcome:#?}");
    assert!(!folder.join("m.safetensors").exists());
    let outcome = import("--image 16 --bits 5").ok();
    assert!(outcome.stdout.contains("\"prior\":\"edge\""), "{outcome:#?}");
    // Smaller than the built-in portraits.
    import("--image 8 --bits 5").ok();
    let outcome = import("--image 20 --bits 5");
    assert!(outcome.stderr.contains("not divisible"), "{outcome:#?}");
}

#[test]
fn mistakes_end_with_a_message() {
    let Some(path) = checkpoint("y0ast/affine_lu/glow_model_1.pth") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("text.pt"), "no checkpoint").unwrap();
    let path = path.display();
    for (line, part) in [
        (format!("{path} --from rosinality --image 16 --bits 8"), "looks like one of y0ast"),
        (format!("{path} --from torch"), "y0ast, rosinality, chaiyujin, openai, normflows"),
        (format!("{path} --from y0ast --image 32"), "16 × 16"),
        (format!("{path} --from y0ast --image 0"), "is not a valid size"),
        ("text.pt --from y0ast".into(), "text.pt"),
        ("nothing.pt --from y0ast".into(), "nothing.pt"),
    ] {
        let outcome = run(folder, &format!("import {line} --out m.safetensors"));
        assert_ne!(outcome.code, Some(0), "{line}");
        assert!(outcome.stderr.contains(part), "{part}: {outcome:#?}");
        assert!(!folder.join("m.safetensors").exists());
    }
}
