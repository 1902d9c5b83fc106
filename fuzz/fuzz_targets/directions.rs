//! Attribute directions of a model.

#![no_main]

use std::sync::LazyLock;

use glowflow::Model;
use glowflow::latent::Directions;
use libfuzzer_sys::fuzz_target;

static MODEL: LazyLock<Model> =
    LazyLock::new(|| Model::load(glowflow_fuzz::RUN).expect("the model of the tests is read"));

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("directions.safetensors", bytes);
    if let Ok(mut directions) = Directions::read(&path, &MODEL) {
        let names: Vec<String> =
            directions.list.iter().map(|direction| direction.about.name.clone()).collect();
        let _ = directions.orthogonalize(&names);
        (0..directions.list.len()).for_each(|index| _ = directions.nearest(index));
    }
});
