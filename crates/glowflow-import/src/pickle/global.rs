//! Names that a pickle may refer to.

use crate::element::Element;

/// A class or function that checkpoints refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch.Size`
    Size,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and the other storage types
    Storage(Element),
}

impl Global {
    /// The global with this module and name, if it is supported.
    pub fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch" | "torch.cuda", storage) => Self::Storage(match storage {
                "DoubleStorage" => Element::F64,
                "FloatStorage" => Element::F32,
                "HalfStorage" => Element::F16,
                "BFloat16Storage" => Element::BF16,
                "LongStorage" => Element::I64,
                "IntStorage" => Element::I32,
                "ShortStorage" => Element::I16,
                "CharStorage" => Element::I8,
                "ByteStorage" => Element::U8,
                "BoolStorage" => Element::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}
