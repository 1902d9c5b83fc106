//! Files of the first releases, from before configurations named their architecture and files had checksums:
//! every command still accepts them.

use std::path::Path;

use crate::common::{read_image, run};

/// A copy of the files: a six-step run, samples of it, their latents and their scores.
fn files() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/first_format"), folder.path());
    folder
}

/// Name, log-likelihood and bits/dim of each line.
fn scores(csv: &str) -> Vec<(String, f64, f64)> {
    let line = |line: &str| {
        let mut fields = line.split(',');
        let name = fields.next().unwrap().to_owned();
        let mut number = || fields.next().unwrap().parse().unwrap();
        (name, number(), number())
    };
    csv.lines().skip(1).map(line).collect()
}

#[test]
fn an_old_model_scores_as_it_did() {
    let folder = files();
    let known = std::fs::read_to_string(folder.path().join("scores.csv")).unwrap();
    let out = run(folder.path(), "score --model run --data pictures --dequantization midpoint").ok();
    let (have, want) = (scores(&out.stdout), scores(&known));
    assert_eq!(have.len(), 3);
    for ((name, log_density, bits), want) in have.into_iter().zip(want) {
        assert_eq!(name, want.0);
        assert!((log_density - want.1).abs() < 1e-6 * want.1.abs(), "{name}: {log_density}, not {}", want.1);
        assert!((bits - want.2).abs() < 1e-6 * want.2.abs(), "{name}: {bits}, not {}", want.2);
    }
}

#[test]
fn old_latents_decode_to_their_pictures() {
    let folder = files();
    run(folder.path(), "decode --model run --latents pictures.latents --out-dir back").ok();
    for i in 0..3 {
        let [have, want] = ["back", "pictures"]
            .map(|pictures| read_image(&folder.path().join(format!("{pictures}/0000{i}.png"))));
        assert_eq!(have, want, "picture {i}");
    }
}

#[test]
fn old_directions_change_pictures() {
    let folder = files();
    run(folder.path(), "manipulate --model run pictures/00000.png --set Smiling=1 --out smile.png").ok();
    assert!(folder.path().join("smile.png").exists());
}

#[test]
fn an_old_run_continues() {
    let folder = files();
    run(folder.path(), "train --threads 2 --resume run --steps 8").ok();
    let metrics = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    assert!(metrics.lines().any(|line| line.contains("\"step\":8")), "{metrics}");
    let info = run(folder.path(), "info --model run --json").ok().json();
    assert_eq!(info["run"]["steps"], 8, "{info}");
    // A Glow's configuration still omits the architecture, so that older versions can read it.
    assert!(info["config"].get("architecture").is_none(), "{info}");
}
