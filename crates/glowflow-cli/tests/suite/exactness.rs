//! `encode`, `decode`, `eval` and `score` verify their guarantees, and fail if these do not hold.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{self, Outcome, read_image, run, save_image};
use glowflow::latents_file::LatentsFile;
use glowflow::{GlowConfig, ModelFile};
use image::RgbImage;

/// A folder with models (`sound`, `rough`, which inverts some images, and `overflowing`, with non-finite
/// results), and data (`patterns`, and `mixed`, some of which are unreadable).
fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("exactness");
        let config =
            GlowConfig { image: [32, 32, 3], levels: 2, steps: 4, hidden: 8, ..GlowConfig::default() };
        let model = |by: f32| {
            let mut file = ModelFile::new(config.clone(), 0).unwrap();
            for parameter in file.layout().parameters.iter().filter(|p| p.name.contains("conv3")) {
                let weights = file.weights[parameter.span.range()].iter_mut().enumerate();
                weights.for_each(|(i, w)| *w += by * ((i * 37 % 101) as f32 / 100.0 - 0.5));
            }
            file
        };
        model(0.05).write(&folder.join("sound")).unwrap();
        model(1.45).write(&folder.join("rough")).unwrap();
        let mut overflowing = model(0.0);
        overflowing.weights.fill(100.0);
        overflowing.write(&folder.join("overflowing")).unwrap();
        std::fs::create_dir(folder.join("patterns")).unwrap();
        for index in 0..12_u32 {
            let pattern = |x: u32, y: u32| {
                image::Rgb(std::array::from_fn(|c| {
                    let i = (y * 32 + x) * 3 + c as u32;
                    match index % 3 {
                        0 => 255 * ((x / (1 + index % 5)) % 2) as u8,
                        1 => (i.wrapping_mul(2_654_435_761).wrapping_add(index * 40_503) >> 7) as u8,
                        _ => (3 * x + 4 * y + index) as u8,
                    }
                }))
            };
            RgbImage::from_fn(32, 32, pattern).save(folder.join(format!("patterns/{index:02}.png"))).unwrap();
        }
        (0..5).for_each(|i| save_image(&folder.join(format!("mixed/{i}.png")), i));
        for name in ["mixed/torn.png", "mixed/worn.png"] {
            let whole = std::fs::read(folder.join("mixed/0.png")).unwrap();
            std::fs::write(folder.join(name), &whole[..100]).unwrap();
        }
        folder
    })
}

#[track_caller]
fn fails(line: &str, words: &[&str]) -> Outcome {
    let outcome = run(world(), line);
    assert_eq!(outcome.code, Some(1), "{line}: {outcome:?}");
    assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{line}: {words:?}: {}", outcome.stderr);
    assert!(outcome.stderr.lines().next_back().unwrap().starts_with("error: "), "{}", outcome.stderr);
    for word in ["null", "NaN", "inf"] {
        let words = outcome.stdout.split(|c: char| !c.is_alphanumeric());
        assert!(!words.into_iter().any(|found| found == word), "{line}: {}", outcome.stdout);
    }
    outcome
}

fn same_pixels(decoded: &str, index: usize) -> bool {
    let original = read_image(&world().join(format!("patterns/{index:02}.png")));
    read_image(&world().join(format!("{decoded}/{index:02}.png"))) == original
}

#[test]
fn images_that_do_not_decode_exactly_are_stored_as_pixels() {
    for (model, some) in [("sound", false), ("rough", true)] {
        let encoded =
            run(world(), &format!("encode --model {model} --data patterns --out {model}.latents --json"))
                .ok();
        let (images, kept) = (&encoded.json()["images"], encoded.json()["kept_as_pixels"].as_u64().unwrap());
        assert_eq!(images, 12);
        assert_eq!((1..12).contains(&kept), some, "{kept} of 12 are kept by {model}");
        assert_eq!(encoded.stderr.contains("do not invert exactly"), some, "{}", encoded.stderr);
        assert_eq!(encoded.stderr.contains(".png"), some, "{}", encoded.stderr);
        let text = run(world(), &format!("encode --model {model} --data patterns --out {model}.latents"))
            .ok()
            .stdout;
        assert_eq!(text.contains(&format!("{kept} of them kept as pixels")), some, "{text}");

        let line =
            format!("decode --model {model} --latents {model}.latents --out-dir {model}.decoded --json");
        let decoded = run(world(), &line).ok();
        assert_eq!(decoded.json(), serde_json::json!({ "images": 12, "exact": 12 }));
        let pixels: HashSet<bool> = (0..12).map(|i| same_pixels(&format!("{model}.decoded"), i)).collect();
        assert_eq!(pixels, HashSet::from([true]));
    }
}

#[test]
fn edited_latents_are_decoded_and_reported() {
    run(world(), "encode --model sound --data patterns --out edited.latents").ok();
    let path = world().join("edited.latents");
    let bytes = std::fs::read(&path).unwrap();
    let mut file = LatentsFile::read(&path).unwrap();
    file.latents.0[1].index_axis_mut(ndarray::Axis(0), 3).mapv_inplace(|z| z + 1.0);
    file.write(&path).unwrap();
    let decode = "decode --model sound --latents edited.latents --out-dir edited.decoded";
    let outcome = fails(decode, &["1 of 12 images", "03.png", "edited", "--edited"]);
    assert!(!outcome.stderr.contains("04.png"), "{}", outcome.stderr);
    assert!(!same_pixels("edited.decoded", 3) && same_pixels("edited.decoded", 4));
    run(world(), &format!("{decode} --edited")).ok();

    // Without a new checksum the file counts as damaged.
    let mut flipped = bytes;
    let last = flipped.len() - 2;
    flipped[last] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    fails(decode, &["edited.latents", "checksum does not match", "--edited"]);
    run(world(), &format!("{decode} --edited")).ok();
}

#[test]
fn pixels_that_decode_differently_are_reported() {
    run(world(), "encode --model sound --data patterns --out other.latents").ok();
    let path = world().join("other.latents");
    let mut file = LatentsFile::read(&path).unwrap();
    [2, 7].into_iter().for_each(|index| file.checksums[index].pixels ^= 1);
    file.write(&path).unwrap();
    let decode = "decode --model sound --latents other.latents --out-dir other.decoded --json";
    let outcome = fails(decode, &["2 of 12 images", "02.png, 07.png", "do not decode to the pixels"]);
    assert_eq!(outcome.json(), serde_json::json!({ "images": 12, "exact": 10 }));
    assert!(same_pixels("other.decoded", 2), "they are written all the same");
}

#[test]
fn eval_reports_the_number_of_inverted_images() {
    let eval = |options: &str| run(world(), &format!("eval --data patterns {options}")).ok();
    let text = eval("--model sound").stdout;
    assert!(text.contains("exact          12 of 12 images\n"), "{text}");
    let text = eval("--model sound --invert 5").stdout;
    assert!(text.contains("exact          5 of 5 images drawn at random\n"), "{text}");
    let json = eval("--model sound --invert 5 --json").json();
    assert_eq!((&json["images"], &json["inverted"], &json["exact"]), (&12.into(), &5.into(), &5.into()));
    let json = eval("--model rough --invert all --json").json();
    let exact = json["exact"].as_u64().unwrap();
    assert!(json["inverted"] == 12 && exact > 0 && exact < 12, "{json}");
    assert!(json["inverse_error"].as_f64().unwrap() > 0.5 / 256.0, "{json}");
    let kept = run(world(), "encode --model rough --data patterns --out counted.latents --json").ok().json();
    assert_eq!(kept["kept_as_pixels"].as_u64().unwrap(), 12 - exact, "both agree");
    let json = eval("--model sound --invert 0 --json").json();
    assert!(json["inverted"] == 0 && json["images"] == 12, "{json}");
    let outcome = run(world(), "eval --model sound --data patterns --invert some");
    assert!(outcome.code == Some(2) && outcome.stderr.contains("some"), "{outcome:?}");
}

#[test]
fn non_finite_results_are_errors() {
    let names = ["12 images", "00.png", "7 more", "not finite"];
    fails("eval --model overflowing --data patterns", &names);
    fails("eval --model overflowing --data patterns --json", &names);
    let table = fails("score --model overflowing --data patterns", &names).stdout;
    assert!(
        table.starts_with(
            "image,log_likelihood,bits_per_dim,dequantization,draws,bound\n00.png,,,uniform,1,uniform\n"
        ),
        "{table}"
    );
    let lines = fails("score --model overflowing --data patterns --json", &names).stdout;
    assert!(lines.lines().count() == 12 && lines.contains("\"error\""), "{lines}");
    fails("encode --model overflowing --data patterns --out lost.latents --json", &names);
    run(world(), "decode --model overflowing --latents lost.latents --out-dir lost.decoded").ok();
    assert!((0..12).all(|index| same_pixels("lost.decoded", index)));

    let not_finite = &["NaN or infinite"];
    fails("sample --model overflowing --count 2 --out black.png", not_finite);
    fails("sample --model overflowing --count 2 --out-dir black", not_finite);
    fails("interpolate --model overflowing patterns/00.png patterns/01.png --out black.png", not_finite);
    fails("resample --model overflowing patterns/00.png --out black.png", &["patterns/00.png", "not finite"]);
    fails(
        "nearest --model overflowing patterns/00.png --data patterns --json",
        &["patterns/00.png", "not finite"],
    );
    assert_eq!(run(world(), "sample --model sound --count 2 --out black.png").ok().stderr, "");
}

#[test]
fn non_finite_weights_are_rejected() {
    let mut model = ModelFile::read(&world().join("sound")).unwrap();
    let parameter = &model.layout().parameters[0];
    model.weights[parameter.span.range().start] = f32::NAN;
    model.write(&world().join("nan")).unwrap();
    for line in ["info --model nan", "sample --model nan --out none.png", "serve --model nan"] {
        fails(line, &["nan: ", &parameter.name, "NaN"]);
    }
}

/// Results are written, but the exit status reports that some are missing.
#[test]
fn skipped_images_must_be_accepted() {
    let out = "2 of 7 images were skipped; pass --allow-broken";
    for line in [
        "encode --model sound --data mixed --out mixed.latents --json",
        "score --model sound --data mixed --csv mixed.csv",
        "eval --model sound --data mixed --json",
    ] {
        let outcome = fails(line, &["skipped torn.png", "skipped worn.png", out]);
        assert!(!line.contains("--json") || outcome.json()["images"] == 5, "{outcome:?}");
        let outcome = run(world(), &format!("{line} --allow-broken")).ok();
        assert!(
            outcome.stderr.contains("skipped torn.png") && !outcome.stderr.contains("error"),
            "{outcome:?}"
        );
    }
    assert_eq!(LatentsFile::read(&world().join("mixed.latents")).unwrap().images.len(), 5);
    assert_eq!(std::fs::read_to_string(world().join("mixed.csv")).unwrap().lines().count(), 1 + 5);
}
