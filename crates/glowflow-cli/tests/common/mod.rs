//! The program as a user runs it: in a folder, with a line of arguments.

// Each test program compiles this file for itself and uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use image::RgbImage;

/// A model that trains in milliseconds.
pub const TINY: &str = "--threads 2 --set model.image=[16,16,3] --set model.levels=2 --set model.steps=2 \
                        --set model.hidden=8 --set train.batch=4 --set train.eval_images=8";

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Insists that the command went well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// The standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// `glowflow` with the arguments in `line`, in `folder`, so that files can be named relative to that. On the processor, unless
/// `line` names a device.
pub fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glowflow"));
    command
        .args(line.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("GLOWFLOW_DEVICE", "cpu");
    command
}

/// Runs it to its end.
pub fn run(folder: &Path, line: &str) -> Outcome {
    outcome(command(folder, line))
}

/// Runs a command to its end.
pub fn outcome(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// An empty folder that stays after the test, for what several tests share.
pub fn shared_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Random numbers (xorshift64*), the same in every run of the tests.
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

/// Saves a 16×16 PNG: a slope, in a colour of its own, under noise that takes every value of a byte.
pub fn save_image(path: &Path, seed: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut random = Random(seed + 1);
    (0..20).for_each(|_| _ = random.next());
    let tint = random.next().to_le_bytes();
    let image = RgbImage::from_fn(16, 16, |x, y| {
        image::Rgb(std::array::from_fn(|c| {
            let slope = (x + 2 * y) as f64 * 3.0 + f64::from(tint[c]) / 2.0;
            // Two in three pixels follow the slope; the third is anything.
            if random.next().is_multiple_of(3) { (random.next() >> 40) as u8 } else { slope as u8 }
        }))
    });
    image.save(path).unwrap();
}

/// Twelve images of two classes, at different depths: their names within `folder`, in order.
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
