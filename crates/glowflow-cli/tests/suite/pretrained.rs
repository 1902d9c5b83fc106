//! The bundled model: every command works with its name alone.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{self, TINY, command, read_image, run};
use serde_json::Value;

/// An empty folder with two samples of the model, `samples/00000.png` and `samples/00001.png`.
fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("pretrained");
        run(&folder, "sample --model portraits --count 2 --seed 3 --out-dir samples").ok();
        folder
    })
}

fn ok(line: &str) -> common::Outcome {
    run(world(), line).ok()
}

#[test]
fn samples_are_those_of_its_beginning() {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("../glowflow/pretrained/portraits/sample.png");
    let (drawn, pinned) = (read_image(&world().join("samples/00000.png")), read_image(&pinned));
    // CPUs round differently.
    let differences = drawn.as_raw().iter().zip(pinned.as_raw()).filter(|(a, b)| a != b).count();
    assert!(differences <= 12, "{differences}");
}

#[test]
fn pictures_are_changed_and_mixed() {
    ok("manipulate --model portraits samples/00000.png --no-align --set Blond_Hair=1 --out blond.png");
    ok(
        "manipulate --model portraits samples/00000.png --no-align --sweep Smiling --frames 5 --out sweep.png",
    );
    ok(
        "interpolate --model portraits samples/00000.png samples/00001.png --no-align --frames 5 --out walk.png",
    );
    ok("resample --model portraits samples/00000.png --no-align --out details.png");
    let before = read_image(&world().join("samples/00000.png"));
    assert!(read_image(&world().join("blond.png")) != before);
    assert!(read_image(&world().join("walk.png")).width() > 4 * 64);
}

#[test]
fn latents_decode_to_the_same_pixels() {
    ok("encode --model portraits --data samples --out latents.safetensors");
    ok("decode --model portraits --latents latents.safetensors --out-dir decoded");
    for name in ["00000.png", "00001.png"] {
        let read = |folder: &str| read_image(&world().join(folder).join(name));
        assert!(read("samples") == read("decoded"), "{name}");
    }
}

#[test]
fn it_is_scored_and_described() {
    let scores = ok("score --model portraits --data samples --json").stdout;
    assert_eq!(scores.lines().count(), 2);
    let info = ok("info --model portraits --json").json();
    assert_eq!(info["directions"].as_array().unwrap().len(), 6);
    assert_eq!(info["run"]["data"], "portraits");
    assert!(info["run"]["steps"].as_u64().unwrap() > 0 && info["run"]["test"]["bits_per_dim"].is_number());
    assert!(info["files"].as_array().unwrap().len() >= 2 && info["eyes"].is_array());
    let text = ok("info --model portraits").stdout;
    for part in ["Smiling", "portraits/model.safetensors", "uniform bound (1 draw)"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn it_can_be_fine_tuned() {
    ok(
        "train --from portraits --data portraits --set train.batch=2 --set train.eval_images=4 --steps 1 --out tuned",
    );
    let info = ok("info --model tuned --json").json();
    assert_eq!(info["config"]["coupling"], "additive");
    ok("train --resume tuned --steps 2");
}

#[test]
fn its_directions_are_not_replaced() {
    for line in ["", " --out d.safetensors --eyes 0.4,0.5,0.6,0.5"] {
        let outcome =
            run(world(), &format!("attributes --model portraits --data portraits --images 50{line}"));
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        assert!(outcome.stderr.contains("is included in the program") && outcome.stderr.contains("--out"));
    }
    assert!(!world().join("portraits").exists());
}

#[test]
fn a_path_of_its_name_takes_precedence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, &format!("train --data portraits --steps 1 --out other {TINY}")).ok();
    std::fs::rename(folder.join("other"), folder.join("portraits")).unwrap();
    run(folder, "sample --model portraits --count 1 --out-dir samples").ok();
    assert_eq!(read_image(&folder.join("samples/00000.png")).dimensions(), (16, 16));

    // A folder of images.
    std::fs::remove_dir_all(folder.join("portraits")).unwrap();
    std::fs::rename(folder.join("samples"), folder.join("portraits")).unwrap();
    let outcome = run(folder, "sample --model portraits --count 1 --out x.png");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("hides the model of that name"), "{outcome:#?}");
}

#[test]
fn serve_without_a_model_shows_it_at_once() {
    // The shortest of three measurements, because other tests run concurrently.
    let mut times = vec![];
    for _ in 0..3 {
        let began = Instant::now();
        let mut server =
            command(world(), "serve --port 0").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url =
            line.split_whitespace().find(|word| word.starts_with("http")).unwrap().trim_end_matches('/');
        let get =
            |path: &str| ureq::get(format!("{url}/{path}")).call().unwrap().body_mut().read_to_vec().unwrap();
        let page = get("");
        times.push(began.elapsed());
        let info: Value = serde_json::from_slice(&get("api/v1/info")).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(String::from_utf8_lossy(&page).contains("<html"));
        assert_eq!(info["attributes"].as_array().map(Vec::len), Some(6), "{info}");
        assert!(
            info["evaluation"]["bits_per_dim"].is_number() && info["trained"]["steps"].is_number(),
            "{info}"
        );
    }
    let least = times.into_iter().min().unwrap();
    eprintln!("the first answer after {least:?}");
    assert!(least < Duration::from_secs(1), "the first answer after {least:?}");
}
