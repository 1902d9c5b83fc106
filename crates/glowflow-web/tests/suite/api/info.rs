//! `info`: the model, its run and the limits.

use std::fs;

use glowflow::latent::{Auc, Directions};
use glowflow::train::RunConfig;

use super::*;

#[tokio::test]
async fn the_model_and_its_bounds_are_described() {
    let served = whole();
    let info = served.get("/api/v1/info").await.json();
    assert_eq!(info["config"]["image"], json!([SIZE, SIZE, 3]));
    assert_eq!(info["parameters"], served.glow.parameters());
    assert_eq!(info["attributes"].as_array().unwrap().len(), 6);
    assert_eq!(info["attributes"][0]["name"], "Smiling");
    let attributes = info["attributes"].as_array().unwrap();
    assert!(
        attributes.iter().any(|attribute| attribute["auc"].as_f64().is_some_and(|auc| auc > 0.9)),
        "{info}"
    );
    // Without a run's files, these are unknown.
    for unknown in ["bits_per_dim", "evaluation", "trained", "faces", "eyes"] {
        assert_eq!(info[unknown], Value::Null, "{unknown}");
    }
    assert_eq!((&info["class_names"], &info["detector"]), (&json!([]), &json!(false)));
    assert_eq!(info["fingerprint"], format!("{:08x}", served.glow.fingerprint()));
    assert_eq!(info["upload_bytes"], Limits::default().upload_bytes);
}

#[tokio::test]
async fn files_of_the_run_are_used() {
    let served = whole();
    let folder = served._folder.path();
    fs::write(
        folder.join("metrics.jsonl"),
        "{\"step\":5,\"test_bits_per_dim\":3.5,\"inverse_error\":0.0001}\n",
    )
    .unwrap();
    fs::copy(folder.join("model.safetensors"), folder.join("best.safetensors")).unwrap();
    for model in ["", "model.safetensors", "best.safetensors"] {
        let demo = load(&folder.join(model), Limits::default()).unwrap();
        let served = Served {
            app: router(Arc::new(demo), Access::default()),
            glow: Model::load(folder).unwrap(),
            _folder: tempfile::tempdir().unwrap(),
        };
        let info = served.get("/api/v1/info").await.json();
        assert_eq!(info["attributes"].as_array().unwrap().len(), 6, "{model}");
        assert_eq!((&info["bits_per_dim"], &info["inverse_error"]), (&json!(3.5), &json!(0.0001)), "{model}");
        let evaluation =
            json!({ "step": 5, "bits_per_dim": 3.5, "dequantization": "uniform", "inverse_error": 0.0001 });
        assert_eq!(info["evaluation"], evaluation, "{model}");
    }
    // The best model is described by its own evaluation.
    fs::write(
        folder.join("metrics.jsonl"),
        "{\"step\":5,\"test_bits_per_dim\":3.5,\"inverse_error\":0.0001}\n\
         {\"step\":9,\"test_bits_per_dim\":3.6,\"inverse_error\":0.0002}\n",
    )
    .unwrap();
    for (model, step) in [("model.safetensors", 9), ("best.safetensors", 5)] {
        let demo = load(&folder.join(model), Limits::default()).unwrap();
        let app = router(Arc::new(demo), Access::default());
        let served =
            Served { app, glow: Model::load(folder).unwrap(), _folder: tempfile::tempdir().unwrap() };
        assert_eq!(served.get("/api/v1/info").await.json()["evaluation"]["step"], step, "{model}");
    }
    // Directions next to a file may belong to another model there, which must not prevent serving it.
    ModelFile::new(config(), 2).unwrap().write(&folder.join("best.safetensors")).unwrap();
    let demo = load(&folder.join("best.safetensors"), Limits::default()).unwrap();
    assert_eq!(demo.attributes().count(), 0);
}

#[tokio::test]
async fn training_and_classes_are_those_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut run: RunConfig =
        RunConfig { model: GlowConfig { classes: 2, ..config() }.into(), ..RunConfig::default() };
    (run.train.batch, run.data.classes) = (4, vec!["cat".into(), "dog".into()]);
    ModelFile::new(run.model.clone(), 1).unwrap().write(&folder.path().join("model.safetensors")).unwrap();
    fs::write(folder.path().join("config.toml"), run.to_toml().unwrap()).unwrap();
    fs::write(folder.path().join("metrics.jsonl"), "{\"step\":10}\n{\"step\":25}\n").unwrap();
    let served = serve(load(folder.path(), Limits::default()).unwrap(), folder);
    let info = served.get("/api/v1/info").await.json();
    assert_eq!(info["class_names"], json!(["cat", "dog"]));
    assert_eq!(info["trained"], json!({ "steps": 25, "images": 100 }));
    assert_eq!(info["evaluation"], Value::Null);
}

#[tokio::test]
async fn weak_directions_state_the_reason() {
    let served = whole();
    let path = served._folder.path().join(DIRECTIONS);
    let mut directions = Directions::read(&path, &served.glow).unwrap();
    let auc = |value, standard_error| Some(Auc { value, standard_error });
    for (direction, (positives, auc)) in
        directions.list.iter_mut().zip([(12, auc(0.9, 0.02)), (90, auc(0.62, 0.02)), (90, auc(0.9, 0.02))])
    {
        let about = &mut direction.about;
        (about.positives, about.negatives, about.auc) = (positives, 100, auc);
    }
    directions.list.truncate(3);
    directions.write(&path).unwrap();
    let demo = load(served._folder.path(), Limits::default()).unwrap();
    let names: Vec<String> = demo.attributes().map(str::to_owned).collect();
    let weak: Vec<String> = demo.weak_attributes().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(weak, names[..2]);
    let served = serve(demo, served._folder);
    let info = served.get("/api/v1/info").await.json();
    let weak: Vec<&Value> =
        info["attributes"].as_array().unwrap().iter().map(|about| &about["weak"]).collect();
    assert_eq!(
        weak,
        [&json!("computed from 12 images with it"), &json!("AUC 0.62 on held-out images"), &Value::Null]
    );
}
