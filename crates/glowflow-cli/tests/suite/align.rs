//! `align` and `crop`, and the alignment of photographs passed to other commands.
#![cfg(feature = "faces")]

use std::path::{Path, PathBuf};

use crate::common::{self, TINY, read_image, run, save_image, shared_folder};
use glowflow::faces::{self, Faces};
use glowflow_data::Eyes;
use image::{Rgb, RgbImage};

/// A public-domain photograph with one face, its eyes at about (0.4, 0.46) and (0.605, 0.47).
fn astronaut() -> RgbImage {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../glowflow-faces/tests/pictures/astronaut.jpg");
    image::open(path).unwrap().into_rgb8()
}

/// The photograph at an offset in a larger picture.
fn moved(left: u32, top: u32) -> RgbImage {
    let mut picture = RgbImage::from_pixel(400, 300, Rgb([120, 120, 120]));
    image::imageops::replace(&mut picture, &astronaut(), left.into(), top.into());
    picture
}

fn save(picture: &RgbImage, path: PathBuf) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture.save(path).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let mut names = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    names.sort();
    names
}

/// Mean absolute difference of the pixel values.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn a_folder_is_aligned_for_training() {
    let folder = shared_folder("align");
    // The same face at two positions.
    save(&moved(10, 20), folder.join("photos/train/cat/000001.jpg"));
    save(&moved(180, 80), folder.join("photos/train/dog/b.png"));
    save(&moved(100, 50), folder.join("photos/test/dog/c.png"));
    save_image(&folder.join("photos/train/dog/nobody.png"), 1);
    std::fs::write(folder.join("photos/train/dog/broken.png"), "no picture").unwrap();

    let refused = run(&folder, "align --data photos --out failed --size 64");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("--allow-broken"), "{refused:?}");

    // The eyes are detected to within a hundredth of the picture's size.
    let found = run(&folder, "align --data photos --out found --size 64 --allow-broken --json").ok().json();
    for (name, left, top) in [
        ("train/cat/000001.jpg", 10.0, 20.0),
        ("train/dog/b.png", 180.0, 80.0),
        ("test/dog/c.png", 100.0, 50.0),
    ] {
        let face = found["faces"].as_array().unwrap().iter().find(|face| face["image"] == name).unwrap();
        for (eye, [x, y]) in [[81.0, 93.0], [124.0, 95.5]].into_iter().enumerate() {
            let place = |axis: usize| face["eyes"][eye][axis].as_f64().unwrap();
            let off = (place(0) - (x + left) / 400.0).hypot(place(1) - (y + top) / 300.0);
            assert!(off < 0.01, "{name}: {face}");
        }
    }

    let done = run(&folder, "align --data photos --out aligned --size 64 --allow-broken").ok();
    assert!(done.stdout.contains("aligned 3 faces, 1 photograph without a face"), "{done:?}");
    for words in ["no face was found in 1 of 5", "train/dog/nobody.png", "--keep-faceless", "broken.png"] {
        assert!(done.stderr.contains(words), "{words} is not in {done:?}");
    }
    let aligned = folder.join("aligned");
    let names = ["eyes.toml", "test/dog/c.png", "train/cat/000001.png", "train/dog/b.png"];
    assert_eq!(files(&aligned), names);
    assert_eq!(faces::read(&aligned).unwrap(), Some(Faces::Aligned(Eyes::CELEBA)));
    assert_eq!(read_image(&aligned.join("train/cat/000001.png")).dimensions(), (64, 64));

    // Classes and splits are those of the photographs; the file with eye positions is not reported as an
    // unknown file.
    let trained = run(
        &folder,
        &format!("train {TINY} --data aligned --steps 1 --out run --set model.classes=2 --set train.batch=2"),
    )
    .ok();
    assert!(trained.stderr.contains("train (2 images) is the training set"), "{trained:?}");
    assert!(!trained.stderr.contains("eyes.toml"), "{trained:?}");

    let again = run(&folder, "align --data photos --out aligned");
    assert!(again.code == Some(1) && again.stderr.contains("give a new folder with --out"), "{again:?}");
    let inside = run(&folder, "align --data photos --out photos/aligned");
    assert!(inside.code == Some(1) && inside.stderr.contains("a folder outside"), "{inside:?}");
    assert!(!folder.join("photos/aligned").exists());
}

#[test]
fn eyes_are_placed_as_requested() {
    let folder = shared_folder("align-eyes");
    save(&moved(100, 60), folder.join("photos/a.png"));
    let done =
        run(&folder, "align --data photos --out one --size 100 --eyes 0.3,0.4,0.7,0.4 --json").ok().json();
    assert_eq!((&done["aligned"], &done["faces"][0]["image"]), (&1.into(), &"a.png".into()));
    let found = |eye: usize, axis: usize| done["faces"][0]["eyes"][eye][axis].as_f64().unwrap();
    for (eye, x, y) in [(0, 180.0 / 400.0, 152.0 / 300.0), (1, 221.0 / 400.0, 154.0 / 300.0)] {
        assert!((found(eye, 0) - x).abs() < 0.02 && (found(eye, 1) - y).abs() < 0.02, "{done}");
    }
    let eyes = Eyes::new([0.3, 0.4], [0.7, 0.4]).unwrap();
    assert_eq!(faces::read(&folder.join("one")).unwrap(), Some(Faces::Aligned(eyes)));
    // Pupils are darker than the skin between the eyes and on the cheeks.
    let picture = read_image(&folder.join("one/a.png"));
    let brightness = |x: u32, y: u32| {
        let patch = (x - 2..=x + 2).flat_map(|x| (y - 2..=y + 2).map(move |y| (x, y)));
        patch.map(|(x, y)| picture.get_pixel(x, y).0.map(u32::from).iter().sum::<u32>()).sum::<u32>()
    };
    for x in [30, 70] {
        assert!(brightness(x, 40) < brightness(50, 40) && brightness(x, 40) < brightness(x, 58));
    }

    let bad = run(&folder, "align --data photos --out two --eyes 0.7,0.4,0.3,0.4");
    assert!(bad.code == Some(2) && bad.stderr.contains("0.39,0.51,0.61,0.51"), "{bad:?}");
}

#[test]
fn several_faces_and_none() {
    let folder = shared_folder("align-several");
    let mut two = RgbImage::from_pixel(420, 220, Rgb([120, 120, 120]));
    let small = image::imageops::resize(&astronaut(), 150, 150, image::imageops::FilterType::Triangle);
    image::imageops::replace(&mut two, &astronaut(), 0, 10);
    image::imageops::replace(&mut two, &small, 240, 30);
    save(&two, folder.join("photos/two.png"));
    save_image(&folder.join("photos/nobody.png"), 2);
    run(&folder, "align --data photos --out all --faces all --keep-faceless --size 32").ok();
    assert_eq!(files(&folder.join("all")), ["eyes.toml", "nobody.png", "two.face2.png", "two.png"]);
    run(&folder, "align --data photos --out one --size 32").ok();
    assert_eq!(files(&folder.join("one")), ["eyes.toml", "two.png"]);

    // An additional face does not replace a picture of that name.
    save_image(&folder.join("photos/two.face2.png"), 3);
    run(&folder, "align --data photos --out unique --faces all --keep-faceless --size 32").ok();
    let names = ["eyes.toml", "nobody.png", "two.face2-2.png", "two.face2.png", "two.png"];
    assert_eq!(files(&folder.join("unique")), names);
    std::fs::remove_file(folder.join("photos/two.face2.png")).unwrap();

    std::fs::remove_file(folder.join("photos/two.png")).unwrap();
    let kept = run(&folder, "align --data photos --out kept --keep-faceless --size 32").ok();
    assert!(kept.stdout.contains("0 faces, 1 photograph without a face"), "{kept:?}");
    assert_eq!(files(&folder.join("kept")), ["nobody.png"]);
    std::fs::create_dir(folder.join("torn")).unwrap();
    std::fs::write(folder.join("torn/a.png"), "no picture").unwrap();
    for command in ["align", "crop"] {
        let line = format!("{command} --data torn --out nothing --allow-broken");
        let nothing = run(&folder, &line);
        assert!(nothing.code == Some(1) && nothing.stderr.contains("nothing was written"), "{nothing:?}");
        assert!(!folder.join("nothing").exists());
    }
    let none = run(&folder, "align --data photos --out none");
    assert!(none.code == Some(1) && none.stderr.contains("glowflow crop"), "{none:?}");
    assert!(!folder.join("none").exists());
}

#[test]
fn tables_fit_the_aligned_pictures() {
    let folder = shared_folder("align-table");
    let mut table = "image_id Bright\n".to_owned();
    for i in 0..32 {
        let mut picture = moved(4 * i, 50);
        picture.iter_mut().for_each(|x| *x = if i % 2 == 0 { *x / 2 + 100 } else { *x / 2 });
        save(&picture, folder.join(format!("photos/{i:06}.jpg")));
        table += &format!("{i:06}.jpg {}\n", if i % 2 == 0 { 1 } else { -1 });
    }
    std::fs::write(folder.join("table.txt"), table).unwrap();
    run(&folder, "align --data photos --out aligned --size 32").ok();
    run(&folder, &format!("train {TINY} --data aligned --steps 1 --out run")).ok();
    let line = "attributes --model run --data aligned --labels table.txt --json";
    let found = run(&folder, line).ok().json();
    assert_eq!(found["directions"][0]["name"], "Bright", "{found}");
}

#[test]
fn parts_are_cropped() {
    let folder = shared_folder("crop");
    let picture = RgbImage::from_fn(40, 20, |x, y| Rgb([x as u8 * 6, y as u8 * 12, 0]));
    save(&picture, folder.join("photos/deep/a.png"));
    save(&picture, folder.join("photos/a.jpg"));
    let done = run(&folder, "crop --data photos --out squares").ok();
    assert!(done.stdout.contains("cropped 2 pictures"), "{done:?}");
    assert_eq!(files(&folder.join("squares")), ["a.png", "deep/a.png"]);
    let square = image::imageops::crop_imm(&picture, 10, 0, 20, 20).to_image();
    assert_eq!(read_image(&folder.join("squares/deep/a.png")), square);

    run(&folder, "crop --data photos --box 0,0.5,0.5,1 --size 5 --out part").ok();
    assert_eq!(read_image(&folder.join("part/deep/a.png")).dimensions(), (10, 5));
    let bad = run(&folder, "crop --data photos --box 0.5,0,0.5,1 --out bad");
    assert!(bad.code == Some(2) && bad.stderr.contains("0.1,0,0.9,0.8"), "{bad:?}");

    // At this size, its longer side would have 64,000 pixels.
    save(&RgbImage::new(2000, 1), folder.join("photos/elongated.png"));
    let rest = run(&folder, "crop --data photos --box 0,0,1,1 --size 32 --out rest");
    assert_eq!(
        (rest.code, files(&folder.join("rest"))),
        (Some(1), vec!["a.png".into(), "deep/a.png".into()])
    );
    assert!(
        rest.stderr.contains("skipped: elongated.png: ") && rest.stderr.contains("32×64000×3"),
        "{rest:?}"
    );
}

#[test]
fn photographs_are_aligned_for_a_model() {
    let folder = shared_folder("align-given");
    for seed in 0..8 {
        save_image(&folder.join(format!("data/{seed}.png")), seed);
    }
    run(&folder, &format!("train {TINY} --data data --steps 1 --out run --set model.bits=8")).ok();
    save(&moved(180, 90), folder.join("photo.png"));
    save_image(&folder.join("nobody.png"), 3);
    run(&folder, "align --data photo.png --out reference --size 16").ok();
    let reference = read_image(&folder.join("reference/photo.png"));
    // The first and last image of an interpolation are the pictures themselves.
    let ends = |options: &str| {
        let line =
            format!("interpolate --model run photo.png nobody.png --frames 2 --out strip.png {options}");
        let done = run(&folder, &line).ok();
        let strip = read_image(&folder.join("strip.png"));
        let side = strip.height();
        let first = image::imageops::crop_imm(&strip, 0, 0, side, side).to_image();
        let small = image::imageops::resize(&first, 16, 16, image::imageops::FilterType::Nearest);
        (small, done.stderr)
    };
    // Without eye positions: one hint.
    let (cropped, hint) = ends("");
    assert!(hint.contains("photo.png contains a face") && hint.contains("--eyes"), "{hint}");
    let (plain, silence) = ends("--no-align");
    assert_eq!(plain, cropped);
    assert!(!silence.contains("face"), "{silence}");
    assert!(difference(&plain, &reference) > 15.0);

    // Eye positions given, then stored.
    let (aligned, notice) = ends("--eyes 0.39,0.51,0.61,0.51");
    assert!(difference(&aligned, &reference) < 3.0, "{}", difference(&aligned, &reference));
    assert!(notice.contains("no face found in nobody.png: centre-cropped"), "{notice}");
    assert!(!notice.contains("photo.png"), "{notice}");
    faces::write(&folder.join("run"), Faces::Aligned(Eyes::CELEBA)).unwrap();
    assert_eq!(ends("").0, aligned);
    faces::write(&folder.join("run"), Faces::None).unwrap();
    let (cropped, silence) = ends("");
    assert_eq!(cropped, plain);
    assert!(!silence.contains("face"), "{silence}");

    // The other commands behave the same.
    faces::write(&folder.join("run"), Faces::Aligned(Eyes::CELEBA)).unwrap();
    for line in ["resample --model run nobody.png --out r.png", "nearest --model run nobody.png --data data"]
    {
        assert!(run(&folder, line).ok().stderr.contains("no face found in nobody.png"), "{line}");
        assert!(!run(&folder, &format!("{line} --no-align")).ok().stderr.contains("face"), "{line}");
    }
}

/// The picture and the images to search are aligned in the same way.
#[test]
fn a_photograph_is_found_in_its_own_folder() {
    let folder = shared_folder("align-nearest");
    for seed in 0..8 {
        save_image(&folder.join(format!("data/{seed}.png")), seed);
        save_image(&folder.join(format!("photos/{seed}.png")), seed);
    }
    save(&moved(180, 90), folder.join("photos/photo.png"));
    run(&folder, &format!("train {TINY} --data data --steps 1 --out run --set model.bits=8")).ok();
    for eyes in [Faces::Aligned(Eyes::CELEBA), Faces::None] {
        faces::write(&folder.join("run"), eyes).unwrap();
        let found =
            run(&folder, "nearest --model run photos/photo.png --data photos --count 1 --json").ok().json();
        assert_eq!(found[0]["image"], "photo.png", "{eyes:?}");
        assert!(found[0]["similarity"].as_f64().unwrap() > 0.999, "{eyes:?}: {found}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_folder_holds_complete_pictures() {
    let folder = shared_folder("align-interrupted");
    for i in 0..60 {
        save(&moved(i, 50), folder.join(format!("photos/{i:02}.png")));
    }
    let mut command = common::command(&folder, "align --data photos --out aligned --threads 1");
    let child =
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    while !folder.join("aligned/00.png").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = format!("kill -TERM {}", child.id());
    std::process::Command::new("sh").args(["-c", &kill]).output().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{stderr}");
    assert!(stderr.contains("of 60 pictures were read"), "{stderr}");
    let names = files(&folder.join("aligned"));
    assert!((2..60).contains(&names.len()) && names.contains(&"eyes.toml".to_owned()), "{names:?}");
    for name in names.iter().filter(|name| *name != "eyes.toml") {
        assert!(name.ends_with(".png"), "{name}");
        assert_eq!(read_image(&folder.join("aligned").join(name)).dimensions(), (256, 256));
    }
}
