//! Writes files like `torch.save`, in variants that the fixtures lack.

use std::io::{Cursor, Write};

use half::{bf16, f16};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::State;

/// Element type of the storages.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    F64,
    F32,
    F16,
    BF16,
}

impl Type {
    fn storage(self) -> &'static str {
        match self {
            Self::F64 => "DoubleStorage",
            Self::F32 => "FloatStorage",
            Self::F16 => "HalfStorage",
            Self::BF16 => "BFloat16Storage",
        }
    }

    fn bytes(self, x: f64) -> Vec<u8> {
        match self {
            Self::F64 => x.to_le_bytes().to_vec(),
            Self::F32 => (x as f32).to_le_bytes().to_vec(),
            Self::F16 => f16::from_f64(x).to_le_bytes().to_vec(),
            Self::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        }
    }
}

/// A pickle under construction.
#[derive(Default)]
pub struct Pickle(Vec<u8>);

impl Pickle {
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub fn int(&mut self, int: usize) -> &mut Self {
        self.raw(b"J").raw(&(int as u32).to_le_bytes())
    }

    pub fn ints(&mut self, ints: &[usize]) -> &mut Self {
        self.raw(b"(");
        ints.iter().for_each(|&int| {
            self.int(int);
        });
        self.raw(b"t")
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn into_bytes(mut self) -> Vec<u8> {
        self.raw(b".");
        self.0
    }
}

/// The state dictionary of a module, an `OrderedDict` with `_metadata`, of parameters. All tensors are views
/// of one storage; matrices are stored transposed.
pub fn parameters(state: &State, kind: Type) -> Vec<u8> {
    let mut pickle = Pickle::default();
    pickle.raw(b"\x80\x02").global("collections", "OrderedDict").raw(b")R(");
    let total: usize = state.values().map(|(_, numbers)| numbers.len()).sum();
    let mut storage = vec![];
    let mut offset = 0;
    for (name, (shape, numbers)) in state {
        let (mut strides, mut stride) = (vec![0; shape.len()], 1);
        let transposed = shape.len() == 2;
        let axes: Vec<usize> = if transposed { vec![0, 1] } else { (0..shape.len()).rev().collect() };
        for axis in axes {
            strides[axis] = stride;
            stride *= shape[axis];
        }
        pickle.text(name).global("torch._utils", "_rebuild_parameter").raw(b"(");
        pickle.global("torch._utils", "_rebuild_tensor_v2").raw(b"((");
        pickle.text("storage").global("torch", kind.storage()).text("0").text("cuda:0").int(total).raw(b"tQ");
        pickle.int(offset).ints(shape).ints(&strides).raw(b"\x89");
        pickle.global("collections", "OrderedDict").raw(b")RtR");
        pickle.raw(b"\x88").global("collections", "OrderedDict").raw(b")RtR");
        for at in 0..numbers.len() {
            let at = if transposed { at % shape[0] * shape[1] + at / shape[0] } else { at };
            storage.extend(kind.bytes(numbers[at]));
        }
        offset += numbers.len();
    }
    pickle.raw(b"u}(").text("_metadata").global("collections", "OrderedDict").raw(b")Rub");
    archive(&[("archive/data.pkl", &pickle.into_bytes()), ("archive/data/0", &storage)])
}

/// A zip archive of stored entries.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    packed(entries, CompressionMethod::Stored)
}

pub fn packed(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, contents) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(contents).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An `.npz` in double precision; matrices are in Fortran order.
pub fn npz(state: &State, method: CompressionMethod) -> Vec<u8> {
    let array = |(name, (shape, numbers)): (&String, &(Vec<usize>, Vec<f64>))| {
        let fortran = shape.len() == 2;
        let order = if fortran { "True" } else { "False" };
        let sizes: String = shape.iter().map(|len| format!("{len}, ")).collect();
        let mut header = format!("{{'descr': '<f8', 'fortran_order': {order}, 'shape': ({sizes}), }}");
        header += &" ".repeat(63 - (10 + header.len()) % 64);
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        for at in 0..numbers.len() {
            let at = if fortran { at % shape[0] * shape[1] + at / shape[0] } else { at };
            bytes.extend(numbers[at].to_le_bytes());
        }
        (format!("{name}.npy"), bytes)
    };
    let arrays: Vec<_> = state.iter().map(array).collect();
    let entries: Vec<_> = arrays.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    packed(&entries, method)
}
