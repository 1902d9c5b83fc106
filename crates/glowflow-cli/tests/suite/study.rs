//! Studies as users run them: results, kills, stops, and mistakes.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{self, Outcome, command, run};
use serde_json::Value;

const CONFIGURATIONS: [&str; 2] = ["reverse", "conv1x1"];
const SEEDS: [u64; 2] = [0, 3];
const STEPS: u64 = 200;
const BATCH: u64 = 4;

/// Two configurations, two seeds, models that train in milliseconds.
const TINY: &str = r#"
name = "tiny"
title = "Permutations, tiny"
seeds = [0, 3]
steps = 200
evaluations = 5

[base]
data = { path = "portraits" }

[base.model]
image = [16, 16, 3]
levels = 2
steps = 2
hidden = 8

[base.train]
batch = 4
eval_images = 8
log_every = 5
checkpoint_every = 20

[[configurations]]
name = "reverse"
model = { permutation = "reverse" }

[[configurations]]
name = "conv1x1"
train = { warmup = 50 }
"#;

/// Runs the study in `tiny.toml`.
pub const STUDY: &str = "study tiny.toml --threads 2 --out out";

/// A folder that contains the study.
pub fn folder(toml: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.toml"), toml).unwrap();
    folder
}

/// The folder of an uninterrupted study, and its output.
fn reference() -> &'static (PathBuf, Outcome) {
    static REFERENCE: OnceLock<(PathBuf, Outcome)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let folder = common::shared_folder("study");
        std::fs::write(folder.join("tiny.toml"), TINY).unwrap();
        let outcome = run(&folder, STUDY).ok();
        (folder, outcome)
    })
}

/// Serialises tests that use the study's folder, which only one process at a time can use.
static ALONE: Mutex<()> = Mutex::new(());

fn run_folder(folder: &Path, configuration: &str, seed: u64) -> PathBuf {
    folder.join("out").join(configuration).join(format!("seed-{seed}"))
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Step and test bits/dim of a run's evaluations, from its log.
fn evaluations(run: &Path) -> Vec<(u64, f64)> {
    let records = read(&run.join("metrics.jsonl"));
    let records = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evaluation =
        |record: Value| Some((record["step"].as_u64()?, record.get("test_bits_per_dim")?.as_f64()?));
    records.filter_map(evaluation).collect()
}

/// The training time of a run, as stored in its folder.
fn record(run: &Path) -> Value {
    serde_json::from_str(&read(&run.join("study.json"))).unwrap()
}

fn spawn(folder: &Path, line: &str) -> Child {
    command(folder, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a file contains `text`.
#[track_caller]
fn wait_for(file: &Path, text: &str) {
    let began = Instant::now();
    while !std::fs::read_to_string(file).is_ok_and(|have| have.contains(text)) {
        assert!(began.elapsed() < Duration::from_secs(120), "{text:?} does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn assert_same_results(folder: &Path) {
    let csv = |folder: &Path| read(&folder.join("out/study.csv"));
    assert_eq!(csv(folder), csv(&reference().0));
}

/// Mean and standard error of two values.
fn mean_and_error(values: [f64; 2]) -> (f64, f64) {
    let [a, b] = values;
    // √(Σ (x − mean)² / (n − 1) / n) for n = 2.
    ((a + b) / 2.0, (a - b).abs() / 2.0)
}

#[test]
fn the_csv_file_has_every_evaluation() {
    let (folder, _) = reference();
    let csv = read(&folder.join("out/study.csv"));
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("configuration,seed,step,images,test_bits_per_dim"));
    for configuration in CONFIGURATIONS {
        for seed in SEEDS {
            let evaluations = evaluations(&run_folder(folder, configuration, seed));
            let steps: Vec<u64> = evaluations.iter().map(|(step, _)| *step).collect();
            assert_eq!(steps, [40, 80, 120, 160, 200]);
            for (step, bits) in evaluations {
                let expected = format!("{configuration},{seed},{step},{},{bits}", BATCH * step);
                assert_eq!(lines.next(), Some(&*expected));
            }
        }
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn the_table_has_mean_and_standard_error() {
    let (folder, outcome) = reference();
    let table = read(&folder.join("out/study.md"));
    assert!(table.starts_with("# Permutations, tiny\n"), "{table}");
    assert!(table.contains("![Bits per dimension against images](study.png)"), "{table}");
    for configuration in CONFIGURATIONS {
        let last = SEEDS.map(|seed| evaluations(&run_folder(folder, configuration, seed)).pop().unwrap().1);
        let (mean, error) = mean_and_error(last);
        let config = run_folder(folder, configuration, 0);
        let info = run(&config, "info --model . --json").ok().json();
        let parameters = info["parameters"].as_u64().unwrap();
        let grouped = format!("{},{:03}", parameters / 1000, parameters % 1000);
        let row =
            format!("| {configuration} | {mean:.3} ± {error:.3} | 2 | {grouped} | {} | ", STEPS * BATCH);
        assert!(table.contains(&row), "{row}\n{table}");
        // The program prints the same rows.
        let row = table.lines().find(|line| line.starts_with(&row)).unwrap();
        assert!(outcome.stdout.contains(row), "{row}\n{}", outcome.stdout);
        let rate: f64 = row.trim_end_matches(" |").rsplit("| ").next().unwrap().parse().unwrap();
        let records = SEEDS.map(|seed| record(&run_folder(folder, configuration, seed)));
        let sum = |key: &str| records.iter().map(|record| record[key].as_f64().unwrap()).sum::<f64>();
        assert_eq!(sum("images"), (2 * STEPS * BATCH) as f64);
        assert!((rate - sum("images") / sum("seconds")).abs() < 1.0, "{rate} {records:?}");
    }
}

#[test]
fn the_figure_is_a_picture() {
    let (folder, _) = reference();
    let figure = common::read_image(&folder.join("out/study.png"));
    assert_eq!(figure.dimensions(), (960, 560));
    for colour in [[0, 114, 178], [213, 94, 0]] {
        let drawn = figure.pixels().filter(|pixel| pixel.0 == colour).count();
        assert!(drawn > 300, "{colour:?}: {drawn}");
    }
}

/// A legend of all names would make the figure higher.
#[test]
fn the_figure_has_only_the_trained_configurations() {
    let others = (0..30).map(|i| format!("[[configurations]]\nname = \"other-{i}\"\n"));
    let folder = folder(&format!("{TINY}\n{}", others.collect::<String>()));
    run(folder.path(), &format!("{STUDY} --arms conv1x1 --seeds 0 --steps 5")).ok();
    assert_eq!(common::read_image(&folder.path().join("out/study.png")).dimensions(), (960, 560));
}

#[test]
fn a_finished_study_trains_nothing_again() {
    let (folder, first) = reference();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let log = run_folder(folder, "reverse", 0).join("checkpoint.safetensors");
    let changed = || std::fs::metadata(&log).unwrap().modified().unwrap();
    let before = changed();
    let again = run(folder, STUDY).ok();
    assert_eq!((again.stdout, changed()), (first.stdout.clone(), before));
    assert!(!again.stderr.contains("step"), "{}", again.stderr);
    // The resolved study is a study file that gives the same study.
    let resolved = run(folder, "study out/study.toml --threads 2 --out out --json").ok().json();
    assert_eq!((&resolved["finished"], &resolved["runs"]), (&4.into(), &4.into()));
    assert_eq!(resolved["configurations"][1]["configuration"], "conv1x1");
    assert_same_results(folder);
}

#[test]
fn progress_covers_the_whole_study() {
    let (_, outcome) = reference();
    let total = 4 * STEPS * BATCH;
    assert!(outcome.stderr.contains(&format!("image {total}/{total}")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("conv1x1, seed 3 (4 of 4)"), "{}", outcome.stderr);
}

#[test]
fn a_killed_study_continues_to_the_same_results() {
    let folder = folder(TINY);
    let at = |configuration, seed| run_folder(folder.path(), configuration, seed).join("metrics.jsonl");
    // Runs are ordered by seed, then by configuration.
    for (log, step) in [(at("reverse", 0), 5), (at("conv1x1", 0), 105), (at("reverse", 3), 65)] {
        let mut child = spawn(folder.path(), STUDY);
        wait_for(&log, &format!("\"step\":{step},"));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().code(), None, "it was over before the kill");
    }
    run(folder.path(), STUDY).ok();
    assert_same_results(folder.path());
    for configuration in CONFIGURATIONS {
        for seed in SEEDS {
            let record = record(&run_folder(folder.path(), configuration, seed));
            assert_eq!(record["state"], "finished");
            let images = record["images"].as_u64().unwrap();
            // A kill after a checkpoint and before its record loses the time between two checkpoints.
            assert!((STEPS * BATCH - 2 * 20 * BATCH..=STEPS * BATCH).contains(&images), "{record}");
        }
    }
}

#[test]
#[cfg(unix)]
fn a_stopped_study_prints_how_to_continue() {
    let folder = folder(TINY);
    let child = spawn(folder.path(), STUDY);
    wait_for(&run_folder(folder.path(), "conv1x1", 0).join("metrics.jsonl"), "\"step\":25,");
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains(&format!("continue with: glowflow {STUDY}")), "{stdout}");
    assert!(stdout.contains("stopped after 1 of 4 runs"), "{stdout}");
    assert!(run_folder(folder.path(), "conv1x1", 0).join("checkpoint.safetensors").exists());
    // Partial results are written: a single seed has no standard error.
    let table = read(&folder.path().join("out/study.md"));
    let bits = evaluations(&run_folder(folder.path(), "reverse", 0)).pop().unwrap().1;
    assert!(table.contains(&format!("| reverse | {bits:.3} | 1 |")), "{table}");
    assert!(table.contains("| conv1x1 | – | 0 |"), "{table}");
    run(folder.path(), STUDY).ok();
    assert_same_results(folder.path());
}

/// A study of 1.2 s per run, killed after `step` of the first run: its file, and its folder.
fn killed_study_of_minutes(step: u64) -> (String, tempfile::TempDir) {
    let budget = "evaluate_every = 2000\nminutes = 0.02";
    let toml = TINY.replace("steps = 200\nevaluations = 5", budget).replace("[0, 3]", "[0]");
    let folder = folder(&toml);
    let mut child = spawn(folder.path(), STUDY);
    let first = run_folder(folder.path(), "reverse", 0);
    wait_for(&first.join("metrics.jsonl"), &format!("\"step\":{step},"));
    child.kill().unwrap();
    child.wait().unwrap();
    let used = record(&first)["seconds"].as_f64().unwrap();
    assert!(used > 0.0 && used < 1.2, "{used}");
    (toml, folder)
}

/// Training time before a kill counts.
#[test]
fn a_budget_of_minutes_is_training_time() {
    let (_, folder) = killed_study_of_minutes(105);
    let summary = run(folder.path(), &format!("{STUDY} --json")).ok().json();
    for (index, configuration) in CONFIGURATIONS.into_iter().enumerate() {
        let run = run_folder(folder.path(), configuration, 0);
        let seconds = record(&run)["seconds"].as_f64().unwrap();
        assert!((1.2..2.2).contains(&seconds), "{seconds}");
        let (last, _) = evaluations(&run).pop().unwrap();
        let row = &summary["configurations"][index];
        assert_eq!((row["images"].as_u64().unwrap(), &row["standard_error"]), (last * BATCH, &Value::Null));
    }
}

/// With a schedule, a study measures speeds and fixes the number of steps. A run that began without one ends at
/// that number.
#[test]
fn a_schedule_can_be_added_to_a_started_study() {
    let (toml, folder) = killed_study_of_minutes(25);
    // Also with augmentation of its own, which the others do not have.
    let added =
        "[[configurations]]\nname = \"added\"\ntrain = { schedule = \"cosine\" }\ndata = { flip = true }\n";
    std::fs::write(folder.path().join("tiny.toml"), format!("{toml}\n{added}")).unwrap();
    let summary = run(folder.path(), &format!("{STUDY} --json")).ok().json();
    assert_eq!(summary["finished"], 3, "{summary}");
}

#[test]
fn seeds_can_be_added_to_a_started_study() {
    let folder = folder(TINY);
    run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    let before = std::fs::metadata(run_folder(folder.path(), "conv1x1", 0).join("metrics.jsonl")).unwrap();
    let outcome = run(folder.path(), &format!("{STUDY} --json")).ok();
    assert_eq!(outcome.json()["finished"], 4, "{outcome:?}");
    assert!(outcome.stderr.contains("added to the study in out: seed 3"), "{outcome:?}");
    let after = std::fs::metadata(run_folder(folder.path(), "conv1x1", 0).join("metrics.jsonl")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_same_results(folder.path());
    // Neither fewer, nor in another order.
    for (seeds, words) in [("0", "[0, 3] there, and [0] here"), ("3,0,1", "[0, 3] there, and [3, 0, 1] here")]
    {
        let outcome = run(folder.path(), &format!("{STUDY} --seeds {seeds}"));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(words), "{outcome:?}");
    }
}

#[test]
fn runs_on_other_images_are_refused() {
    let folder = folder(&TINY.replace("\"portraits\"", "\"pictures\", test_fraction = 0.2"));
    let pictures = folder.path().join("pictures");
    run(folder.path(), "sample --model portraits --count 30 --out-dir pictures").ok();
    run(folder.path(), &format!("{STUDY} --seeds 0 --steps 5")).ok();
    let last = |name: &str| pictures.join(name);
    std::fs::copy(last("00000.png"), last("copy.png")).unwrap();
    let added = format!("{STUDY} --seeds 0,3 --steps 5");
    let outcome = run(folder.path(), &added);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let words = "the names or the order of the images differ from those that reverse, seed 0 was trained on";
    assert!(outcome.stderr.contains(words), "{outcome:?}");
    assert!(!read(&folder.path().join("out/study.toml")).contains("seeds = [0, 3]"), "the study has changed");
    std::fs::remove_file(last("copy.png")).unwrap();
    assert_eq!(run(folder.path(), &format!("{added} --json")).ok().json()["finished"], 4);
}

/// Of such a run, the last checkpoint is not that of the last step.
#[test]
fn a_run_whose_last_steps_are_skipped_has_diverged() {
    let folder = folder(&TINY.replace("train = { warmup = 50 }", "train = { warmup = 0, lr = 1e30 }"));
    let outcome = run(folder.path(), &format!("{STUDY} --seeds 0 --steps 5")).ok();
    assert!(outcome.stdout.contains("conv1x1: 1 run diverged"), "{outcome:?}");
    assert!(outcome.stderr.contains("the last steps were not finite"), "{outcome:?}");
    let table = read(&folder.path().join("out/study.md"));
    assert!(table.contains("| conv1x1 | – | 0 |"), "{table}");
}

/// Also if only some configurations set their augmentation.
#[test]
fn the_resolved_study_is_a_study() {
    let base = r#"data = { path = "portraits", edge = "reflect", shift = 0.1 }"#;
    let toml = TINY.replace(r#"data = { path = "portraits" }"#, base);
    let first = TINY.replace("name = \"reverse\"", "name = \"reverse\"\ndata = { flip = true }");
    let other = toml.replace("name = \"conv1x1\"", "name = \"conv1x1\"\ndata = { edge = \"replicate\" }");
    for toml in [first, other] {
        let folder = folder(&toml);
        run(folder.path(), &format!("{STUDY} --seeds 0 --steps 5")).ok();
        let again = run(folder.path(), "study out/study.toml --out out --json").ok();
        assert_eq!(again.json()["finished"], 2, "{again:?}");
    }
}

#[test]
fn a_study_of_fine_tuning_finds_its_model_from_any_folder() {
    let folder = folder(TINY);
    run(folder.path(), &format!("{STUDY} --seeds 0 --arms conv1x1")).ok();
    let from = "[base.train]\nfrom = \"out/conv1x1/seed-0/model.safetensors\"";
    let tuned =
        TINY.replace("[base.train]", from).replace("permutation = \"reverse\"", "permutation = \"conv1x1\"");
    std::fs::write(folder.path().join("tuned.toml"), tuned).unwrap();
    let tuned = folder.path().join("tuned");
    run(folder.path(), "study tuned.toml --seeds 0 --steps 5 --arms reverse --out tuned").ok();
    let elsewhere = tempfile::tempdir().unwrap();
    let line = format!("study {0}/study.toml --out {0} --json", tuned.display());
    assert_eq!(run(elsewhere.path(), &line).ok().json()["finished"], 2);
}

/// A schedule needs the number of steps, which follows from the budget.
#[test]
fn a_part_of_a_study_need_not_contain_its_first_configuration() {
    let folder = folder(&TINY.replace("permutation = \"reverse\"", "scale = \"exp2tanh\""));
    let part = "--arms conv1x1 --seeds 0 --steps 5 --set train.schedule=cosine --set model.coupling=additive";
    let outcome = run(folder.path(), &format!("{STUDY} {part} --json")).ok();
    assert_eq!((&outcome.json()["finished"], &outcome.json()["runs"]), (&1.into(), &1.into()));
}

#[test]
fn a_run_that_diverges_does_not_end_the_study() {
    let folder = folder(&TINY.replace("train = { warmup = 50 }", "train = { warmup = 0, lr = 1e30 }"));
    let outcome = run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    assert!(outcome.stdout.contains("conv1x1: 1 run diverged"), "{outcome:?}");
    let table = read(&folder.path().join("out/study.md"));
    assert!(table.contains("conv1x1: 1 run diverged and is excluded"), "{table}");
    assert!(table.contains("| conv1x1 | – | 0 |"), "{table}");
    // It is not retried.
    let again = run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    assert!(!again.stderr.contains("parameters"), "{}", again.stderr);
}

#[test]
fn an_io_error_states_how_to_continue() {
    let folder = folder(TINY);
    run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    let runs = folder.path().join("out/conv1x1");
    std::fs::remove_dir_all(&runs).unwrap();
    std::fs::write(&runs, "in the way").unwrap();
    let outcome = run(folder.path(), &format!("{STUDY} --seeds 0"));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("conv1x1"), "{outcome:?}");
    assert!(outcome.stderr.contains("the same command continues the study"), "{outcome:?}");
    std::fs::remove_file(&runs).unwrap();
    let outcome = run(folder.path(), &format!("{STUDY} --seeds 0 --json")).ok().json();
    assert_eq!(outcome["finished"], 2);
}

/// Older versions held out other images for each seed, and did not record the seed that selects them.
#[test]
fn a_study_of_an_older_program_continues() {
    let folder = folder(TINY);
    run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    let file = folder.path().join("out/study.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("test_seed = 0"), "{text}");
    let older = text
        .lines()
        .filter(|line| !line.starts_with("test_seed"))
        .fold(String::new(), |all, line| all + line + "\n");
    std::fs::write(&file, &older).unwrap();
    let removed = folder.path().join("out/conv1x1");
    std::fs::remove_dir_all(&removed).unwrap();
    run(folder.path(), &format!("{STUDY} --seeds 0")).ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), older);
    let config = std::fs::read_to_string(removed.join("seed-0/config.toml")).unwrap();
    assert!(!config.contains("test_seed"), "{config}");
}

#[test]
fn another_study_is_rejected() {
    let (folder, _) = reference();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (change, words) in [
        ("--seeds 0,1", "seeds is [0, 3] there, and [0, 1] here"),
        ("--set train.lr=0.5", "reverse.train.lr is 0.001 there, and 0.5 here"),
        ("--images 800", "steps is 200 there, and not set here"),
    ] {
        let outcome = run(folder, &format!("{STUDY} {change}"));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.stderr.contains("out holds another study") && outcome.stderr.contains(words),
            "{outcome:?}"
        );
    }
    let other = folder.join("tiny2.toml");
    std::fs::write(&other, TINY.replace("name = \"reverse\"", "name = \"backwards\"")).unwrap();
    let outcome = run(folder, "study tiny2.toml --threads 2 --out out");
    assert!(
        outcome.stderr.contains("configurations are reverse, conv1x1, not backwards, conv1x1"),
        "{outcome:?}"
    );
    let outcome = run(folder, "study tiny.toml --out .");
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("choose an empty or new folder"), "{outcome:?}");
    assert_same_results(folder);
}

#[test]
fn a_plan_is_printed_without_training() {
    let folder = folder(TINY);
    let plan = run(folder.path(), "study tiny.toml --dry-run --json").ok().json();
    assert_eq!(plan["seeds"], serde_json::json!(SEEDS));
    assert_eq!(plan["evaluate_every"], 160);
    assert_eq!(plan["configurations"][0]["images"], STEPS * BATCH);
    let images = run(folder.path(), "study tiny.toml --dry-run --images 1001 --seeds 7 --json").ok().json();
    assert_eq!((&images["seeds"][0], &images["configurations"][1]["steps"]), (&7.into(), &251.into()));
    let text = run(folder.path(), "study permutations --dry-run").ok().stdout;
    assert!(text.contains("18 runs") && text.contains("conv1x1-additive"), "{text}");
    assert!(!folder.path().join("studies").exists());
}

#[test]
fn mistakes_are_named_with_file_and_key() {
    let folder = folder(TINY);
    let path = folder.path().join("wrong.toml");
    for (from, to, words) in [
        ("hidden = 8", "hiden = 8", &["wrong.toml: line 15", "`hiden`"][..]),
        ("levels = 2", "levels = \"two\"", &["wrong.toml: line 13", "expected a whole number"]),
        ("seeds = [0, 3]", "seed = [0]", &["wrong.toml: line 4", "`seed`"]),
        ("seeds = [0, 3]", "seeds = [3, 3]", &["wrong.toml: seeds holds 3 twice"]),
        ("seeds = [0, 3]", "seeds = []", &["wrong.toml: seeds is empty"]),
        ("steps = 200", "", &["wrong.toml: the budget is missing"]),
        ("steps = 200", "steps = 200\nimages = 5", &["several budgets"]),
        ("steps = 200", "minutes = 1", &["evaluations needs a budget of images or steps"]),
        ("evaluations = 5", "evaluations = 0", &["evaluations is 0"]),
        ("name = \"conv1x1\"", "name = \"Reverse\"", &["configurations holds \"reverse\" twice"]),
        ("name = \"conv1x1\"", "name = \"a/b\"", &["a configuration's name is \"a/b\"", "folder name"]),
        ("warmup = 50", "seed = 50", &["configuration \"conv1x1\": train.seed follows from seeds"]),
        ("warmup = 50", "lr = -1.0", &["configuration \"conv1x1\": train.lr is -1.0"]),
        (
            "train = { warmup = 50 }",
            "model = { bits = 5 }",
            &["model.bits is 8 in configuration \"reverse\""],
        ),
    ] {
        let wrong = TINY.replacen(from, to, 1);
        assert_ne!(wrong, TINY);
        std::fs::write(&path, wrong).unwrap();
        let outcome = run(folder.path(), "study wrong.toml --out new");
        assert_eq!(outcome.code, Some(1), "{from} → {to}: {outcome:?}");
        for words in words {
            assert!(outcome.stderr.contains(words), "{from} → {to}, {words:?}: {}", outcome.stderr);
        }
    }
    assert!(!folder.path().join("new").exists());
    for (line, words) in [
        ("study permutation --data portraits", "permutations, realnvp-vs-glow"),
        ("study permutations", "give --data"),
        ("study tiny.toml --scale gpu", "--scale is for built-in studies"),
        ("study tiny.toml --images 0", "images is 0"),
        ("study tiny.toml --minutes -1", "minutes is -1"),
        ("study tiny.toml --set train.nothing=1", "`nothing`"),
    ] {
        let outcome = run(folder.path(), line);
        assert_eq!(outcome.code, Some(1), "{line}: {outcome:?}");
        assert!(outcome.stderr.contains(words), "{line}: {}", outcome.stderr);
    }
    let both = run(folder.path(), "study tiny.toml --images 100 --steps 5");
    assert_eq!(both.code, Some(2), "{both:?}");
}
