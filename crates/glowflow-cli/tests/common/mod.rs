//! Runs the program as a user does: in a folder, with a command line.

// Each test binary compiles this file and uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::RgbImage;

/// A model that trains in milliseconds.
pub const TINY: &str = "--threads 2 --set model.image=[16,16,3] --set model.levels=2 --set model.steps=2 \
                        --set model.hidden=8 --set train.batch=4 --set train.eval_images=8";

/// Result of a command.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Asserts that the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// `glowflow` with the arguments in `line`, in `folder`, so that file names can be relative. Uses the CPU
/// unless `line` selects a device.
pub fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glowflow"));
    command
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("GLOWFLOW_DEVICE", "cpu");
    command
}

/// Runs a command line to completion.
pub fn run(folder: &Path, line: &str) -> Outcome {
    outcome(command(folder, line))
}

/// Runs a command to completion.
pub fn outcome(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An empty folder that is kept after the test, for data that several tests share.
pub fn shared_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Pseudo-random numbers (xorshift64*), the same in every run of the tests.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Saves a 16×16 PNG: a gradient whose colour depends on the seed, with noise that covers all byte values.
pub fn save_image(path: &Path, seed: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut random = Random(seed + 1);
    (0..20).for_each(|_| _ = random.next());
    let tint = random.next().to_le_bytes();
    let image = RgbImage::from_fn(16, 16, |x, y| {
        image::Rgb(std::array::from_fn(|c| {
            let slope = (x + 2 * y) as f64 * 3.0 + f64::from(tint[c]) / 2.0;
            // Two in three pixels follow the gradient; the third is arbitrary.
            if random.next().is_multiple_of(3) { (random.next() >> 40) as u8 } else { slope as u8 }
        }))
    });
    image.save(path).unwrap();
}

/// Saves twelve images of two classes, at different depths; returns their names relative to `folder`, in
/// order.
pub fn save_classes(folder: &Path) -> Vec<String> {
    let names: Vec<String> = (0..12)
        .map(|i| match i {
            0..4 => format!("cat/{i:02}.png"),
            4..6 => format!("cat/small/{i:02}.png"),
            _ => format!("dog/{i:02}.png"),
        })
        .collect();
    for (seed, name) in names.iter().enumerate() {
        save_image(&folder.join(name), seed as u64);
    }
    names
}

pub fn read_image(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).to_rgb8()
}
