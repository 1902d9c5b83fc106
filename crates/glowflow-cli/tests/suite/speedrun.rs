//! Studies that compare configurations with a baseline: calibration, scores, multipliers, stops, and added
//! configurations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{self, command, run};
use crate::study::{STUDY, folder, read};
use serde_json::Value;

const TINY: &str = r#"
name = "tiny"
seeds = [0, 3]
steps = 60
evaluations = 2
curve = [0.5, 1, 2]
score_images = 20

[base]
data = { path = "portraits" }

[base.model]
image = [16, 16, 3]
levels = 2
steps = 2
hidden = 8

[base.train]
batch = 4
schedule = "cosine"
warmup = 5
ema = 0.9
lr = 5e-3
eval_images = 8
log_every = 1
checkpoint_every = 20

[[configurations]]
name = "glow"

[[configurations]]
name = "wide"
model = { hidden = 24 }
"#;

/// The folder of an uninterrupted study, and its results.
fn reference() -> &'static (PathBuf, Value) {
    static REFERENCE: OnceLock<(PathBuf, Value)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let folder = common::shared_folder("speedrun");
        std::fs::write(folder.join("tiny.toml"), TINY).unwrap();
        let results = run(&folder, &format!("{STUDY} --json")).ok().json();
        (folder, results)
    })
}

/// Bits/dim per image of a run.
fn scores(folder: &Path, name: &str) -> BTreeMap<usize, f64> {
    let text = read(&folder.join("out").join(name).join("scores.csv"));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("index,bits_per_dim"));
    lines
        .map(|line| line.split_once(',').unwrap())
        .map(|(i, b)| (i.parse().unwrap(), b.parse().unwrap()))
        .collect()
}

fn record(folder: &Path, name: &str) -> Value {
    serde_json::from_str(&read(&folder.join("out").join(name).join("study.json"))).unwrap()
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[track_caller]
fn assert_close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9 * b.abs().max(1e-3), "{a} {b}");
}

#[test]
fn differences_are_those_of_the_images_scores() {
    let (folder, results) = reference();
    let [glow, wide] = [0, 1].map(|index| &results["comparison"]["configurations"][index]);
    let of = |name: &str| ["seed-0", "seed-3"].map(|seed| scores(folder, &format!("{name}/{seed}")));
    let ([a0, a3], [b0, b3]) = (of("glow"), of("wide"));
    assert!(a0.len() == 20 && a0.keys().eq(b3.keys()), "{a0:?}");
    assert_close(
        number(&glow["bits_per_dim"]),
        mean([&a0, &a3].map(|s| mean(s.values().copied())).into_iter()),
    );
    assert_eq!(glow["label"], "uniform bound (1 draw)");
    assert!(glow["difference"].is_null() && glow["time_multiplier"].is_null(), "{glow}");

    let paired = &wide["difference"];
    let images: Vec<f64> = a0.keys().map(|i| (b0[i] - a0[i] + b3[i] - a3[i]) / 2.0).collect();
    let expected = mean(images.iter().copied());
    assert_close(number(&paired["mean"]), expected);
    let squares: f64 = images.iter().map(|x| (x - expected).powi(2)).sum();
    assert_close(number(&paired["error_over_images"]), (squares / 19.0 / 20.0).sqrt());
    let seeds = [(&b0, &a0), (&b3, &a3)].map(|(b, a)| mean(b.values().copied()) - mean(a.values().copied()));
    assert_close(number(&paired["error_over_seeds"]), (seeds[0] - seeds[1]).abs() / 2.0);

    // The model is scored as by `eval`.
    let bits = number(&record(folder, "wide/seed-3")["score"]["bits_per_dim"]);
    assert_close(bits, mean(b3.values().copied()));
    let line = "eval --model out/wide/seed-3 --data portraits --images 20 --invert 20 --seed 0 --json";
    assert_close(number(&run(folder, line).ok().json()["bits_per_dim"]), bits);
    assert_eq!((&wide["inverted"], &wide["exact"]), (&40.into(), &40.into()));
    assert!(number(&wide["inverse_error"]) < 1e-3, "{wide}");
    if cfg!(target_os = "linux") {
        assert!(number(&wide["peak_memory"]) > 1e6, "{wide}");
    }
}

#[test]
fn multipliers_are_read_off_the_baselines_curve() {
    let (folder, results) = reference();
    let comparison = &results["comparison"];
    let wide = &comparison["configurations"][1];
    let curve = comparison["curve"].as_array().unwrap();
    let multiples: Vec<_> = curve.iter().map(|point| number(&point["multiple"])).collect();
    assert_eq!(multiples, [0.5, 1.0, 2.0]);
    assert_eq!(curve.iter().map(|point| point["seeds"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 1]);
    for (point, (name, images)) in
        curve.iter().zip([("glow/seed-0-x0.5", 120.0), ("", 240.0), ("glow/seed-0-x2", 480.0)])
    {
        let per_image = number(&comparison["configurations"][0]["training_flops"]) / 240.0;
        assert_close(number(&point["training_flops"]), per_image * images);
        if !name.is_empty() {
            assert_close(number(&point["bits_per_dim"]), mean(scores(folder, name).values().copied()));
        }
    }
    assert_multipliers(comparison, number(&wide["bits_per_dim"]));
    let run = record(folder, "wide/seed-0");
    assert!(number(&wide["seconds"]) > 0.0 && number(&run["seconds"]) > 0.0, "{run}");
}

/// Checks the multipliers of the second configuration, given the bits/dim at which the curve is read.
#[track_caller]
fn assert_multipliers(comparison: &Value, bits: f64) {
    let wide = &comparison["configurations"][1];
    let curve = comparison["curve"].as_array().unwrap();
    for (multiplier, cost) in [("time_multiplier", "seconds"), ("flops_multiplier", "training_flops")] {
        let own = number(&wide[cost]);
        let points: Vec<_> =
            curve.iter().map(|point| (number(&point[cost]), number(&point["bits_per_dim"]))).collect();
        let reached = points.iter().position(|point| point.1 <= bits);
        let (relation, expected) = match reached {
            Some(0) if bits < points[0].1 => ("equal", points[0].0),
            _ if bits > points[0].1 => ("below", points[0].0),
            None => ("above", points[2].0),
            Some(at) => {
                let ((c0, b0), (c1, b1)) = (points[at.max(1) - 1], points[at.max(1)]);
                ("equal", c0 * (c1 / c0).powf((b0 - bits) / (b0 - b1)))
            }
        };
        assert_close(number(&wide[multiplier][relation]), expected / own);
    }
}

#[test]
fn a_configuration_with_fewer_seeds_than_the_baseline_is_compared_by_its_difference() {
    let folder = folder(TINY);
    run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    let outcome = run(folder.path(), &format!("{STUDY} --seeds 0,3 --arms glow --json")).ok();
    assert!(outcome.stderr.contains("added to the study in out: seed 3"), "{outcome:?}");
    let comparison = &outcome.json()["comparison"];
    let wide = &comparison["configurations"][1];
    assert_eq!((&comparison["configurations"][0]["seeds"], &wide["seeds"]), (&2.into(), &1.into()));
    let baseline = &reference().1["comparison"]["configurations"][0]["bits_per_dim"];
    assert_close(number(&comparison["curve"][1]["bits_per_dim"]), number(baseline));
    assert_multipliers(comparison, number(baseline) + number(&wide["difference"]["mean"]));
}

#[test]
fn the_comparison_is_written_as_tables() {
    let (folder, results) = reference();
    let table = read(&folder.join("out/study.md"));
    for words in [
        "## Compared with glow",
        "uniform bound (1 draw) of 20 held-out images",
        "| glow trained for | minutes | FLOPs | bits/dim | seeds |",
        "| × 0.5 |",
        "| × 2 |",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    let wide = &results["comparison"]["configurations"][1];
    let row = format!("| wide | {:.4} ± ", number(&wide["bits_per_dim"]));
    assert!(table.contains(&row), "{row}: {table}");
    let csv = read(&folder.join("out/study.comparison.csv"));
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), rows[0][0], rows[2][0]), (3, "configuration", "wide"));
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let column = rows[0].iter().position(|name| *name == "difference").unwrap();
    assert_close(rows[2][column].parse().unwrap(), number(&wide["difference"]["mean"]));
    // Evaluations are those of the plain budget.
    assert_eq!(read(&folder.join("out/study.csv")).lines().count(), 1 + 2 * 2 * 2);
    assert_eq!((&results["finished"], &results["runs"]), (&6.into(), &6.into()));
}

#[test]
#[cfg(unix)]
fn a_stopped_comparison_continues_to_the_same_scores() {
    let folder = folder(TINY);
    let at = |name: &str| folder.path().join("out").join(name);
    for (log, step) in [("wide/seed-0", 25), ("glow/seed-0-x2", 65)] {
        let child =
            command(folder.path(), STUDY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (began, log) = (Instant::now(), at(log).join("metrics.jsonl"));
        while !std::fs::read_to_string(&log).is_ok_and(|have| have.contains(&format!("\"step\":{step},"))) {
            assert!(began.elapsed() < Duration::from_secs(120), "step {step} does not come");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(143), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("continue with: glowflow study"),
            "{output:?}"
        );
    }
    run(folder.path(), STUDY).ok();
    for name in
        ["glow/seed-0", "wide/seed-0", "glow/seed-3", "wide/seed-3", "glow/seed-0-x0.5", "glow/seed-0-x2"]
    {
        assert_eq!(scores(folder.path(), name), scores(&reference().0, name), "{name}");
    }

    // Killed after training and before its scores.
    let (path, mut unscored) = (at("wide/seed-3/study.json"), record(folder.path(), "wide/seed-3"));
    unscored.as_object_mut().unwrap().remove("score");
    std::fs::write(&path, unscored.to_string()).unwrap();
    std::fs::remove_file(at("wide/seed-3/scores.csv")).unwrap();
    let again = run(folder.path(), STUDY).ok();
    assert!(!again.stderr.contains("bits/dim"), "nothing is trained again: {again:?}");
    assert_eq!(scores(folder.path(), "wide/seed-3"), scores(&reference().0, "wide/seed-3"));
}

/// Minutes are converted to steps, the same for all seeds; configurations added later are measured then.
#[test]
fn minutes_become_steps_by_measured_speeds() {
    let minutes = TINY.replace("steps = 60\n", "minutes = 0.01\n").replace("[0.5, 1, 2]", "[1, 2]");
    let without = minutes.split("\n[[configurations]]\nname = \"wide\"").next().unwrap();
    let folder = folder(without);
    let out = folder.path().join("out");
    run(folder.path(), STUDY).ok();
    let speeds =
        || serde_json::from_str::<BTreeMap<String, f64>>(&read(&out.join("study.speed.json"))).unwrap();
    let first = speeds();
    assert_eq!(first.len(), 1);
    let steps = |name: &str| {
        let config = read(&out.join(name).join("config.toml"));
        let train = config.split("[train]").nth(1).unwrap();
        assert!(train.contains("schedule = \"cosine\""), "{config}");
        let steps = train.lines().find_map(|line| line.strip_prefix("steps = ")).unwrap();
        steps.parse::<i64>().unwrap()
    };
    let expected =
        |name: &str, multiple: f64| (0.6 * multiple * speeds()[name] / 4.0).round().max(1.0) as i64;
    for (run, multiple) in [("glow/seed-0", 1.0), ("glow/seed-3", 1.0), ("glow/seed-0-x2", 2.0)] {
        assert_eq!(steps(run), expected("glow", multiple), "{run}");
    }
    let end = read(&out.join("glow/seed-0/metrics.jsonl"));
    let mut rates =
        end.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["learning_rate"].as_f64());
    assert!(rates.next_back().unwrap() < 1e-4, "the schedule ends with the run: {end}");

    std::fs::write(folder.path().join("tiny.toml"), &minutes).unwrap();
    let written =
        || std::fs::metadata(out.join("glow/seed-0/model.safetensors")).unwrap().modified().unwrap();
    let before = written();
    let results = run(folder.path(), &format!("{STUDY} --arms wide --json")).ok().json();
    assert_eq!(written(), before, "finished runs are kept");
    assert!(speeds()["glow"] == first["glow"] && speeds().len() == 2, "{:?}", speeds());
    assert_eq!([steps("wide/seed-0"), steps("wide/seed-3")], [expected("wide", 1.0); 2]);
    let wide = &results["comparison"]["configurations"][1];
    let trained = number(&wide["seconds"]) * number(&wide["images_per_second"]) / 4.0;
    assert_eq!(trained.round() as i64, steps("wide/seed-0"));
    assert!(wide["difference"]["mean"].is_f64() && wide["time_multiplier"].is_object(), "{wide}");
    assert!(read(&out.join("study.toml")).contains("name = \"wide\""), "the folder's study has it now");
}

/// The tables compare only uniform bounds; other bounds of a configuration are listed separately.
#[test]
fn variational_bounds_stand_apart() {
    let variational = "[[configurations]]\nname = \"learned\"\n\
        model = { dequantization = \"variational\", dequantization_hidden = 8, dequantization_channels = 4 }\n";
    let toml = TINY.replace("seeds = [0, 3]", "seeds = [0]").replace("curve = [0.5, 1, 2]", "curve = [1]");
    let folder =
        folder(&(toml.split("[[configurations]]\nname = \"wide\"").next().unwrap().to_owned() + variational));
    let outcome = run(folder.path(), &format!("{STUDY} --json")).ok();
    let results = outcome.json();
    for (name, words) in
        [("glow", "bits/dim, inverse error"), ("learned", "bits/dim (variational bound), inverse error")]
    {
        let is_line = |line: &&str| line.starts_with(name) && line.contains(": test ");
        assert!(outcome.stderr.lines().filter(is_line).all(|line| line.contains(words)), "{outcome:?}");
        assert!(outcome.stderr.lines().any(|line| is_line(&line)), "{outcome:?}");
        let log = read(&folder.path().join("out").join(name).join("seed-0/metrics.jsonl"));
        assert_eq!(log.contains("\"bound\":\"variational\""), name == "learned", "{log}");
    }
    let [glow, learned] = [0, 1].map(|index| &results["comparison"]["configurations"][index]);
    assert!(glow["variational_bits_per_dim"].is_null(), "{glow}");
    assert!(learned["label"] == glow["label"] && learned["difference"]["mean"].is_f64(), "{learned}");
    let bits = number(&learned["variational_bits_per_dim"]);
    let model = "eval --model out/learned/seed-0 --data portraits --images 20 --seed 0 --json";
    for (options, expected) in [("", bits), ("--dequantization uniform", number(&learned["bits_per_dim"]))] {
        assert_close(
            number(&run(folder.path(), &format!("{model} {options}")).ok().json()["bits_per_dim"]),
            expected,
        );
    }
    let report = read(&folder.path().join("out/study.md"));
    let line = format!("learned: {bits:.4} bits/dim, variational bound (1 draw)");
    assert!(report.contains(&line), "{line} is not in {report}");
    assert!(report.contains("uniform bound (1 draw), and variational bound (1 draw) of learned"), "{report}");
}

#[test]
#[cfg(unix)]
fn a_stop_while_speeds_are_measured_leaves_nothing() {
    let folder = folder(&TINY.replace("steps = 60\n", "minutes = 5.0\n"));
    let out = folder.path().join("out");
    let measuring = || {
        let names = std::fs::read_dir(&out).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".speed-")).count()
    };
    let child = command(folder.path(), STUDY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while measuring() == 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "nothing is measured");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("stopped after 0 of 6 runs"), "{output:?}");
    assert!(measuring() == 0 && !out.join("study.speed.json").exists() && !out.join("glow").exists());
}

#[test]
fn a_plan_counts_operations_and_time() {
    let folder = folder(TINY);
    let plan = run(folder.path(), &format!("{STUDY} --dry-run --json")).ok().json();
    let per_image = 6.0 * number(&plan["configurations"][0]["multiply_adds"]);
    assert_close(number(&plan["configurations"][0]["training_flops"]), per_image * 240.0);
    // Two seeds each; half and twice the budget for the baseline.
    let wide = number(&plan["configurations"][1]["training_flops"]);
    assert_close(number(&plan["training_flops"]), per_image * (2.0 * 240.0 + 600.0) + 2.0 * wide);
    assert!(plan["runs"] == 6 && plan["minutes"].is_null(), "{plan}");
    let text =
        run(folder.path(), &format!("{STUDY} --dry-run --minutes 2 --arms wide --curve 1,4")).ok().stdout;
    for words in [
        "5 runs",
        "2 minutes (steps from its measured speed)",
        "FLOPs per image",
        "glow also with 4 times",
        "16 minutes of training in total",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let speedrun = run(folder.path(), "study speedrun --dry-run --minutes 3").ok();
    assert!(speedrun.stdout.contains("glow also with 0.5, 2, 4, 8 times the budget"), "{speedrun:?}");
    assert!(!speedrun.stdout.contains("10 minutes") && speedrun.stderr.is_empty(), "{speedrun:?}");
    // A value that a configuration cannot have, if that is not trained.
    let exp2tanh = "study speedrun --dry-run --set model.scale=exp2tanh --arms";
    run(folder.path(), &format!("{exp2tanh} muon")).ok();
    let refused = run(folder.path(), &format!("{exp2tanh} additive"));
    assert!(refused.stderr.contains("configuration \"additive\": model.scale is exp2tanh"), "{refused:?}");
    let unread = run(folder.path(), &format!("{STUDY} --dry-run --set model.network_blocks=3")).ok();
    assert_eq!(
        unread.stderr.matches("model.network_blocks is 3, which has no effect").count(),
        1,
        "{unread:?}"
    );
    for (line, words) in [
        ("--arms narrow", "unknown configuration \"narrow\", expected one of glow, wide"),
        ("--curve 0", "curve holds 0"),
        ("--curve 5000", "curve holds 5000; multiples of the budget must be 0.001 to 1000"),
        ("--steps 9000000000000000000 --curve 2", "2 times the budget is too large"),
        ("--flops -1", "flops is -1"),
    ] {
        let outcome = run(folder.path(), &format!("{STUDY} --dry-run {line}"));
        assert!(outcome.code == Some(1) && outcome.stderr.contains(words), "{line}: {outcome:?}");
    }
    assert!(!folder.path().join("out").exists());
}
