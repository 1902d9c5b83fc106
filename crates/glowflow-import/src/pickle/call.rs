//! Calls of the supported functions, and storages by their persistent ids.

use super::{Global, Objects, StorageRef, TensorRef, Value, size};
use crate::array::MAX_AXES;

/// Maximum length of a storage's key in bytes; PyTorch writes up to 20 digits.
const MAX_KEY: usize = 64;

impl Objects {
    /// Returns the result of a call.
    pub fn call(&mut self, function: Value, arguments: Value) -> Result<Value, String> {
        let Value::Global(function) = function else { return Err(format!("{function:?} is not a function")) };
        let arguments = self.sequence(arguments).ok_or("the arguments are not a tuple")?;
        match (function, arguments) {
            (Global::OrderedDict, []) => {
                self.dicts.push(vec![]);
                Ok(Value::Dict(self.dicts.len() - 1))
            }
            // The form written by Python 2: a list of pairs.
            (Global::OrderedDict, [pairs]) => {
                let pairs =
                    self.sequence(*pairs).ok_or("the argument of an ordered dictionary is not a list")?;
                // Each item is a tuple of its own, unless the pickle multiplies a list.
                let copied = self.copied + pairs.len();
                if copied > self.sequences.len() {
                    return Err("ordered dictionaries share their items".into());
                }
                let pair = |pair: &Value| match self.sequence(*pair) {
                    Some(&[key, value]) => Ok((key, value)),
                    _ => Err("the items of an ordered dictionary are not pairs"),
                };
                let pairs = pairs.iter().map(pair).collect::<Result<_, _>>()?;
                self.copied = copied;
                self.dicts.push(pairs);
                Ok(Value::Dict(self.dicts.len() - 1))
            }
            (Global::Size, [sizes @ Value::Sequence(_)]) => Ok(*sizes),
            (Global::RebuildTensor, [Value::Storage(storage), offset, shape, strides, _, _, ..]) => {
                let sizes = |value| {
                    let sizes = self.sequence(value).filter(|sizes| sizes.len() <= MAX_AXES)?;
                    sizes.iter().map(|&value| size(value)).collect::<Option<Vec<usize>>>()
                };
                let tensor = TensorRef {
                    storage: *storage,
                    offset: size(*offset).ok_or("an offset is not a whole number")?,
                    shape: sizes(*shape)
                        .ok_or_else(|| format!("a shape is not a tuple of up to {MAX_AXES} whole numbers"))?,
                    strides: sizes(*strides).ok_or_else(|| {
                        format!("strides are not a tuple of up to {MAX_AXES} whole numbers")
                    })?,
                };
                self.tensors.push(tensor);
                Ok(Value::Tensor(self.tensors.len() - 1))
            }
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(*tensor),
            (function, _) => Err(format!("{function:?} is called with arguments that PyTorch never uses")),
        }
    }

    /// The storage that a persistent id `('storage', type, key, location, length[, view])` refers to.
    pub fn storage(&self, id: Value) -> Result<StorageRef, String> {
        let [kind, Value::Global(Global::Storage(element)), key, _location, len, view @ ..] =
            self.sequence(id).ok_or("a persistent id is not a tuple")?
        else {
            return Err("a persistent id does not describe a storage".into());
        };
        if self.text(*kind) != Some("storage") {
            return Err("a persistent id does not name a storage".into());
        }
        let key = self.text(*key).ok_or("the key of a storage is not a text")?;
        if key.len() > MAX_KEY {
            return Err(format!("the key of a storage has {} bytes", key.len()));
        }
        let len = size(*len).ok_or("the length of a storage is not a whole number")?;
        let (first, len) = match view {
            [] | [Value::None] => (0, len),
            // First element and length of a view of the storage.
            [view] => match self.sequence(*view) {
                Some(&[_, first, len]) => (
                    size(first).ok_or("the offset of a storage's view is not a whole number")?,
                    size(len).ok_or("the length of a storage's view is not a whole number")?,
                ),
                _ => return Err("the view of a storage is not readable".into()),
            },
            _ => return Err("the id of a storage has too many parts".into()),
        };
        Ok(StorageRef { key: key.to_owned(), element: *element, len, first })
    }
}
