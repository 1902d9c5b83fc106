//! Finds the state dictionary in the contents of a pickle.
//!
//! A file contains the dictionary itself, or a dictionary of it and the state of an optimiser:
//! `{"model": …, "optimizer": …}`.

use std::collections::HashSet;

use crate::array::{Array, Storage};
use crate::checkpoint::{Checkpoint, Tensors};
use crate::pickle::{Objects, Value};

/// Keys of a model's state in a checkpoint of a training run.
const MODEL_KEYS: &[&str] = &["model", "graph", "state_dict", "model_state_dict", "net", "glow"];

/// The tensors of the model; `storages` are those of the pickle, in order.
pub(crate) fn checkpoint(
    objects: &Objects,
    value: Value,
    storages: &[Option<Storage>],
) -> Result<Checkpoint, String> {
    let items =
        objects.dict(value).ok_or("it does not hold a state dictionary: save `model.state_dict()`")?;
    if has_tensors(objects, value) {
        return Ok(Checkpoint {
            tensors: tensors(objects, value, storages)?,
            ignored: others(objects, items),
        });
    }
    let nested = |key: &&&str| objects.item(value, key).is_some_and(|inner| has_tensors(objects, inner));
    let Some(key) = MODEL_KEYS.iter().find(nested) else {
        let mut keys = others(objects, items);
        keys.truncate(20);
        for key in &mut keys {
            key.truncate(key.floor_char_boundary(100));
        }
        return Err(format!(
            "it contains no state dictionary of a model: it has the keys {keys:?}, but one of {MODEL_KEYS:?} is required; save \
             `model.state_dict()`"
        ));
    };
    let inner = objects.item(value, key).ok_or("a key is missing")?;
    let mut ignored = others(objects, items);
    ignored.retain(|other| other != key);
    Ok(Checkpoint { tensors: tensors(objects, inner, storages)?, ignored })
}

fn has_tensors(objects: &Objects, value: Value) -> bool {
    objects.dict(value).is_some_and(|items| items.iter().any(|(_, value)| matches!(value, Value::Tensor(_))))
}

/// Keys of items other than tensors, each once.
fn others(objects: &Objects, items: &[(Value, Value)]) -> Vec<String> {
    let mut seen = HashSet::new();
    let others = items.iter().filter_map(|&(key, value)| match (key, value) {
        (_, Value::Tensor(_)) => None,
        (Value::Text(at), _) if seen.insert(at) => objects.text(key).map(str::to_owned),
        _ => None,
    });
    others.collect()
}

fn tensors(objects: &Objects, dict: Value, storages: &[Option<Storage>]) -> Result<Tensors, String> {
    let mut tensors = Tensors::new();
    for &(key, value) in objects.dict(dict).unwrap_or_default() {
        let Value::Tensor(at) = value else { continue };
        let name = objects.text(key).ok_or("the name of a tensor is not a text")?;
        let tensor = objects.tensors.get(at).ok_or("a tensor is missing")?;
        let storage = storages.get(tensor.storage).and_then(Option::as_ref);
        let storage = storage.ok_or_else(|| format!("the numbers of {name} are missing"))?;
        let array = Array::view(storage, tensor.offset, tensor.shape.clone(), tensor.strides.clone())
            .map_err(|reason| format!("{name}: {reason}"))?;
        if tensors.insert(name.to_owned(), array).is_some() {
            return Err(format!("the tensor {name} occurs twice"));
        }
    }
    Ok(tensors)
}
