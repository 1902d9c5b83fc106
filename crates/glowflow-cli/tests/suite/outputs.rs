//! Output of pictures: to files of any name, to standard output, and to default names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{self, command, read_image, run, save_image};
use glowflow::latent::{About, Direction, Directions};
use glowflow::{GlowConfig, Model, ModelFile};

/// A folder with a run (`run`, which has directions) and images (`photos`).
fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("outputs");
        let config =
            GlowConfig { image: [16, 16, 3], levels: 2, steps: 1, hidden: 4, ..GlowConfig::default() };
        std::fs::create_dir(folder.join("run")).unwrap();
        let model = ModelFile::new(config.clone(), 0).unwrap();
        model.write(&folder.join("run/model.safetensors")).unwrap();
        let glow = Model::load(folder.join("run")).unwrap();
        let about = About { name: "Smiling".into(), positives: 10, negatives: 10, auc: None };
        let list = vec![Direction { about, latents: glow.draw(1, 0.1, 0).unwrap() }];
        let directions = Directions { config: config.into(), model: model.fingerprint(), list };
        directions.write(&folder.join("run/directions.safetensors")).unwrap();
        (0..4).for_each(|i| save_image(&folder.join(format!("photos/{i}.png")), i));
        folder
    })
}

/// An empty folder next to the models and images.
fn own_folder(name: &str) -> PathBuf {
    let folder = world().join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const PICTURES: [&str; 6] = [
    "sample --model ../run --count 2",
    "sample --model ../run --count 2 --temperatures 0,1",
    "interpolate --model ../run ../photos/0.png ../photos/1.png",
    "manipulate --model ../run ../photos/0.png --set Smiling=1",
    "manipulate --model ../run ../photos/0.png --sweep Smiling",
    "resample --model ../run ../photos/0.png",
];

#[test]
fn a_dash_is_the_standard_output_of_every_picture() {
    let folder = own_folder("dash");
    for line in
        PICTURES.into_iter().chain(["nearest --model ../run ../photos/0.png --data ../photos --count 2"])
    {
        for json in ["", " --json"] {
            run(&folder, &format!("{line} --out file.png")).ok();
            let output = command(&folder, &format!("{line} --out -{json}")).output().unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
            assert!(output.stdout == std::fs::read(folder.join("file.png")).unwrap(), "{line}");
            assert_eq!(output.stderr.is_empty(), !line.starts_with("nearest"), "{line}: {output:?}");
        }
    }
    assert_eq!(files(&folder), ["file.png"]);
    // A file named `-` can still be written.
    run(&folder, "sample --model ../run --count 2 --out ./-").ok();
    assert_eq!(files(&folder), ["-", "file.png"]);
}

#[test]
fn a_dash_is_rejected_for_outputs_that_are_not_streams() {
    let folder = own_folder("refused");
    run(world(), "encode --model run --data photos --out photos.latents").ok();
    for line in [
        "sample --model ../run --count 2 --out-dir -",
        "decode --model ../run --latents ../photos.latents --out-dir -",
        "encode --model ../run --data ../photos --out -",
        "attributes --model ../run --data portraits --out -",
    ] {
        let outcome = run(&folder, line);
        assert_eq!(outcome.code, Some(1), "{line}: {outcome:?}");
        assert!(
            outcome.stderr.contains("standard output") && outcome.stderr.contains("./-"),
            "{line}: {outcome:?}"
        );
        assert_eq!(outcome.stdout, "", "{line}");
    }
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn pictures_without_a_name_get_a_new_one() {
    let folder = own_folder("names");
    for (line, names) in [
        (PICTURES[0], ["samples.png", "samples-2.png"]),
        (PICTURES[2], ["interpolation.png", "interpolation-2.png"]),
        (PICTURES[3], ["manipulated.png", "manipulated-2.png"]),
        (PICTURES[5], ["resampled.png", "resampled-2.png"]),
    ] {
        let text = run(&folder, line).ok().stdout;
        assert!(text.contains(names[0]), "{line}: {text}");
        let first = std::fs::read(folder.join(names[0])).unwrap();
        assert_eq!(run(&folder, &format!("{line} --json")).ok().json()["out"], names[1], "{line}");
        assert!(std::fs::read(folder.join(names[0])).unwrap() == first);
        read_image(&folder.join(names[1]));
    }
    assert_eq!(files(&folder).len(), 8);
}

#[test]
fn concurrent_commands_may_write_one_file() {
    let folder = own_folder("concurrent");
    let children: Vec<_> = (0..30)
        .map(|seed| {
            let line = format!("--threads 1 sample --model ../run --count 2 --seed {seed} --out one.png");
            command(&folder, &line).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(files(&folder), ["one.png"]);
    let one = std::fs::read(folder.join("one.png")).unwrap();
    let same = (0..30).any(|seed| {
        let line = format!("sample --model ../run --count 2 --seed {seed} --out other.png");
        run(&folder, &line).ok();
        std::fs::read(folder.join("other.png")).unwrap() == one
    });
    assert!(same, "the file is that of none of them");
}

#[test]
fn names_may_be_long() {
    let folder = own_folder("long");
    let longest = "x".repeat(251) + ".png";
    run(&folder, &format!("sample --model ../run --count 2 --out {longest}")).ok();
    assert_eq!(files(&folder), [longest]);
    let longer = "x".repeat(252) + ".png";
    let outcome = run(&folder, &format!("sample --model ../run --count 2 --out {longer}"));
    assert!(outcome.code == Some(1) && outcome.stderr.contains("shorter name"), "{outcome:?}");
}
