//! The kernels of the loaded module, by name.

use super::driver::{Context, Kernel, Module};
use super::product::Element;
use crate::device::DeviceError;

macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        /// Every kernel of `kernels/*.cu`.
        pub struct Kernels {
            $(pub $name: Kernel,)*
        }

        impl Kernels {
            /// Looks up every kernel, so that a missing one is detected at once.
            pub fn find(context: &Context, module: Module) -> Result<Self, DeviceError> {
                Ok(Self {
                    $($name: module.kernel(context, match std::ffi::CStr::from_bytes_with_nul(
                        concat!(stringify!($name), "\0").as_bytes(),
                    ) {
                        Ok(name) => name,
                        Err(_) => c"",
                    })?,)*
                })
            }
        }
    };
}

kernels! {
    add_parts, add_shifted, add_shifted_back, affine, affine_wide, begin_report,
    channel_map_gradient, channel_map_fused_backward, check_finite, col2im, couple, couple_backward,
    depthwise, depthwise_taps, dequantize, edge_sums, final_prior, final_prior_backward,
    fold_conv_f32, fold_network_bf16, fold_network_f32, gather_back_bf16, gather_back_f32, im2col,
    initialize_actnorm, make_channel_maps, map, mask_and_sum_bf16, mask_and_sum_f32, mix, mix_backward,
    normal, outer_sums, patches_bf16, patches_f32, quantize, reduce, reduce_parts, softmax, softmax_backward,
    split, squared_norm, squeeze, standardize, standardize_backward, sum_parts, sum_slabs, uncouple,
    unfold_conv, unfold_network, uniform_numbers,
    unmix, unstandardize, update,
}

/// The kernels for one element type of matrices.
#[derive(Clone, Copy)]
pub struct Typed {
    pub fold_network: Kernel,
    pub gather_back: Kernel,
    pub mask_and_sum: Kernel,
    pub patches: Kernel,
}

impl Kernels {
    pub fn of(&self, element: Element) -> Typed {
        match element {
            Element::F32 => Typed {
                fold_network: self.fold_network_f32,
                gather_back: self.gather_back_f32,
                mask_and_sum: self.mask_and_sum_f32,
                patches: self.patches_f32,
            },
            Element::Bf16 => Typed {
                fold_network: self.fold_network_bf16,
                gather_back: self.gather_back_bf16,
                mask_and_sum: self.mask_and_sum_bf16,
                patches: self.patches_bf16,
            },
        }
    }
}
