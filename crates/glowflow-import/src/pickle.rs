//! Reader for pickles written by `torch.save`.
//!
//! A pickle is a program for a stack machine. This one supports a fixed list of opcodes and of names that a
//! pickle may refer to ([`Global`]); any other opcode or name is an error that states it. Nothing is imported
//! or executed.
//!
//! Lists, tuples and dictionaries are stored in one table and refer to each other by index, so nesting does
//! not recurse. Memory is proportional to the pickle: whatever an instruction copies has a limited length.

mod call;
mod global;
mod machine;

pub(crate) use global::Global;
pub(crate) use machine::load;

/// A Python value. Containers are indices into the tables of [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: PyTorch's magic number, or one that is not needed.
    Long(u128),
    Float(f64),
    Text(usize),
    /// A tuple or list.
    Sequence(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// A reference to the storage of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StorageRef {
    /// Its name in the file.
    pub key: String,
    pub element: crate::element::Element,
    /// Number of elements.
    pub len: usize,
    /// Index of the first element that belongs to it.
    pub first: usize,
}

/// The description of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    pub storage: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// All values that a pickle refers to.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub texts: Vec<String>,
    pub sequences: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<StorageRef>,
    pub tensors: Vec<TensorRef>,
    /// Number of dictionary items copied from lists.
    copied: usize,
}

impl Objects {
    /// The content of a text.
    pub fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(at) => self.texts.get(at).map(String::as_str),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn sequence(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Sequence(at) => self.sequences.get(at).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The items of a dictionary, in order.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(at) => self.dicts.get(at).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Looks up a value in a dictionary.
    pub fn item(&self, dict: Value, key: &str) -> Option<Value> {
        self.dict(dict)?.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|&(_, value)| value)
    }
}

/// Converts a non-negative integer.
pub(crate) fn size(value: Value) -> Option<usize> {
    match value {
        Value::Int(int) => int.try_into().ok(),
        _ => None,
    }
}
