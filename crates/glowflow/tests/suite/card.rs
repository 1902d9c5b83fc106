//! Model cards: `config.json` and `README.md` of a run, and models distributed as a folder of these and the
//! weights.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::NEVER;
use glowflow::card::{CONFIG_JSON, Card, README};
use glowflow::model::MODEL;
use glowflow::train::observer::Outbox;
use glowflow::train::{
    BEST, CONFIG, Changes, Event, Limits, Observer, Options, RunConfig, Summary, class_names, resume, train,
    train_on,
};
use glowflow::{Error, GlowConfig, Model, ModelConfig, ModelFile};
use glowflow_data::portraits::Portraits;
use glowflow_kernels::Cpu;
use serde_json::Value;

fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=2",
        "model.hidden=8",
        "train.batch=4",
        "train.seed=7",
        "train.eval_images=8",
        "data.path=portraits",
    ];
    let texts: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &texts).unwrap()
}

fn options(steps: u64) -> Options<'static> {
    let limits = Limits { steps: Some(steps), ..Limits::default() };
    Options { limits, observers: vec![], faces: None, stop: &NEVER }
}

fn begin(out: &Path, steps: u64) -> Summary {
    train(Cpu::<f32>::new(), config(&[]), out, options(steps)).unwrap()
}

fn go_on(run: &Path, steps: u64) -> Summary {
    resume(|_| Ok(Cpu::<f32>::new()), run, Changes::default(), options(steps)).unwrap()
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn json(folder: &Path) -> Value {
    serde_json::from_str(&text(folder, CONFIG_JSON)).unwrap()
}

#[test]
fn a_run_ends_with_a_card_of_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    let evaluation = begin(run, 3).evaluation.unwrap();
    let (card, model) = (json(run), ModelFile::read(run).unwrap());

    assert_eq!(card["library_name"], "glowflow");
    assert_eq!(card["glowflow_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(card["license"], "", "a licence is not guessed");
    assert_eq!(card["architecture"], "glow");
    assert_eq!(card["file"], MODEL);
    assert_eq!(card["fingerprint"], format!("{:08x}", model.fingerprint()));
    assert_eq!(card["parameters"], model.layout().len());
    assert_eq!(card["model"], serde_json::to_value(&model.config).unwrap());
    assert_eq!(card["data"]["name"], "portraits");
    assert_eq!((&card["data"]["images"], &card["data"]["test_images"]), (&20_000.into(), &1000.into()));
    let training = &card["training"];
    assert_eq!(
        (&training["steps"], &training["batch"], &training["seed"]),
        (&3.into(), &4.into(), &7.into())
    );
    assert_eq!(card["evaluation"]["step"], 3);
    assert_eq!(card["evaluation"]["bits_per_dim"], evaluation.bits_per_dim);
    assert_eq!(card["evaluation"]["standard_error"], evaluation.standard_error);
    assert_eq!(card["evaluation"]["label"], "uniform bound (1 draw)");
    assert_eq!(card["evaluation"]["dequantization"], "uniform");
    assert_eq!(card["evaluation"]["inverse_error"], evaluation.inverse_error);

    let readme = text(run, README);
    let (head, body) = readme.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
    for line in
        ["library_name: glowflow", "license:", "- normalizing-flow", "- glow", "    - type: bits_per_dim"]
    {
        assert!(head.lines().any(|have| have == line), "{line} is not in {head}");
    }
    for part in [
        "# Glow, 16×16, trained on portraits".to_owned(),
        format!(
            "{:.4} ± {:.4}, uniform bound (1 draw), 8 test images",
            evaluation.bits_per_dim, evaluation.standard_error
        ),
        format!("{:.1e}; {} of 8 images invert exactly", evaluation.inverse_error, evaluation.exact),
        "3 steps of 4 images, seed 7, precision auto, cpu".to_owned(),
        "| dequantisation | uniform |".to_owned(),
        "| licence | not specified |".to_owned(),
        "hidden = 8".to_owned(),
    ] {
        assert!(body.contains(&part), "{part} is not in {body}");
    }
}

#[test]
fn the_configuration_in_a_readme_trains_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    begin(&first, 2);
    let readme = text(&first, README);
    let toml = readme.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let file = folder.path().join("again.toml");
    std::fs::write(&file, toml).unwrap();
    let again = RunConfig::resolve(None, Some(&file), &[]).unwrap();
    train(Cpu::<f32>::new(), again, &second, options(2)).unwrap();
    let model = |run: &Path| std::fs::read(run.join(MODEL)).unwrap();
    assert!(model(&first) == model(&second));
}

#[test]
fn the_best_model_has_a_card_while_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let portraits = |count| Arc::new(Portraits::new(count, 16, 0));
    let stop = AtomicBool::new(false);
    struct Stop<'a>(&'a AtomicBool);
    impl Observer for Stop<'_> {
        fn on(&mut self, event: &Event<'_>, _: &mut Outbox) -> Result<ControlFlow<()>, Error> {
            if matches!(event, Event::Step(done) if done.step == 3) {
                self.0.store(true, Ordering::Relaxed);
            }
            Ok(ControlFlow::Continue(()))
        }
    }
    let limits = Limits { steps: Some(9), ..Limits::default() };
    let options = Options { limits, observers: vec![Box::new(Stop(&stop))], faces: None, stop: &stop };
    let config = config(&["train.eval_every=2"]);
    let summary =
        train_on(Cpu::<f32>::new(), config, portraits(20), Some(portraits(8)), folder.path(), options)
            .unwrap();
    assert!(summary.interrupted && summary.steps == 3);
    let card = Card::read(folder.path()).unwrap();
    assert_eq!((card.file.as_str(), card.training.steps), (MODEL, 3));
    assert_eq!(card.evaluation.unwrap().step, 2);
    assert_eq!(card.best.unwrap().step, 2);
    let readme = text(folder.path(), README);
    assert!(readme.contains("after step 2"), "{readme}");
    assert!(readme.contains(&format!("| `{BEST}` |")), "{readme}");
}

#[test]
fn files_of_the_user_are_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path();
    begin(run, 1);
    let written = text(run, README);

    // More training replaces an unchanged README.
    go_on(run, 2);
    assert!(text(run, README) != written && json(run)["training"]["steps"] == 2);

    // The user's licence is preserved, and copied to the README.
    let licensed = text(run, CONFIG_JSON).replace(r#""license": """#, r#""license": "cc-by-4.0""#);
    std::fs::write(run.join(CONFIG_JSON), licensed).unwrap();
    go_on(run, 3);
    assert_eq!(json(run)["license"], "cc-by-4.0");
    let licensed = text(run, README);
    assert!(licensed.contains("license: \"cc-by-4.0\"\n") && licensed.contains("| licence | cc-by-4.0 |"));

    // So are entries that this program does not know.
    let added = text(run, CONFIG_JSON).replacen('{', r#"{"base_model": "mine","#, 1);
    std::fs::write(run.join(CONFIG_JSON), added).unwrap();
    go_on(run, 4);
    assert_eq!((&json(run)["base_model"], &json(run)["training"]["steps"]), (&"mine".into(), &4.into()));
    let licensed = text(run, README);

    // Any edit protects the README from being overwritten.
    for edited in
        [format!("{licensed}\nMy dog.\n"), licensed.replacen("# Glow", "# My Glow", 1), String::new()]
    {
        std::fs::write(run.join(README), &edited).unwrap();
        let steps = json(run)["training"]["steps"].as_u64().unwrap() + 1;
        go_on(run, steps);
        assert_eq!(text(run, README), edited);
        assert_eq!(json(run)["training"]["steps"], steps, "the facts are still written");
    }

    // A config.json of another program is preserved as well.
    for foreign in ["{\"library_name\": \"diffusers\"}", "not JSON"] {
        std::fs::write(run.join(CONFIG_JSON), foreign).unwrap();
        let summary = go_on(run, 9);
        go_on(run, summary.steps + 1);
        assert_eq!(text(run, CONFIG_JSON), foreign);
    }
}

#[test]
fn a_card_that_cannot_be_written_does_not_end_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for name in [README, CONFIG_JSON] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    assert_eq!(begin(folder.path(), 1).steps, 1);
    assert!(folder.path().join(README).is_dir());
}

#[test]
fn a_folder_of_weights_and_card_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        GlowConfig { image: [8, 8, 3], levels: 2, steps: 1, hidden: 4, classes: 2, ..GlowConfig::default() };
    let model = ModelFile::new(config, 3).unwrap();
    model.write(&folder.path().join(MODEL)).unwrap();
    let mut card = Card::new(MODEL, model.config.clone(), model.fingerprint(), model.layout().len());
    card.data.classes = vec!["cat".into(), "d|g".into()];
    card.write(folder.path()).unwrap();
    assert!(!folder.path().join(CONFIG).exists());

    let glow = Model::from_pretrained(folder.path()).unwrap();
    assert_eq!(glow.fingerprint(), model.fingerprint());
    assert_eq!(class_names(folder.path(), glow.config()), ["cat", "d|g"]);
    let readme = text(folder.path(), README);
    assert!(readme.contains("| classes | 2: cat, d\\|g |"), "{readme}");
    assert!(readme.contains("sample --class 0 --model FOLDER"), "{readme}");

    // Class names of a different model are not used.
    let mut other: ModelConfig = glow.config().clone();
    other.set_classes(3).unwrap();
    assert!(class_names(folder.path(), &other).is_empty());
}

#[test]
fn unknown_names_are_reported_with_the_known_ones() {
    let error = Model::from_pretrained("no/such/model").err().unwrap();
    assert!(matches!(error, Error::Input(_)));
    let message = error.to_string();
    assert!(message.contains("no/such/model") && message.contains("portraits"), "{message}");
}

#[test]
fn weights_in_bf16_are_half_the_size_and_invert_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    begin(&run, 3);
    let model = ModelFile::read(&run).unwrap();
    let path = folder.path().join("small.safetensors");
    model.write_bf16(&path).unwrap();
    let rounded = ModelFile::read(&path).unwrap();
    assert!(rounded.weights != model.weights);
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 256.0;
    assert!(model.weights.iter().zip(&rounded.weights).all(close));
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let saved = size(&run.join(MODEL)) - size(&path);
    assert!(saved as usize >= 2 * model.weights.len() - 64, "{saved}");

    // Rounding twice has no further effect.
    rounded.write_bf16(&folder.path().join("again.safetensors")).unwrap();
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    assert!(bytes(&path) == bytes(&folder.path().join("again.safetensors")));
}
