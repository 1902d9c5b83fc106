//! NumPy's element types, as `.npy` headers describe them.

use std::fmt;

use half::f16;

/// Numeric element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ElementType {
    pub kind: Kind,
    /// Bytes per element.
    pub size: usize,
    big_endian: bool,
}

/// Kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Unsigned,
    Signed,
    Float,
}

impl ElementType {
    /// Parses a description such as `|u1` or `>i8`, or a name such as `uint8`. The error is the name of a
    /// non-numeric type.
    pub fn parse(description: &str) -> Result<Self, String> {
        let order = description.chars().next().filter(|order| "<>|=".contains(*order));
        let code = &description[order.map_or(0, char::len_utf8)..];
        let (kind, size) = match code {
            "b1" | "?" | "bool" => (Kind::Bool, 1),
            "u1" | "uint8" => (Kind::Unsigned, 1),
            "u2" | "uint16" => (Kind::Unsigned, 2),
            "u4" | "uint32" => (Kind::Unsigned, 4),
            "u8" | "uint64" => (Kind::Unsigned, 8),
            "i1" | "int8" => (Kind::Signed, 1),
            "i2" | "int16" => (Kind::Signed, 2),
            "i4" | "int32" => (Kind::Signed, 4),
            "i8" | "int64" => (Kind::Signed, 8),
            "f2" | "float16" => (Kind::Float, 2),
            "f4" | "float32" => (Kind::Float, 4),
            "f8" | "float64" => (Kind::Float, 8),
            _ => {
                return Err(match code.chars().next() {
                    Some('O') => "Python objects (pickled)".into(),
                    Some('U' | 'S' | 'a') => format!("text ({description})"),
                    Some('c') => format!("complex numbers ({description})"),
                    Some('M' | 'm') => format!("dates ({description})"),
                    _ => format!("the unknown type {description}"),
                });
            }
        };
        Ok(Self { kind, size, big_endian: order == Some('>') })
    }

    /// Returns whether elements are unsigned bytes.
    pub fn is_byte(self) -> bool {
        self.kind == Kind::Unsigned && self.size == 1
    }

    /// Passes the value of each element to `each`. Integers beyond 2⁵³ are rounded.
    pub fn values(self, elements: &[u8], mut each: impl FnMut(f64)) {
        macro_rules! each {
            ($number:ty) => {
                for &element in elements.as_chunks().0 {
                    let number = match self.big_endian {
                        true => <$number>::from_be_bytes(element),
                        false => <$number>::from_le_bytes(element),
                    };
                    each(f64::from(number));
                }
            };
            ($number:ty as f64) => {
                for &element in elements.as_chunks().0 {
                    each(match self.big_endian {
                        true => <$number>::from_be_bytes(element) as f64,
                        false => <$number>::from_le_bytes(element) as f64,
                    });
                }
            };
        }
        match (self.kind, self.size) {
            (Kind::Signed, 1) => each!(i8),
            (Kind::Signed, 2) => each!(i16),
            (Kind::Signed, 4) => each!(i32),
            (Kind::Signed, _) => each!(i64 as f64),
            (Kind::Float, 2) => each!(f16),
            (Kind::Float, 4) => each!(f32),
            (Kind::Float, _) => each!(f64),
            (_, 1) => each!(u8),
            (_, 2) => each!(u16),
            (_, 4) => each!(u32),
            _ => each!(u64 as f64),
        }
    }
}

impl fmt::Display for ElementType {
    /// NumPy's name of the type, such as `uint8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Bool => return f.write_str("bool"),
            Kind::Unsigned => "uint",
            Kind::Signed => "int",
            Kind::Float => "float",
        };
        write!(f, "{name}{}", 8 * self.size)
    }
}
