//! Tensors of a checkpoint, each read at most once: the tensors left at the end are unused or unknown.

use std::collections::BTreeSet;

use crate::Error;
use crate::array::Array;
use crate::checkpoint::Tensors;
use crate::matrix::permutation_index;
use crate::parts::Lu;

/// Maximum number of names that an error lists.
const SHOWN: usize = 5;
/// Maximum number of levels of a model.
pub(crate) const MAX_LEVELS: usize = 12;
/// Maximum number of steps of a level.
pub(crate) const MAX_STEPS: usize = 1 << 12;

/// Tensors by name.
pub(crate) struct Reader {
    tensors: Tensors,
    used: BTreeSet<String>,
}

impl Reader {
    pub fn new(tensors: Tensors) -> Self {
        Self { tensors, used: BTreeSet::new() }
    }

    /// Returns whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns whether any tensor name has this prefix.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.tensors.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The numbers `i` in names that begin with `prefix`, `i` and `separator`, in ascending order.
    pub fn indices(&self, prefix: &str, separator: char) -> Vec<usize> {
        let index = |name: &str| name.strip_prefix(prefix)?.split_once(separator)?.0.parse().ok();
        self.names().filter_map(index).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The number of consecutive indices from 0.
    pub fn count(&self, prefix: &str, separator: char, most: usize) -> Result<usize, Error> {
        let indices = self.indices(prefix, separator);
        if indices.len() > most {
            let count = indices.len();
            return Err(Error::model(format!(
                "there are {count} of {prefix}…; at most {most} are supported"
            )));
        }
        match indices.iter().enumerate().find(|&(i, &index)| i != index) {
            None if !indices.is_empty() => Ok(indices.len()),
            None => Err(Error::model(format!("there is no tensor {prefix}0{separator}…"))),
            Some((missing, _)) => {
                Err(Error::model(format!("there is no tensor {prefix}{missing}{separator}…")))
            }
        }
    }

    /// A tensor that must not be empty.
    fn get(&self, name: &str) -> Result<&Array, Error> {
        match self.tensors.get(name) {
            None => Err(Error::model(format!("the tensor {name} is missing"))),
            Some(array) if array.is_empty() => Err(Error::model(format!("the tensor {name} is empty"))),
            Some(array) => Ok(array),
        }
    }

    fn array(&mut self, name: &str) -> Result<&Array, Error> {
        self.used.insert(name.to_owned());
        self.get(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>, Error> {
        self.get(name).map(|array| array.shape.clone())
    }

    /// The shape of a tensor with N axes.
    pub fn axes<const N: usize>(&self, name: &str) -> Result<[usize; N], Error> {
        let shape = self.shape(name)?;
        shape
            .clone()
            .try_into()
            .map_err(|_| Error::model(format!("{name} has the shape {shape:?}; {N} axes are needed")))
    }

    /// Reads a tensor of finite floating-point numbers.
    pub fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Error> {
        let array = self.array(name)?;
        if array.shape != shape {
            let have = &array.shape;
            return Err(Error::model(format!("{name} has the shape {have:?}; {shape:?} is needed")));
        }
        finite(name, array)
    }

    /// Reads one number per channel: a tensor with one axis of this length and others of length 1.
    pub fn channels(&mut self, name: &str, channels: usize) -> Result<Vec<f64>, Error> {
        let array = self.array(name)?;
        let mut long = array.shape.iter().filter(|&&len| len != 1);
        let fits = match channels {
            1 => long.next().is_none(),
            _ => long.next() == Some(&channels) && long.next().is_none(),
        };
        if !fits {
            let have = &array.shape;
            return Err(Error::model(format!(
                "{name} has the shape {have:?}; {channels} channels are needed"
            )));
        }
        finite(name, array)
    }

    /// Reads a permutation of channels, given by its index.
    pub fn index(&mut self, name: &str, channels: usize) -> Result<Vec<usize>, Error> {
        let array = self.array(name)?;
        let mut seen = vec![false; channels];
        let numbers = if array.shape == [channels] { array.numbers() } else { vec![] };
        let index: Vec<usize> = numbers.iter().map(|&x| x as usize).collect();
        let whole = numbers.iter().zip(&index).all(|(&x, &i)| x == i as f64);
        let once = index.iter().all(|&i| i < channels && !std::mem::replace(&mut seen[i], true));
        if index.len() != channels || !whole || !once {
            return Err(Error::model(format!("{name} is not a permutation of {channels} channels")));
        }
        Ok(index)
    }

    /// Reads the LU form `P·(L + 1)·(U + diag(sign·exp(log_s)))` from tensors of these names.
    pub fn lu(&mut self, [p, lower, upper, sign, log_s]: [String; 5], channels: usize) -> Result<Lu, Error> {
        let square = [channels, channels];
        let sign_name = sign;
        let sign = self.channels(&sign_name, channels)?;
        if sign.iter().any(|sign| sign.abs() != 1.0) {
            return Err(Error::model(format!("{sign_name} holds something other than 1 and -1")));
        }
        let matrix = self.numbers(&p, &square)?;
        let index = permutation_index(&matrix, channels)
            .ok_or_else(|| Error::model(format!("{p} is not a permutation matrix")))?;
        Ok(Lu {
            index,
            sign,
            lower: self.numbers(&lower, &square)?,
            upper: self.numbers(&upper, &square)?,
            log_s: self.channels(&log_s, channels)?,
        })
    }

    /// Marks a redundant tensor as read.
    pub fn skip(&mut self, name: &str) {
        self.used.insert(name.to_owned());
    }

    /// Returns the names of tensors that were not read. Fails if one of them is not expected to be unused.
    pub fn finish(self, is_unused: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
        let left = self.tensors.into_keys().filter(|name| !self.used.contains(name));
        let (unused, unknown): (Vec<_>, Vec<_>) = left.partition(|name| is_unused(name));
        if unknown.is_empty() {
            return Ok(unused);
        }
        let shown = unknown.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = unknown.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::model(format!("unexpected tensors {shown}{more}")))
    }
}

fn finite(name: &str, array: &Array) -> Result<Vec<f64>, Error> {
    if !array.is_float() {
        return Err(Error::model(format!("{name} does not hold floating-point numbers")));
    }
    let numbers = array.numbers();
    match numbers.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(Error::model(format!(
            "{name} holds {x}, but weights must be finite: the file is damaged, or the training diverged"
        ))),
        None => Ok(numbers),
    }
}
