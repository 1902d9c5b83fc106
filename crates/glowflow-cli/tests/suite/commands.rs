//! Each command on small trained models: printed output and written files.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use crate::common::{self, TINY, command, read_image, run, save_classes, save_image};
use image::{AnimationDecoder, RgbImage};

/// A folder with trained models (`plain`, `five` of 5 bits, `classes` of two classes), images with classes
/// (`images`) and without (`flat`).
struct World {
    folder: PathBuf,
    /// The images in `images`.
    names: Vec<String>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("commands");
        let names = save_classes(&folder.join("images"));
        (0..3).for_each(|i| save_image(&folder.join(format!("flat/{i}.png")), 50 + i));
        let train = |arguments: &str| run(&folder, &format!("train {TINY} --steps 30 {arguments}")).ok();
        train("--data portraits --out plain");
        train("--data images --out five --set model.bits=5");
        train("--data images --out classes --set model.classes=2");
        World { folder, names }
    })
}

/// Runs a command in that folder.
#[track_caller]
fn ok(line: &str) -> common::Outcome {
    run(&world().folder, line).ok()
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(world().folder.join(name)).unwrap()
}

/// The lines of a CSV file as fields, none of which needs quotes.
fn fields(csv: &str) -> Vec<Vec<String>> {
    csv.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The columns of `image,log_likelihood,bits_per_dim[,label],dequantization,draws,bound`, after checking the
/// header.
struct Scores {
    images: Vec<String>,
    bits_per_dim: Vec<f64>,
    labels: Option<Vec<String>>,
}

#[track_caller]
fn scores(csv: &str) -> Scores {
    let mut rows = fields(csv);
    let header = rows.remove(0).join(",");
    let labelled = header == "image,log_likelihood,bits_per_dim,label,dequantization,draws,bound";
    assert!(labelled || header == "image,log_likelihood,bits_per_dim,dequantization,draws,bound", "{header}");
    for row in &rows {
        let [log_likelihood, bits]: [f64; 2] = [1, 2].map(|i| row[i].parse().unwrap());
        let expected = -log_likelihood / (16.0 * 16.0 * 3.0 * std::f64::consts::LN_2);
        assert!((bits - expected).abs() < 1e-9, "{row:?}");
    }
    let column = |i: usize| rows.iter().map(|row| row[i].clone()).collect::<Vec<_>>();
    Scores {
        images: column(0),
        bits_per_dim: column(2).iter().map(|bits| bits.parse().unwrap()).collect(),
        labels: labelled.then(|| column(3)),
    }
}

/// Encodes and decodes `images`; asserts that every pixel equals `expected` of the original.
#[track_caller]
fn there_and_back(model: &str, expected: fn(u8) -> u8) {
    let World { folder, names } = world();
    let count = ok(&format!("encode --model {model} --data images --out {model}.latents --json")).json();
    assert_eq!(count["images"], 12);
    ok(&format!("decode --model {model} --latents {model}.latents --out-dir {model}.decoded"));
    for name in names {
        let original = read_image(&folder.join("images").join(name));
        let decoded = read_image(&folder.join(format!("{model}.decoded/{name}")));
        assert_eq!(decoded.dimensions(), (16, 16));
        let expected: Vec<u8> = original.as_raw().iter().map(|&pixel| expected(pixel)).collect();
        assert!(*decoded.as_raw() == expected, "{name} comes back with other pixels from {model}");
    }
}

#[test]
fn decoding_restores_every_pixel() {
    there_and_back("plain", |pixel| pixel);
    there_and_back("classes", |pixel| pixel);
}

#[test]
fn five_bits_decode_to_multiples_of_eight() {
    there_and_back("five", |pixel| pixel / 8 * 8);
}

#[test]
fn one_label_can_apply_to_all_images() {
    ok("encode --model classes --data flat --class 1 --out flat.latents");
    ok("decode --model classes --latents flat.latents --out-dir flat.decoded");
    for name in ["0.png", "1.png", "2.png"] {
        let folder = &world().folder;
        assert_eq!(
            read_image(&folder.join("flat").join(name)),
            read_image(&folder.join(format!("flat.decoded/{name}")))
        );
    }
    // The likelihoods depend on the label, although the pixels do not.
    let by = |label| {
        ok(&format!("score --model classes --data flat --dequantization midpoint --class {label}")).stdout
    };
    let (first, second) = (scores(&by(0)), scores(&by(1)));
    assert_eq!(first.labels.unwrap(), ["0"; 3]);
    assert_eq!(second.labels.unwrap(), ["1"; 3]);
    assert_ne!(first.bits_per_dim, second.bits_per_dim);
}

#[test]
fn scores_are_csv() {
    let World { names, .. } = world();
    let line = "score --model plain --data images --dequantization midpoint";
    let printed = ok(&format!("{line} --csv -")).stdout;
    let scored = scores(&printed);
    assert_eq!(scored.images, *names);
    assert!(scored.labels.is_none());
    assert_eq!(ok(line).stdout, printed, "the standard output is the default");
    assert_eq!(ok(&format!("{line} --csv scores.csv")).stdout, "");
    assert_eq!(bytes("scores.csv"), printed.as_bytes());

    // Evaluation reports the mean of the same values.
    let mean = scored.bits_per_dim.iter().sum::<f64>() / 12.0;
    let evaluation = ok("eval --model plain --data images --dequantization midpoint --json").json();
    assert!((evaluation["bits_per_dim"].as_f64().unwrap() - mean).abs() < 1e-9);
}

#[test]
fn scores_take_labels_from_folders() {
    let scored = scores(&ok("score --model classes --data images").stdout);
    let expected: Vec<_> =
        world().names.iter().map(|name| if name.starts_with("cat") { "0" } else { "1" }).collect();
    assert_eq!(scored.labels.unwrap(), expected);
    let named = ok("score --model classes --data images --class cat").stdout;
    assert_eq!(ok("score --model classes --data images --class 0").stdout, named);
    assert_eq!(ok("score --model classes --data images --label 0").stdout, named, "the old name of --class");
    let scored = scores(&named);
    let lines = ok("score --model classes --data images --class 0 --json").stdout;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    assert!(lines[0]["image"] == "cat/00.png" && lines[0]["bits_per_dim"].is_f64() && lines[0]["label"] == 0);
    assert_eq!(scored.labels.unwrap(), ["0"; 12]);
}

#[test]
fn noise_depends_only_on_the_seed() {
    let score = |options: &str| ok(&format!("score --model plain --data images {options}")).stdout;
    let first = score("--seed 1");
    assert_eq!(score("--seed 1 --threads 1"), first);
    assert_ne!(score("--seed 2"), first);
    assert_ne!(score("--seed 1 --draws 2"), first);
}

#[test]
fn evaluation_is_json_on_request() {
    let midpoint = "eval --model plain --data portraits --images 20 --dequantization midpoint --json";
    let first = ok(midpoint);
    let evaluation = first.json();
    assert_eq!(evaluation["images"], 20);
    for key in ["bits_per_dim", "standard_error", "inverse_error"] {
        let value = evaluation[key].as_f64().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{key} is {value}");
    }
    // Half a bin of 8 bits: with a larger error a pixel would decode to another value.
    assert!(evaluation["inverse_error"].as_f64().unwrap() < 0.5 / 256.0);
    assert_eq!(ok(&format!("{midpoint} --threads 1 --seed 0")).stdout, first.stdout);
    assert_ne!(ok(&format!("{midpoint} --seed 5")).stdout, first.stdout, "the seed draws the 20 images");
    // The same values in the text output.
    let text = ok("eval --model plain --data portraits --images 20 --dequantization midpoint").stdout;
    assert!(text.contains("bits/dim") && text.contains("20"), "{text}");
}

#[test]
fn equal_seeds_give_equal_samples() {
    let sample = |options: &str, out: &str| {
        ok(&format!("sample --model plain --count 5 {options} --out {out}"));
        bytes(out)
    };
    let first = sample("--seed 1", "one.png");
    assert!(sample("--seed 1 --threads 1", "same.png") == first);
    assert!(sample("--seed 2", "two.png") != first);
    assert!(sample("--seed 1 --temperature 1.0", "warm.png") != first);

    // Samples are independent of the count: a longer series begins with a shorter one.
    ok("sample --model plain --count 3 --seed 1 --out-dir three");
    ok("sample --model plain --count 5 --seed 1 --out-dir five.samples");
    let files = |folder: &str| {
        let mut files: Vec<_> = std::fs::read_dir(world().folder.join(folder))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        files
    };
    let (three, five) = (files("three"), files("five.samples"));
    assert_eq!((three.len(), five.len()), (3, 5));
    let pixels = |files: &[PathBuf]| files.iter().map(|file| read_image(file)).collect::<Vec<_>>();
    assert_eq!(pixels(&three), pixels(&five)[..3]);
    assert!(pixels(&five).iter().all(|image| image.dimensions() == (16, 16)));
    assert_ne!(pixels(&three)[0], pixels(&three)[1]);

    ok("sample --model plain --count 2 --temperature 0 --out-dir cold");
    let cold = pixels(&files("cold"));
    assert_eq!(cold[0], cold[1], "without spread there is only one image");
}

#[test]
fn samples_are_of_a_class() {
    let sample = |class: usize| {
        ok(&format!("sample --model classes --count 4 --class {class} --out class{class}.png"));
        bytes(&format!("class{class}.png"))
    };
    assert!(sample(0) != sample(1));
}

#[test]
fn info_describes_a_model() {
    let info = ok("info --model five --json");
    let json = info.json();
    assert_eq!(json["config"]["image"], serde_json::json!([16, 16, 3]));
    assert_eq!(json["config"]["bits"], 5);
    // The number of elements of the latents is that of the image.
    assert_eq!(json["latents"], serde_json::json!([[8, 8, 6], [4, 4, 24]]));
    assert!(json["parameters"].as_u64().unwrap() > 1000);
    // A run folder stands for its model, and the best model is a model too.
    assert_eq!(ok("info --model five/model.safetensors --json").stdout, info.stdout);
    ok("info --model plain/best.safetensors");
    let text = ok("info --model classes").stdout;
    assert!(text.contains("16×16×3") && text.contains("classes      2: cat, dog"), "{text}");
}

#[test]
fn every_score_carries_its_label() {
    let importance = "importance-weighted bound, k = 3, uniform noise";
    for (options, noise, draws, bound, label) in [
        ("--draws 2", "uniform", 2, "uniform", "uniform bound (2 draws)"),
        ("--importance 3", "uniform", 3, "importance-weighted", importance),
        ("--dequantization midpoint", "midpoint", 1, "none", "density at bin centre, not a bound"),
    ] {
        let text = ok(&format!("eval --model plain --data images {options}")).stdout;
        assert!(text.contains("bits/dim") && text.contains(label), "{text}");
        let json = ok(&format!("eval --model plain --data images {options} --json")).json();
        let csv = fields(&ok(&format!("score --model plain --data images {options}")).stdout);
        let known = [noise, &draws.to_string(), bound];
        assert!(csv[1..].iter().all(|row| row[3..6] == known), "{csv:?}");
        let lines = ok(&format!("score --model plain --data images {options} --json")).stdout;
        let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        for json in [json, line] {
            assert!(json["dequantization"] == noise && json["draws"] == draws, "{json}");
            let k = if bound == "importance-weighted" { draws.into() } else { serde_json::Value::Null };
            assert!(json["bound"] == bound && json["importance"] == k, "{json}");
        }
    }
}

#[test]
fn an_importance_weighted_bound_falls_with_its_draws() {
    let bits = |options: &str| {
        let json = ok(&format!("eval --model plain --data images --invert 0 --json {options}")).json();
        json["bits_per_dim"].as_f64().unwrap()
    };
    assert_eq!(bits("--importance 1"), bits(""));
    assert!(bits("--importance 16") < bits("--draws 16"));
    for (options, words) in [
        ("--importance 0", "\"0\" is not a number of draws: give 1 to 1000000"),
        ("--importance ten", "\"ten\" is not a number of draws"),
        ("--importance 2 --draws 2", "cannot be used with"),
        ("--importance 2 --dequantization midpoint", "omit --dequantization midpoint"),
    ] {
        for command in ["eval", "score"] {
            let outcome = run(&world().folder, &format!("{command} --model plain --data images {options}"));
            assert_ne!(outcome.code, Some(0), "{outcome:?}");
            assert!(outcome.stderr.contains(words), "{options}: {outcome:?}");
        }
    }
}

/// `info` shows a run's training; for a model file alone it shows only the contents of the file.
#[test]
fn info_shows_the_training_of_a_run() {
    let info = ok("info --model plain --json").json();
    let (trained, test) = (&info["run"], &info["run"]["test"]);
    assert!(trained["steps"].as_u64().unwrap() > 0 && trained["batch"] == 4, "{info}");
    assert!(test["bits_per_dim"].is_f64() && test["dequantization"] == "uniform", "{info}");
    assert!(trained["images"].is_u64() && trained["data"].is_string(), "{info}");
    assert!(trained["precision"].is_string() && trained["backprop"] == "reversible", "{info}");
    // The built-in portraits include their eye positions.
    assert!(info["faces"] == true && info["eyes"].is_array() && info["directions"].is_null(), "{info}");
    assert!(info["files"][0]["bytes"].as_u64().unwrap() > 1000, "{info}");
    let text = ok("info --model plain").stdout;
    for words in ["trained  ", "bits/dim, uniform bound (1 draw), at step", "precision  ", "fingerprint  "] {
        assert!(text.contains(words), "{words} is not in {text}");
    }

    // A published model has a card instead of the run's other files.
    let published = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json"] {
        std::fs::copy(world().folder.join("plain").join(name), published.path().join(name)).unwrap();
    }
    let json = run(published.path(), "info --model . --json").ok().json();
    for key in ["steps", "batch", "test", "images", "precision", "backprop"] {
        assert_eq!(json["run"][key], info["run"][key], "{key}");
    }
    // The card describes this file alone.
    std::fs::copy(published.path().join("model.safetensors"), published.path().join("other.safetensors"))
        .unwrap();
    assert!(run(published.path(), "info --model other.safetensors --json").ok().json()["run"].is_null());

    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("alone.safetensors");
    std::fs::copy(world().folder.join("plain/model.safetensors"), &alone).unwrap();
    let json = run(folder.path(), "info --model alone.safetensors --json").ok().json();
    assert!(json["run"].is_null() && json["fingerprint"] == info["fingerprint"], "{json}");
    run(folder.path(), "info --model alone.safetensors").ok();
    std::fs::write(folder.path().join("alone.eyes.toml"), "left = [0.3, 0.4]\nright = [0.7, 0.4]\n").unwrap();
    let json = run(folder.path(), "info --model alone.safetensors --json").ok().json();
    assert!(json["faces"] == true && json["eyes"] == serde_json::json!([[0.3, 0.4], [0.7, 0.4]]), "{json}");
}

#[test]
fn every_command_shows_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        "quickstart",
        "train",
        "eval",
        "score",
        "sample",
        "encode",
        "decode",
        "info",
        "bench",
        "study",
        "interpolate",
        "attributes",
        "manipulate",
        "resample",
        "nearest",
        "serve",
    ];
    let help = run(folder.path(), "--help").ok().stdout;
    for name in commands {
        assert!(help.contains(name), "{name} is not in {help}");
        let help = run(folder.path(), &format!("{name} --help")).ok().stdout;
        assert!(help.contains("Example") && help.contains(&format!("glowflow {name}")), "{help}");
    }
    assert!(run(folder.path(), "--version").ok().stdout.starts_with("glowflow "));
}

/// A run without `--out` gets a default folder, and a short one prints what to expect.
#[test]
fn a_run_without_a_name_gets_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["run", "run-2"] {
        let line = format!("train --data portraits {TINY} --steps 2 --minutes 5");
        let outcome = run(folder.path(), &line).ok();
        assert!(outcome.stderr.contains(&format!("folder {name}\n")), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("rough after 5 minutes of training"), "{}", outcome.stderr);
        assert!(folder.path().join(name).join("model.safetensors").is_file());
    }
    let outcome = run(folder.path(), &format!("train --data portraits --out named {TINY} --steps 2")).ok();
    assert!(!outcome.stderr.contains("rough"), "{}", outcome.stderr);
}

/// Concurrent runs get distinct folders, and one that cannot start leaves none.
#[test]
fn concurrent_unnamed_runs_get_distinct_folders() {
    let folder = tempfile::tempdir().unwrap();
    assert_ne!(run(folder.path(), &format!("train --data missing {TINY}")).code, Some(0));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "a folder is left");
    let line = format!("train --data portraits {TINY} --steps 2");
    let children = [(); 3].map(|()| common::command(folder.path(), &line).spawn().unwrap());
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for name in ["run", "run-2", "run-3"] {
        assert!(folder.path().join(name).join("model.safetensors").is_file(), "{name}");
    }
}

/// A terminal that cannot redraw a line gets separate lines.
#[test]
#[cfg(target_os = "linux")]
fn progress_is_shown_on_any_terminal() {
    for (term, bar) in [(Some("dumb"), false), (None, false), (Some("xterm"), true)] {
        let folder = tempfile::tempdir().unwrap();
        let train = format!("train --data portraits --out run {TINY} --steps 30");
        let program = env!("CARGO_BIN_EXE_glowflow");
        // `script` provides a terminal.
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &format!("{program} {train}"), "/dev/null"]).current_dir(folder.path());
        command.env("GLOWFLOW_DEVICE", "cpu").env_remove("TERM").stdin(Stdio::null());
        term.into_iter().for_each(|term| _ = command.env("TERM", term));
        let Ok(output) = command.output() else {
            eprintln!("skipped: there is no script(1)");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("step 30/30"), "{term:?}: {text}");
        assert_eq!(text.contains('\u{1b}'), bar, "{term:?}: {text}");
    }
}

/// A closed pipe, for example by `head`, must not cause a panic.
#[test]
fn a_closed_pipe_is_not_a_failure() {
    for line in ["info --model plain", "info --model plain --json", "score --model plain --data images"] {
        let mut child =
            command(&world().folder, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn bench_answers_requests() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |requests: &str| {
        let mut child = command(folder.path(), &format!("bench {TINY} --serve"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = serve("train 1\nsample 2\ntrain 0\n");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let counts = stdout.lines().map(|line| {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap();
        let seconds = answer["seconds"].as_array().unwrap().clone();
        assert!(seconds.iter().all(|seconds| seconds.as_f64().unwrap() > 0.0), "{line}");
        seconds.len()
    });
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2, 0]);

    let output = serve("dance 1\n");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("dance 1"), "{output:?}");
}

#[test]
fn bench_measures_time_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let times = run(folder.path(), &format!("bench {TINY} --repeat 1 --json")).ok().json();
    assert_eq!(times["batch"], 4);
    assert!(times["train_step_seconds"].as_f64().unwrap() > 0.0);
    assert!(times["sample_batch_seconds"].as_f64().unwrap() > 0.0);
    let memory = run(folder.path(), &format!("bench {TINY} --memory")).ok().json();
    assert!(memory["state_bytes"].as_u64().unwrap() > 0);
    if cfg!(target_os = "linux") {
        assert!(memory["peak_rss"].as_u64().unwrap() > memory["state_bytes"].as_u64().unwrap());
    }
}

/// In reversible training, additional depth takes memory only for weights and their optimiser state.
#[test]
#[cfg(target_os = "linux")]
fn reversible_training_memory_does_not_grow_with_depth() {
    let folder = tempfile::tempdir().unwrap();
    let beyond_state = |steps: usize| {
        let line = format!(
            "bench --memory --threads 2 --backprop reversible --set model.image=[32,32,3] --set model.levels=2 \
             --set model.hidden=128 --set train.batch=8 --set model.steps={steps}"
        );
        // Freed memory is returned to the system immediately, so that the peak measures memory in use.
        let output = command(folder.path(), &line).env("MALLOC_MMAP_THRESHOLD_", "131072").output().unwrap();
        let memory: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        memory["peak_rss"].as_f64().unwrap() - memory["state_bytes"].as_f64().unwrap()
    };
    let (shallow, deep) = (beyond_state(2), beyond_state(32));
    assert!(deep < 1.1 * shallow, "{deep} bytes for 32 steps a level, {shallow} for 2");
}

#[test]
fn interpolate_walks_from_image_to_image() {
    let name = &world().folder.join("walk");
    std::fs::create_dir_all(name).unwrap();
    ok("interpolate --model plain flat/0.png flat/1.png flat/2.png --frames 4 --out walk/strip.png");
    // Four frames per pair, scaled by up to eight, two pixels apart; the ends are the images themselves.
    let strip = read_image(&name.join("strip.png"));
    let side = (strip.width() - 3 * 2) / 4;
    assert_eq!(strip.dimensions(), (4 * side + 3 * 2, 2 * side + 2));
    for (image, column, row) in [(0, 0, 0), (1, 3, 0), (1, 0, 1), (2, 3, 1)] {
        let original = read_image(&world().folder.join(format!("flat/{image}.png")));
        for (x, y, pixel) in original.enumerate_pixels() {
            let scale = side / original.width();
            let at = (column * (side + 2) + x * scale, row * (side + 2) + y * scale);
            assert_eq!(strip.get_pixel(at.0, at.1), pixel, "image {image}, pixel {x}, {y}");
        }
    }

    // A closed path through both images, in every animation format.
    ok("interpolate --model plain flat/0.png flat/1.png --frames 3 --path spherical --out walk/loop.gif");
    ok("interpolate --model plain flat/0.png flat/1.png --frames 3 --path spherical --out walk/loop.apng");
    let gif = image::codecs::gif::GifDecoder::new(std::io::Cursor::new(bytes("walk/loop.gif"))).unwrap();
    assert_eq!(gif.into_frames().collect_frames().unwrap().len(), 6);
    let png = image::codecs::png::PngDecoder::new(std::io::Cursor::new(bytes("walk/loop.apng"))).unwrap();
    let frames = png.apng().unwrap().into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 6);
    let first = image::DynamicImage::from(frames[0].buffer().clone()).to_rgb8();
    assert_eq!(first.get_pixel(0, 0), read_image(&world().folder.join("flat/0.png")).get_pixel(0, 0));

    let error = run(&world().folder, "interpolate --model plain flat/0.png missing.png --out walk/x.png");
    assert!(error.code != Some(0) && error.stderr.contains("missing.png"), "{error:?}");
}

#[test]
fn quickstart_writes_a_model_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let text = run(folder.path(), "quickstart --minutes 0.05").ok().stdout;
    let run_folder = folder.path().join("quickstart");
    for name in ["samples.png", "reconstructions.png", "interpolation.png", "attributes.png", "curve.png"] {
        let picture = read_image(&run_folder.join(name));
        assert!(colours(&picture) > 20, "{name} shows next to nothing");
        assert!(text.contains(&path_text(&Path::new("quickstart").join(name))), "{text}");
    }
    run(folder.path(), "info --model quickstart").ok();
    // The output contains the command that opens the demo.
    assert!(text.contains("serve --model quickstart"), "{text}");
    run(
        folder.path(),
        "manipulate --model quickstart quickstart/samples.png --set Smiling=1 --out smile.png",
    )
    .ok();

    // The portraits, and below them their decoded latents: equal up to the 3 dropped bits.
    let picture = read_image(&run_folder.join("reconstructions.png"));
    let (width, height) = picture.dimensions();
    let row = (height - 2) / 2; // with a gap of two pixels between the rows
    let half = |top: u32| image::imageops::crop_imm(&picture, 0, top, width, row).to_image().into_raw();
    let (above, below) = (half(0), half(row + 2));
    let most = above.iter().zip(&below).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(most < 8, "a reconstruction differs from its portrait by {most}");

    // A second run gets a new folder.
    run(folder.path(), "quickstart --minutes 0.001 --seed 1").ok();
    run(folder.path(), "info --model quickstart-2").ok();
}

fn colours(picture: &RgbImage) -> usize {
    picture.pixels().collect::<HashSet<_>>().len()
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
