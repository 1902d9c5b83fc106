//! Runs the examples as documented, with short settings.
//!
//! Cargo builds examples for `cargo test`, but not for `cargo test --test examples` alone, which runs those
//! of an earlier build.

use std::path::Path;
use std::process::{Command, Output};

use glowflow::Model;
use glowflow_data::{ImageShape, encode_png, load_picture};

/// Runs an example in a folder, with arguments.
fn example(folder: &Path, name: &str, args: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/examples-HASH
    let built = test.parent().and_then(Path::parent).unwrap().join("examples");
    let program = built.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    let run = Command::new(&program).args(args).current_dir(folder).output();
    run.unwrap_or_else(|e| panic!("{}: {e}; cargo build --examples makes it", program.display()))
}

/// Standard output of a successful run.
fn output(folder: &Path, name: &str, args: &[&str]) -> String {
    let run = example(folder, name, args);
    assert!(run.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The numbers that precede `bits/dim`.
fn bits_per_dim(text: &str) -> Vec<f64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let before = |pair: &[&str]| pair[1].starts_with("bits/dim").then(|| pair[0].parse().unwrap());
    words.windows(2).filter_map(before).collect()
}

#[test]
fn the_tutorial_trains_and_samples() {
    let folder = tempfile::tempdir().unwrap();
    let text = output(folder.path(), "custom_flow", &["out.png", "60"]);
    assert!(text.contains("its log-determinant and its gradients are right"), "{text}");
    assert!(text.contains("64 of 64 test images come back"), "{text}");
    let bits = bits_per_dim(&text);
    // The first step, step 50, the last one, and the test images.
    assert_eq!(bits.len(), 4, "{text}");
    assert!(bits[2] < bits[0] - 1.0 && (bits[3] - bits[2]).abs() < 1.0, "{text}");
    let (pixels, shape) = load_picture(&folder.path().join("out.png")).unwrap();
    assert_eq!((shape.height, shape.width), (4 * 64 + 3 * 2, 8 * 64 + 7 * 2));
    assert!(pixels.iter().any(|&pixel| pixel != pixels[0]));
    assert!(folder.path().join("out.safetensors").exists());
}

#[test]
fn a_trained_model_samples_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let text = output(folder.path(), "training_loop", &["portraits", "model.safetensors", "3"]);
    assert!(text.contains("test: ") && text.contains("of 16 images invert exactly"), "{text}");
    output(folder.path(), "sample", &["model.safetensors", "out.png", "3", "0.5", "7"]);
    let (_, shape) = load_picture(&folder.path().join("out.png")).unwrap();
    assert_eq!((shape.height, shape.width), (128, 3 * 128 + 2 * 2));
    let scores = output(folder.path(), "score", &["model.safetensors", "out.png", "out.png"]);
    let bits = bits_per_dim(&scores);
    assert_eq!(bits.len(), 2, "{scores}");
    assert!(bits[0] > 0.0 && (bits[0] - bits[1]).abs() < 0.1, "{scores}");
    assert!(scores.contains("uniform bound (8 draws)"), "{scores}");

    // The program of README.md reads run/model.safetensors.
    std::fs::create_dir(folder.path().join("run")).unwrap();
    std::fs::rename(folder.path().join("model.safetensors"), folder.path().join("run/model.safetensors"))
        .unwrap();
    let model = Model::load(folder.path().join("run")).unwrap();
    let [height, width, channels] = model.config().image();
    let pixels = model.sample(1, 0.7, &[], 0).unwrap().pixels.into_raw_vec_and_offset().0;
    let picture = encode_png(ImageShape { height, width, channels }, &pixels).unwrap();
    std::fs::write(folder.path().join("one.png"), picture).unwrap();
    let text = output(folder.path(), "readme", &["one.png"]);
    assert!(bits_per_dim(&text).len() == 1 && text.contains("samples: [16, "), "{text}");
}

#[test]
fn wrong_arguments_print_the_usage() {
    let folder = tempfile::tempdir().unwrap();
    let calls: [(&str, &[&str]); 6] = [
        ("custom_flow", &["a.png", "many"]),
        ("score", &["model.safetensors"]),
        ("sample", &["model.safetensors"]),
        ("sample", &["model.safetensors", "a.png", "some"]),
        ("training_loop", &[]),
        ("readme", &[]),
    ];
    for (name, args) in calls {
        let run = example(folder.path(), name, args);
        let message = String::from_utf8(run.stderr).unwrap();
        assert!(!run.status.success() && message.contains(&format!("usage: {name} ")), "{name}: {message}");
    }
    let run = example(folder.path(), "score", &["missing.safetensors", "a.png"]);
    assert!(String::from_utf8(run.stderr).unwrap().contains("missing.safetensors"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a file was left behind");
}
