//! The format of PyTorch < 1.6: a magic number, a protocol, the machine, the state dictionary and the keys of
//! its storages, each a pickle, then the storages in the order of the keys: the number of elements (i64) and
//! the elements.

use std::collections::HashMap;
use std::sync::Arc;

use crate::array::Storage;
use crate::checkpoint::Checkpoint;
use crate::element::Element;
use crate::pickle::{self, Objects, Value};
use crate::state_dict;

const MAGIC: u128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i64 = 1001;

/// Reads a checkpoint.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    let mut objects = Objects::default();
    let (magic, rest) = pickle::load(&bytes, &mut objects)?;
    if magic != Value::Long(MAGIC) {
        return Err(
            "it is a pickle, but not one of PyTorch's: save `model.state_dict()` by torch.save".into()
        );
    }
    let (protocol, rest) = pickle::load(rest, &mut objects)?;
    if protocol != Value::Int(PROTOCOL) {
        return Err(format!("it has the protocol {protocol:?}, but only {PROTOCOL} is supported"));
    }
    let (machine, rest) = pickle::load(rest, &mut objects)?;
    if objects.item(machine, "little_endian") != Some(Value::Bool(true)) {
        return Err("it was written in a byte order other than little endian".into());
    }
    let (value, rest) = pickle::load(rest, &mut objects)?;
    let (keys, rest) = pickle::load(rest, &mut objects)?;
    let keys = objects.sequence(keys).ok_or("the list of its storages is missing")?;

    let elements: HashMap<&str, Element> =
        objects.storages.iter().map(|storage| (storage.key.as_str(), storage.element)).collect();
    let mut start = bytes.len() - rest.len();
    // Position of the first element, and number of elements, by key.
    let mut places: HashMap<&str, (usize, usize)> = HashMap::new();
    for key in keys {
        let key = objects.text(*key).ok_or("the key of a storage is not a text")?;
        let element = elements.get(key).ok_or_else(|| format!("no tensor has the storage {key}"))?;
        let cut = || format!("the storage {key} is cut short");
        let count = bytes.get(start..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
        let count =
            usize::try_from(i64::from_le_bytes(*count)).map_err(|_| "a storage has a negative length")?;
        start += 8;
        let end = count.checked_mul(element.size()).and_then(|len| start.checked_add(len));
        let end = end.filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
        places.insert(key, (start, count));
        start = end;
    }
    let shared = Arc::new(bytes);
    let storage = |storage: &pickle::StorageRef| {
        let &(start, count) = places.get(storage.key.as_str())?;
        let within = storage.first.checked_add(storage.len).is_some_and(|end| end <= count);
        within.then(|| Storage {
            element: storage.element,
            bytes: shared.clone(),
            start: start + storage.first * storage.element.size(),
            len: storage.len,
        })
    };
    let storages: Vec<_> = objects.storages.iter().map(storage).collect();
    state_dict::checkpoint(&objects, value, &storages)
}
