//! Reader for the pickles that `torch.save` writes.
//!
//! A pickle is a program for a stack machine. This one has a fixed list of opcodes, and of the names that a pickle may
//! refer to ([`Global`]); any other is an error that names it. Nothing is imported or executed.
//!
//! Lists, tuples and dictionaries lie in one table and refer to each other by number, so nesting costs no recursion.
//! Memory is proportional to the pickle: an instruction makes at most one value, and moves the others.

mod call;
mod global;
mod machine;

pub(crate) use global::Global;
pub(crate) use machine::load;

/// A Python value. Containers are numbers in the tables of [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: PyTorch's magic number, or something that is not needed.
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

/// The storage of a tensor, as a pickle refers to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StorageRef {
    /// Its name in the file.
    pub key: String,
    pub element: crate::element::Element,
    /// Numbers of the storage.
    pub len: usize,
    /// Number of the first element that belongs to it.
    pub first: usize,
}

/// A tensor, as a pickle describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorRef {
    pub storage: usize,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Everything that a pickle refers to.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub texts: Vec<String>,
    pub sequences: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<StorageRef>,
    pub tensors: Vec<TensorRef>,
}

impl Objects {
    /// A text.
    pub fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(at) => self.texts.get(at).map(String::as_str),
            _ => None,
        }
    }

    /// A tuple or list.
    pub fn sequence(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Sequence(at) => self.sequences.get(at).map(Vec::as_slice),
            _ => None,
        }
    }

    /// A dictionary, in its order.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match value {
            Value::Dict(at) => self.dicts.get(at).map(Vec::as_slice),
            _ => None,
        }
    }

    /// A value of a dictionary.
    pub fn item(&self, dict: Value, key: &str) -> Option<Value> {
        self.dict(dict)?.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|&(_, value)| value)
    }
}

/// A whole number that is not negative.
pub(crate) fn size(value: Value) -> Option<usize> {
    match value {
        Value::Int(int) => int.try_into().ok(),
        _ => None,
    }
}
