//! Storage of a model's tensors in a file, by name.

use std::path::Path;

use super::builder::Constant;
use super::layout::{ConstantType, Layout, Parameter};
use crate::Error;
use crate::tensor_file::{TensorData, TensorFile};

/// Adds the constants to a file.
pub(crate) fn put_constants(file: &mut TensorFile, layout: &Layout, constants: &[Constant]) {
    for (at, constant) in layout.constants.iter().zip(constants) {
        let tensor = match constant {
            Constant::Permutation(index) => TensorData::i64(&[at.len], index.iter().map(|&i| i as i64)),
            Constant::Signs(signs) => {
                TensorData::f32(&[at.len], &signs.iter().map(|&s| s as f32).collect::<Vec<_>>())
            }
        };
        file.tensors.insert(at.name.clone(), tensor);
    }
}

/// Removes the constants from a file, validated.
pub(crate) fn take_constants(
    file: &mut TensorFile,
    layout: &Layout,
    path: &Path,
) -> Result<Vec<Constant>, Error> {
    let constants = layout.constants.iter().map(|at| {
        let (name, len) = (&at.name, at.len);
        let tensor = take(file, name, &[len], path)?;
        match at.kind {
            ConstantType::Permutation => {
                let index: Option<Vec<usize>> =
                    tensor.to_i64().map(|index| index.iter().map(|&i| i as usize).collect());
                let index = index.unwrap_or_default();
                let mut seen = vec![false; len];
                let wrong = index.iter().find(|&&i| i >= len || std::mem::replace(&mut seen[i], true));
                match wrong.copied() {
                    None if index.len() == len => Ok(Constant::Permutation(index)),
                    None => Err(Error::file(path, format!("{name} does not hold whole numbers"))),
                    Some(i) => {
                        // The file's number, which may be negative.
                        let i = i as i64;
                        let why = format!("{i} is repeated or not a valid channel");
                        Err(Error::file(
                            path,
                            format!("{name} is not a permutation of {len} channels: {why}"),
                        ))
                    }
                }
            }
            ConstantType::Signs => {
                let signs = tensor.to_f64().unwrap_or_default();
                match signs.iter().find(|sign| sign.abs() != 1.0) {
                    None if signs.len() == len => Ok(Constant::Signs(signs)),
                    None => Err(Error::file(path, format!("{name} does not hold numbers"))),
                    Some(other) => {
                        Err(Error::file(path, format!("{name} holds {other}, which is not 1 or -1")))
                    }
                }
            }
        }
    });
    constants.collect()
}

/// Adds a flat buffer to a file, one tensor for each of `tensors`, with the name prefixed by `prefix`.
pub(crate) fn put_flat(file: &mut TensorFile, tensors: &[Parameter], prefix: &str, values: &[f32]) {
    for tensor in tensors {
        let data = TensorData::f32(&tensor.shape, &values[tensor.span.range()]);
        file.tensors.insert(format!("{prefix}{}", tensor.name), data);
    }
}

/// Removes a flat buffer from a file.
pub(crate) fn take_flat(
    file: &mut TensorFile,
    tensors: &[Parameter],
    prefix: &str,
    path: &Path,
) -> Result<Vec<f32>, Error> {
    // All tensors are checked before memory of their declared size is allocated.
    let data = tensors
        .iter()
        .map(|tensor| {
            let name = format!("{prefix}{}", tensor.name);
            take(file, &name, &tensor.shape, path).map(|data| (name, data))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut values = vec![0.0; tensors.last().map_or(0, |last| last.span.start + last.span.len)];
    for (tensor, (name, data)) in tensors.iter().zip(data) {
        let numbers = data
            .to_f64()
            .ok_or_else(|| Error::file(path, format!("{name} does not hold floating-point numbers")))?;
        values[tensor.span.range()].iter_mut().zip(numbers).for_each(|(to, x)| *to = x as f32);
    }
    Ok(values)
}

fn take(file: &mut TensorFile, name: &str, shape: &[usize], path: &Path) -> Result<TensorData, Error> {
    let tensor = file
        .tensors
        .remove(name)
        .ok_or_else(|| Error::file(path, format!("the tensor {name} is missing")))?;
    if tensor.shape != shape {
        let have = &tensor.shape;
        return Err(Error::file(
            path,
            format!("{name} has the shape {have:?}; the configuration requires {shape:?}"),
        ));
    }
    Ok(tensor)
}
