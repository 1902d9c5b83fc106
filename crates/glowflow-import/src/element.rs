//! Element types of tensors, little-endian.

use half::{bf16, f16};

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Returns whether this is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// Reads the number at the start of `bytes`; `None` if there are too few bytes. Integers beyond 2⁵³ are
    /// rounded.
    pub fn read(self, bytes: &[u8]) -> Option<f64> {
        fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
            bytes.first_chunk().copied()
        }
        Some(match self {
            Self::F64 => f64::from_le_bytes(first(bytes)?),
            Self::F32 => f32::from_le_bytes(first(bytes)?).into(),
            Self::F16 => f16::from_le_bytes(first(bytes)?).into(),
            Self::BF16 => bf16::from_le_bytes(first(bytes)?).into(),
            Self::I64 => i64::from_le_bytes(first(bytes)?) as f64,
            Self::I32 => i32::from_le_bytes(first(bytes)?).into(),
            Self::I16 => i16::from_le_bytes(first(bytes)?).into(),
            Self::I8 => i8::from_le_bytes(first(bytes)?).into(),
            Self::U8 | Self::Bool => bytes.first().copied()?.into(),
        })
    }
}
