//! The latent-space commands, on a small trained model and labelled images.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::common::{self, Outcome, TINY, read_image, run, save_classes, save_image};
use image::RgbImage;
use serde_json::Value;

/// Pixels between the images of a grid.
const GAP: u32 = 2;

/// A folder with models (`plain`, and `classes` of two classes), `photos` with a table of their attributes
/// `labels.csv`, and the `directions` computed from them.
fn world() -> &'static PathBuf {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("latent");
        let mut table = "image,Bright,Even,Rare,age\n".to_owned();
        for i in 0..120 {
            // Every second photograph is bright; `Even` is hardly visible.
            let bright = i % 2 == 0;
            let path = folder.join(format!("photos/{i:03}.png"));
            save_image(&path, i);
            let mut image = read_image(&path);
            image.iter_mut().for_each(|x| *x = *x / 2 + if bright { 120 } else { 0 });
            image.save(&path).unwrap();
            let answer = |yes: bool| if yes { "1" } else { "-1" };
            table += &format!("{i:03}.png,{},{},{},{i}\n", answer(bright), i / 2 % 2, answer(i < 3));
        }
        std::fs::write(folder.join("labels.csv"), table).unwrap();
        save_classes(&folder.join("images"));
        let train = |line: &str| run(&folder, &format!("train {TINY} {line}")).ok();
        train("--data photos --steps 60 --out plain");
        train("--data images --steps 10 --out classes --set model.classes=2");
        run(&folder, "attributes --model plain --data photos --labels labels.csv --out directions").ok();
        folder
    })
}

#[track_caller]
fn ok(line: &str) -> Outcome {
    run(world(), line).ok()
}

fn picture(name: &str) -> RgbImage {
    read_image(&world().join(name))
}

/// The images of a grid, row by row, at their displayed size.
fn images(picture: &RgbImage, columns: u32, rows: u32) -> Vec<RgbImage> {
    let side = (picture.width() + GAP) / columns - GAP;
    assert_eq!(picture.dimensions(), (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP));
    let at = |row, column| {
        image::imageops::crop_imm(picture, column * (side + GAP), row * (side + GAP), side, side).to_image()
    };
    (0..rows).flat_map(|row| (0..columns).map(move |column| at(row, column))).collect()
}

/// Returns whether a displayed image is `image`, with each pixel scaled to a square.
fn shows(shown: &RgbImage, image: &RgbImage) -> bool {
    let scale = shown.width() / image.width();
    shown.enumerate_pixels().all(|(x, y, pixel)| image.get_pixel(x / scale, y / scale) == pixel)
}

fn mean(image: &RgbImage) -> f64 {
    image.iter().map(|&x| f64::from(x)).sum::<f64>() / image.len() as f64
}

fn names(directions: &Value) -> Vec<&str> {
    directions["directions"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect()
}

#[test]
fn attributes_come_from_a_table() {
    let line = "attributes --model plain --data photos --labels labels.csv";
    let found = ok(&format!("{line} --out from.table --json")).json();
    assert_eq!(names(&found), ["Bright", "Even"]);
    let bright = &found["directions"][0];
    // A fifth of the 120 images is held out, at random.
    let count = |direction: &Value, side: &str| direction[side].as_u64().unwrap();
    assert_eq!(count(bright, "positives") + count(bright, "negatives"), 96);
    assert!((38..=58).contains(&count(bright, "positives")), "{bright}");
    let auc = bright["auc"]["value"].as_f64().unwrap();
    assert!(auc > 0.95, "bright and dark photographs differ in little else, and yet: {auc}");
    // In 96 images, one of the two sides has fewer than 50.
    let weak = bright["weak"].as_str().unwrap().to_owned();
    assert!(weak.starts_with("computed from 4") || weak.starts_with("computed from 3"), "{weak}");
    let warnings =
        found["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect::<Vec<_>>();
    for words in ["Rare: no direction from", "neither yes nor no, skipped: age (\"2\" for 002.png)"] {
        assert!(warnings.iter().any(|warning| warning.contains(words)), "{words} is not in {warnings:?}");
    }

    // The same values in the text output and in the file, which is in the run's folder by default.
    let text = ok(line).stdout;
    let weak = format!("weak: Bright: {weak}");
    for word in ["Bright", "Even", &weak, "warning: Rare", "plain/directions.safetensors"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let bytes = |name: &str| std::fs::read(world().join(name)).unwrap();
    assert!(bytes("plain/directions.safetensors") == bytes("from.table"));
    let fewer = |seed| ok(&format!("{line} --images 80 --seed {seed} --out fewer --json")).json();
    let bright = fewer(0)["directions"][0].clone();
    assert_eq!(count(&bright, "positives") + count(&bright, "negatives"), 64);
    assert_eq!(fewer(0)["directions"][0], bright);
    assert_ne!(fewer(1)["directions"][0], bright, "other images");
    ok(&format!("{line} --orthogonalize Even --out apart"));
    assert!(bytes("apart") != bytes("from.table"));
}

#[test]
fn images_of_a_sorted_folder_are_drawn_at_random() {
    // The first half of the images has the attribute, and the second does not.
    let rows = (0..120).map(|i| format!("{i:03}.png,{}\n", u8::from(i < 60))).collect::<String>();
    std::fs::write(world().join("sorted.csv"), format!("image,Early\n{rows}")).unwrap();
    let line = "attributes --model plain --data photos --labels sorted.csv --images 60 --out sorted --json";
    let early = &ok(line).json()["directions"][0];
    let count = |side: &str| early[side].as_u64().unwrap();
    assert!(count("positives") >= 15 && count("negatives") >= 15, "{early}");
}

#[test]
fn names_of_attributes_may_hold_commas_and_equals_signs() {
    let rows =
        (0..120).map(|i| format!("{i:03}.png;{};{};{}\n", i % 2, i / 2 % 2, i / 4 % 2)).collect::<String>();
    std::fs::write(world().join("odd.csv"), format!("image;Hair, blond;a=b;Plain\n{rows}")).unwrap();
    let find = |more: &[&str]| {
        let mut command =
            common::command(world(), "attributes --model plain --data photos --labels odd.csv --json");
        common::outcome({
            command.args(["--out", "odd"]).args(more);
            command
        })
    };
    let plain = find(&[]).ok();
    assert_eq!(names(&plain.json()), ["Hair, blond", "a=b", "Plain"]);
    let bytes = || std::fs::read(world().join("odd")).unwrap();
    let one = [&["--orthogonalize", "Hair, blond"][..], &["--orthogonalize", "a=b"]].concat();
    find(&one).ok();
    let apart = bytes();
    find(&["--orthogonalize", "Hair, blond", "--orthogonalize", "a=b,Plain"]).ok();
    assert!(bytes() != apart);
    let unknown = find(&["--orthogonalize", "Plain,Hat"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("\"Hat\""), "{unknown:?}");

    let mut command =
        common::command(world(), "manipulate --model plain --directions odd photos/007.png --out odd.png");
    common::outcome({
        command.args(["--set", "a=b=0.5", "--set", "Hair, blond=-0.5"]);
        command
    })
    .ok();
}

#[test]
fn unmatched_rows_and_images_are_reported() {
    let rows =
        (0..120).map(|i| if i < 60 { format!("{i:03}.png,{}\n", i % 2) } else { format!("x{i}.png,0\n") });
    std::fs::write(world().join("half.csv"), format!("image,Odd\n{}", rows.collect::<String>())).unwrap();
    let line = "attributes --model plain --data photos --labels half.csv --out half";
    let words =
        "60 of 120 rows name no image, such as x60.png; 60 of 120 images have no row, such as 060.png";
    assert!(ok(line).stdout.contains(words));
    assert_eq!(ok(&format!("{line} --json")).json()["warnings"][1], words);
    // The warning may explain a failure.
    let failed = run(world(), &format!("{line} --images 12"));
    assert!(failed.code == Some(1) && failed.stderr.contains(words), "{failed:?}");
}

#[test]
fn a_model_without_finite_latents_has_no_directions() {
    let mut model = glowflow::ModelFile::read(&world().join("plain")).unwrap();
    // Finite weights whose latents overflow.
    model.weights.fill(1e30);
    model.write(&world().join("overflow.safetensors")).unwrap();
    let outcome = run(
        world(),
        "attributes --model overflow.safetensors --data photos --labels labels.csv --out overflow.directions",
    );
    assert!(outcome.code == Some(1) && outcome.stderr.contains("not finite"), "{outcome:?}");
    assert!(!world().join("overflow.directions").exists());
}

#[test]
fn portraits_have_attributes() {
    let found =
        ok("attributes --model plain --data portraits --images 200 --out portraits.directions --json").json();
    assert_eq!(found["directions"].as_array().unwrap().len(), 6, "{found}");
}

#[test]
fn manipulate_moves_a_picture_along_directions() {
    let manipulate = |moves: &str, out: &str| {
        ok(&format!("manipulate --model plain --directions directions photos/007.png {moves} --out {out}"));
        picture(out)
    };
    let original = picture("photos/007.png");
    assert_eq!(manipulate("--set Bright=0 --set Even=0", "still.png"), original);
    let (bright, dark) =
        (manipulate("--set Bright=0.5", "bright.png"), manipulate("--set Bright=-0.5", "dark.png"));
    assert!(mean(&bright) > mean(&original) + 10.0 && mean(&dark) < mean(&original) - 10.0);

    let strip = images(&manipulate("--sweep Bright --frames 5", "strip.png"), 5, 1);
    assert!(shows(&strip[2], &original), "the middle of a strip is the picture itself");
    assert!(shows(&strip[3], &bright) && shows(&strip[1], &dark));
    assert!(strip.windows(2).all(|pair| mean(&pair[0]) < mean(&pair[1])));
    // A sweep over a picture with another change.
    let strip = images(&manipulate("--set Even=0.5 --sweep Bright --frames 3", "both.png"), 3, 1);
    assert!(shows(&strip[1], &manipulate("--set Even=0.5", "even.png")));
}

#[test]
fn resample_keeps_coarse_levels_and_redraws_fine_ones() {
    let resample = |options: &str, rows| {
        ok(&format!("resample --model plain photos/007.png --count 3 {options} --out details.png"));
        images(&picture("details.png"), 4, rows)
    };
    let rows = resample("--seed 1", 2);
    let original = picture("photos/007.png");
    for row in rows.chunks(4) {
        assert!(shows(&row[0], &original), "each row begins with the picture");
        assert!(row[1] != row[2] && row[2] != row[3] && row[1] != row[0]);
    }
    assert_eq!(resample("--seed 1 --levels 2", 1), rows[4..]);
    assert_ne!(resample("--seed 2 --levels 2", 1), rows[4..]);
    assert!(resample("--levels 0", 1).iter().all(|image| shows(image, &original)));
}

#[test]
fn nearest_finds_the_picture_itself_first() {
    let line = "nearest --model plain photos/007.png --data photos --count 3";
    let found = ok(&format!("{line} --out near.png --json")).json();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!((&found[0]["image"], &found[0]["similarity"]), (&"007.png".into(), &1.0.into()));
    assert!(found.windows(2).all(|pair| pair[0]["similarity"].as_f64() > pair[1]["similarity"].as_f64()));
    // The picture, then the nearest ones.
    let strip = images(&picture("near.png"), 4, 1);
    assert!(shows(&strip[0], &picture("photos/007.png")) && strip[1] == strip[0]);
    assert!(shows(&strip[3], &picture(&format!("photos/{}", found[2]["image"].as_str().unwrap()))));
    let text = ok(line).stdout;
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().next().unwrap().ends_with("1.000  007.png"), "{text}");
    assert_eq!(ok(&format!("{line} --level-weights 0.5,1")).stdout, text, "the default weights");
    assert_eq!(
        ok(&format!("{line} --level-weights 0,7")).stdout,
        ok(&format!("{line} --skip-levels 1")).stdout
    );
}

/// A folder gives the same results as its pictures one by one, named after their stems.
#[test]
fn folders_are_manipulated() {
    let set = "--model plain --directions directions --set Bright=0.5";
    let source = world().join("some/deep");
    std::fs::create_dir_all(&source).unwrap();
    for name in ["some/003.png", "some/deep/008.png"] {
        std::fs::copy(world().join("photos").join(&name[name.len() - 7..]), world().join(name)).unwrap();
    }
    let outcome = ok(&format!("manipulate some photos/003.png {set} --out-dir moved"));
    assert!(outcome.stdout.contains("3 images"), "{outcome:?}");
    for (moved, photo) in [("003.png", "003.png"), ("deep/008.png", "008.png"), ("003-2.png", "003.png")] {
        ok(&format!("manipulate photos/{photo} {set} --out one.moved.png"));
        assert_eq!(picture(&format!("moved/{moved}")), picture("one.moved.png"), "{moved}");
    }
    ok("manipulate some --model plain --directions directions --sweep Bright --frames 3 --out-dir swept");
    assert_eq!(images(&picture("swept/003.png"), 3, 1).len(), 3);

    // A broken picture is reported, and the others are written.
    std::fs::write(world().join("some/broken.jpg"), "no picture").unwrap();
    let line = format!("manipulate some {set} --out-dir rest");
    let outcome = run(world(), &line);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for words in ["skipped some/broken.jpg", "1 of 3 pictures", "--allow-broken"] {
        assert!(outcome.stderr.contains(words), "{words} is not in {outcome:?}");
    }
    assert_eq!(picture("rest/003.png"), picture("moved/003.png"));
    ok(&format!("{line} --allow-broken"));
}

/// An output folder must not overwrite input pictures.
#[test]
fn input_pictures_are_not_overwritten() {
    std::fs::create_dir_all(world().join("own/arrays")).unwrap();
    std::fs::copy(world().join("photos/003.png"), world().join("own/a.png")).unwrap();
    let original = std::fs::read(world().join("own/a.png")).unwrap();
    let mut file = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 16];
    file.extend([7; 512]);
    std::fs::write(world().join("own/arrays/train-images-idx3-ubyte"), file).unwrap();
    for (pictures, out, reason) in [
        ("own", "own", "give a folder outside"),
        ("own", "own/new", "give a folder outside"),
        ("own/a.png", "own", "own/a.png would be overwritten"),
        ("own/a.png own/b.png", "other", "own/b.png: no such file"),
        ("own/arrays", "other", "glowflow decode"),
    ] {
        let line = format!(
            "manipulate {pictures} --model plain --directions directions --set Bright=1 --out-dir {out}"
        );
        let outcome = run(world(), &line);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(reason), "{outcome:?}");
        assert!(outcome.stderr.lines().count() < 4, "{outcome:?}");
    }
    assert_eq!(std::fs::read(world().join("own/a.png")).unwrap(), original);
    assert!(!world().join("own/new").exists() && !world().join("other").exists());
}

/// Pictures replace pictures of their size, as an earlier call has written, and no other files.
#[test]
fn other_files_are_not_replaced_by_pictures() {
    let photo = |name: &str| world().join("photos").join(name);
    std::fs::create_dir_all(world().join("two")).unwrap();
    for name in ["003.png", "008.png"] {
        std::fs::copy(photo(name), world().join("two").join(name)).unwrap();
    }
    ok("encode --model plain --data two --out two.latents");
    for line in [
        "decode --model plain --latents two.latents --out-dir kept",
        "manipulate two --model plain --directions directions --set Bright=0.5 --out-dir kept",
        "manipulate two --model plain --directions directions --sweep Bright --frames 3 --out-dir kept",
    ] {
        let kept = world().join("kept");
        let _ = std::fs::remove_dir_all(&kept);
        ok(line);
        ok(line);
        std::fs::write(kept.join("008.png"), "precious").unwrap();
        let first = std::fs::read(kept.join("003.png")).unwrap();
        let outcome = run(world(), line);
        assert!(outcome.code == Some(1) && outcome.stderr.contains("008.png exists"), "{outcome:?}");
        assert_eq!(std::fs::read_to_string(kept.join("008.png")).unwrap(), "precious");
        assert_eq!(std::fs::read(kept.join("003.png")).unwrap(), first);
    }
}

/// Names that are not UTF-8.
#[cfg(target_os = "linux")]
#[test]
fn pictures_of_any_name_are_changed() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff.png");
    std::fs::create_dir_all(world().join("odd-names")).unwrap();
    std::fs::copy(world().join("photos/003.png"), world().join("odd-names").join(odd)).unwrap();
    let set = "--model plain --directions directions --set Bright=0.5 --out-dir odd-moved";
    assert!(ok(&format!("manipulate odd-names {set}")).stdout.contains("1 image"));
}

#[test]
fn samples_at_several_temperatures_are_the_same_samples() {
    ok("sample --model plain --count 2 --temperatures 0,0.7,1 --seed 3 --out series.png");
    let series = images(&picture("series.png"), 3, 2);
    assert_eq!(series[0], series[3], "without spread there is only one image");
    ok("sample --model plain --count 2 --temperature 0.7 --seed 3 --out-dir warm");
    let mut warm: Vec<_> =
        std::fs::read_dir(world().join("warm")).unwrap().map(|file| file.unwrap().path()).collect();
    warm.sort();
    assert!(shows(&series[1], &read_image(&warm[0])) && shows(&series[4], &read_image(&warm[1])));
}

#[test]
fn pictures_have_classes_if_the_model_has() {
    ok("attributes --model classes --data photos --labels labels.csv --class 1 --out classes.directions");
    let image = "--model classes photos/007.png --class 1";
    ok(&format!("manipulate {image} --directions classes.directions --set Bright=0 --out of.class.png"));
    assert_eq!(picture("of.class.png"), picture("photos/007.png"));
    ok(&format!("resample {image} --count 1 --levels 0 --out of.class.png"));
    assert!(shows(&images(&picture("of.class.png"), 2, 1)[1], &picture("photos/007.png")));
    let near = ok(&format!("nearest {image} --data photos --count 1 --json")).json();
    assert_eq!(near[0]["image"], "007.png");
    ok("sample --model classes --count 2 --temperatures 0.5,1 --class 1 --out of.class.png");
}

#[test]
fn mistakes_are_explained() {
    let world = world();
    std::fs::write(world.join("no.csv"), "name,age\n000.png,31\n").unwrap();
    std::fs::write(world.join("foreign.csv"), "name,Hat\nann.jpg,1\n").unwrap();
    let change = "manipulate --model plain --directions directions";
    let label = "attributes --model plain --data photos --out new";
    for (line, words) in [
        (label.to_owned(), &["photos", "--labels"][..]),
        (format!("{label} --labels nowhere.csv"), &["nowhere.csv"]),
        (format!("{label} --labels no.csv"), &["no.csv", "1 for yes"]),
        (format!("{label} --labels foreign.csv"), &["foreign.csv", "ann.jpg", "000.png"]),
        (format!("{label} --labels labels.csv --orthogonalize Hat"), &["Hat", "Bright, Even"]),
        (format!("{label} --labels labels.csv --images 5"), &["Bright", "10 of each"]),
        (format!("{label} --labels labels.csv --class 1"), &["\"1\"", "without classes"]),
        ("attributes --model classes --data photos --labels labels.csv".into(), &["000.png", "no sub-folder"]),
        (format!("{change} photos/007.png --out new.png"), &["--set", "--sweep"]),
        (format!("{change} photos/007.png --set Hat=1 --out new.png"), &["Hat", "Bright, Even"]),
        (format!("{change} photos/007.png --set Bright=3.5 --out new.png"), &["3.5", "−3 to 3"]),
        (format!("{change} photos/007.png --set Bright=nan --out new.png"), &["NaN", "−3 to 3"]),
        (format!("{change} photos/007.png --set Bright --out new.png"), &["Bright", "Smiling=0.7"]),
        (format!("{change} photos/007.png --set Bright=much --out new.png"), &["much", "0.7"]),
        (format!("{change} photos/007.png --sweep Bright --frames 1 --out new.png"), &["--frames", "at least 2, got 1"]),
        (
            format!("{change} photos/007.png --sweep Bright --frames 100000000 --out new.png"),
            &["100000000 images", "at most"],
        ),
        (format!("{change} nowhere.png --set Bright=1 --out new.png"), &["nowhere.png"]),
        (format!("{change} labels.csv --set Bright=1 --out new.png"), &["labels.csv"]),
        (
            "manipulate --model classes photos/007.png --class 0 --set Bright=1 --out new.png".into(),
            &["directions.safetensors", "glowflow attributes"],
        ),
        (
            "manipulate --model classes --directions directions photos/007.png --class 0 --set Bright=1 --out new.png"
                .into(),
            &["directions", "another model"],
        ),
        ("resample --model plain photos/007.png --levels 3 --out new.png".into(), &["3 of 2 levels"]),
        ("resample --model plain photos/007.png --temperature -1 --out new.png".into(), &["temperature -1"]),
        ("resample --model classes photos/007.png --out new.png".into(), &["2 classes", "--class 0 to 1"]),
        ("nearest --model plain photos/007.png --data photos --skip-levels 2".into(), &["--skip-levels must be at most 1", "got 2"]),
        ("nearest --model plain photos/007.png --data photos --level-weights 1".into(), &["1 weights", "2 levels"]),
        ("nearest --model plain photos/007.png --data photos --level-weights 0,0".into(), &["[0.0, 0.0]"]),
        (format!("{change} photos --set Bright=1 --out new.png"), &["photos", "--out-dir"]),
        (format!("{change} photos/007.png photos/008.png --set Bright=1"), &["2 pictures", "--out-dir"]),
        (format!("{change} photos/007.png --set Bright=1 --out new.png --out-dir new"), &["--out-dir"]),
        ("nearest --model plain photos/007.png --data nowhere".into(), &["nowhere"]),
        ("sample --model plain --temperatures 0.5,-1 --out new.png".into(), &["temperature -1"]),
        ("serve --model nowhere".into(), &["nowhere"]),
        ("serve --model plain --directions labels.csv".into(), &["labels.csv", "not a safetensors file"]),
        ("serve --model classes --directions directions".into(), &["directions", "another model"]),
        ("serve --model plain --eyes 0.1,0.2".into(), &["--eyes"]),
    ] {
        let outcome = run(world, &line);
        assert!(matches!(outcome.code, Some(1 | 2)), "{line}: {outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{line}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{line}: {}", outcome.stderr);
    }
    assert!(!world.join("new.png").exists() && !world.join("new").exists());
}
