//! Compiled modules and their kernels.

use std::ffi::CStr;

use cudarc::driver::sys;

use super::Context;
use crate::device::DeviceError;

/// A kernel of the loaded module. Modules are never unloaded while their context lives.
#[derive(Clone, Copy)]
pub struct Kernel {
    pub(super) name: &'static str,
    pub(super) raw: sys::CUfunction,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Kernel {}
#[allow(unsafe_code)]
unsafe impl Sync for Kernel {}

/// Loads a compiled module permanently.
#[allow(unsafe_code)]
pub fn load_module(context: &Context, image: &[u8]) -> Result<Module, DeviceError> {
    context.enter()?;
    let mut raw = std::ptr::null_mut();
    // SAFETY: the driver reads a complete cubin or a terminated PTX text, as produced by the compiler.
    context
        .check(unsafe { sys::cuModuleLoadData(&mut raw, image.as_ptr().cast()) }, "loading the kernels")?;
    Ok(Module { raw })
}

/// A loaded module.
#[derive(Clone, Copy)]
pub struct Module {
    raw: sys::CUmodule,
}

impl Module {
    /// Looks up a kernel by name.
    #[allow(unsafe_code)]
    pub fn kernel(self, context: &Context, name: &'static CStr) -> Result<Kernel, DeviceError> {
        let text = name.to_str().unwrap_or_default();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the name is terminated, and the module is loaded.
        context.check(unsafe { sys::cuModuleGetFunction(&mut raw, self.raw, name.as_ptr()) }, text)?;
        Ok(Kernel { name: text, raw })
    }

    /// Looks up a kernel whose blocks need `bytes` of shared memory.
    #[allow(unsafe_code)]
    pub fn kernel_with_shared(
        self,
        context: &Context,
        name: &'static CStr,
        bytes: usize,
    ) -> Result<Kernel, DeviceError> {
        let kernel = self.kernel(context, name)?;
        let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the kernel is loaded.
        context.check(unsafe { sys::cuFuncSetAttribute(kernel.raw, most, bytes as i32) }, kernel.name)?;
        Ok(kernel)
    }
}
