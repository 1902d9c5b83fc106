//! Compiles the kernels' source for the current GPU, and caches the result.
//!
//! Compilation takes seconds, so its result is cached in a folder of the user (`$XDG_CACHE_HOME/glowflow`, or
//! `~/.cache/glowflow`), under a name that depends on sources, compiler and GPU. An unwritable folder or a
//! damaged file only costs time.

use std::ffi::{CStr, CString, c_char};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::sys::{self, nvrtcResult};

use super::driver::{Context, Module, load_module};
use crate::device::DeviceError;

/// Source of all kernels; `common.cu` first, on which the others depend. It includes [`HEADERS`].
pub const SOURCE: &str = concat!(
    include_str!("kernels/common.cu"),
    include_str!("kernels/data.cu"),
    include_str!("kernels/patches.cu"),
    include_str!("kernels/channel_map.cu"),
    include_str!("kernels/weights.cu"),
    include_str!("../ops/coupling_network/hidden.cu"),
    include_str!("../ops/coupling_network/fused.cu"),
    include_str!("kernels/coupling.cu"),
    include_str!("../ops/mixture/mixture.cu"),
    include_str!("../ops/attention/attention.cu"),
    include_str!("kernels/gaussian.cu"),
    include_str!("kernels/update.cu"),
    include_str!("kernels/primitives.cu"),
    include_str!("kernels/depthwise.cu"),
    include_str!("kernels/sums.cu"),
);

/// Headers of [`SOURCE`], by the names in its `#include` directives. Each is the part of a file that uses the
/// tensor cores' instructions. The tests' emulated GPU cannot execute these, and replaces the headers.
pub const HEADERS: [(&str, &str); 2] = [
    ("hidden_hopper.cuh", include_str!("../ops/coupling_network/hidden_hopper.cuh")),
    ("fused_hopper.cuh", include_str!("../ops/coupling_network/fused_hopper.cuh")),
];

/// The compute capability of the Hopper generation, which has dedicated kernels.
pub const HOPPER: i32 = 90;

/// Compilation target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Machine code for this compute capability.
    Machine(i32),
    /// Portable code, which the driver compiles on load: for GPUs newer than the compiler.
    Portable(i32),
}

impl Target {
    /// The best target for a GPU, given the compiler's supported capabilities.
    pub fn choose(capability: i32, known: &[i32]) -> Option<Self> {
        if known.contains(&capability) {
            return Some(Self::Machine(capability));
        }
        known.iter().copied().filter(|&known| known < capability).max().map(Self::Portable)
    }

    fn option(self) -> String {
        match self {
            // With features specific to the Hopper generation.
            Self::Machine(HOPPER) => format!("--gpu-architecture=sm_{HOPPER}a"),
            Self::Machine(capability) => format!("--gpu-architecture=sm_{capability}"),
            Self::Portable(capability) => format!("--gpu-architecture=compute_{capability}"),
        }
    }
}

fn words(result: nvrtcResult) -> String {
    // SAFETY: the compiler returns static, terminated strings for every result.
    #[allow(unsafe_code)]
    unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(result)) }.to_string_lossy().into_owned()
}

fn check(result: nvrtcResult, what: &str) -> Result<(), String> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        result => Err(format!("{what}: {}", words(result))),
    }
}

/// The compiler's version and supported compute capabilities.
#[allow(unsafe_code)]
pub fn compiler() -> Result<((i32, i32), Vec<i32>), String> {
    let (mut major, mut minor, mut count) = (0, 0, 0);
    // SAFETY: out-pointers are to live variables, and the last one to the number of elements that the
    // compiler reported.
    unsafe {
        check(sys::nvrtcVersion(&mut major, &mut minor), "querying the compiler's version")?;
        check(sys::nvrtcGetNumSupportedArchs(&mut count), "querying the compiler's targets")?;
        let mut known = vec![0; count as usize];
        check(sys::nvrtcGetSupportedArchs(known.as_mut_ptr()), "querying the compiler's targets")?;
        Ok(((major, minor), known))
    }
}

/// A program owned by the compiler.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: created by `nvrtcCreateProgram` and owned by this value alone.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

/// Fetches an output of the compiler for a program: `size` returns its length, `get` the bytes.
#[allow(unsafe_code)]
fn fetch(
    program: &Program,
    size: unsafe fn(sys::nvrtcProgram, *mut usize) -> nvrtcResult,
    get: unsafe fn(sys::nvrtcProgram, *mut c_char) -> nvrtcResult,
) -> Result<Vec<u8>, String> {
    let mut len = 0;
    // SAFETY: the out-pointers are to a live variable, and to the number of bytes that the compiler reported.
    unsafe {
        check(size(program.0, &mut len), "compiling the kernels")?;
        let mut bytes = vec![0u8; len];
        check(get(program.0, bytes.as_mut_ptr().cast()), "compiling the kernels")?;
        Ok(bytes)
    }
}

/// Compiles CUDA C++ source, which may include [`HEADERS`].
///
/// # Errors
/// The compiler's log.
#[allow(unsafe_code)]
pub fn compile(source: &str, target: Target) -> Result<Vec<u8>, String> {
    let terminated = |text: &str| CString::new(text).map_err(|e| e.to_string());
    let source: CString = terminated(source)?;
    let mut headers: Vec<(CString, CString)> = Vec::new();
    for (name, text) in HEADERS {
        headers.push((terminated(name)?, terminated(text)?));
    }
    let names: Vec<*const c_char> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
    let texts: Vec<*const c_char> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
    let mut program = Program(std::ptr::null_mut());
    // SAFETY: strings are terminated and live through the calls; `texts` and `names` have one of each header.
    let created = unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            source.as_ptr(),
            c"glowflow.cu".as_ptr(),
            headers.len() as i32,
            texts.as_ptr(),
            names.as_ptr(),
        )
    };
    check(created, "passing the kernels to the compiler")?;
    let options = [target.option(), "--std=c++17".into()];
    let options = options.map(|option| CString::new(option).unwrap_or_default());
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: `pointers` holds this number of terminated options, all alive.
    let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    if result != nvrtcResult::NVRTC_SUCCESS {
        let log = fetch(&program, sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog)?;
        let log = String::from_utf8_lossy(&log);
        return Err(format!("compiling the kernels: {}\n{}", words(result), log.trim_end_matches('\0')));
    }
    match target {
        Target::Machine(_) => fetch(&program, sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN),
        Target::Portable(_) => fetch(&program, sys::nvrtcGetPTXSize, sys::nvrtcGetPTX),
    }
}

fn cache_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_CACHE_HOME")
        .or_else(|| Some(folder("HOME")?.join(".cache")))
        .map(|base| base.join("glowflow"))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Writes a file atomically, followed by its hash; a failure is harmless.
fn remember(path: &Path, image: &[u8]) {
    let Some(folder) = path.parent() else { return };
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&temporary, [image, &hash(image).to_le_bytes()].concat()))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
}

/// Reads a file written by [`remember`]. The driver does not receive the length of an image, so it must never
/// see a truncated one.
fn recall(path: &Path) -> Option<Vec<u8>> {
    let mut image = std::fs::read(path).ok()?;
    let end = image.len().checked_sub(8)?;
    let sum = image.split_off(end);
    (sum == hash(&image[..]).to_le_bytes()).then_some(image)
}

/// The kernels, loaded.
pub struct Compiled {
    pub module: Module,
    pub target: Target,
    /// The compiler's version.
    pub version: (i32, i32),
}

/// Loads the kernels, from the cache or compiled now.
pub fn module(context: &Context) -> Result<Compiled, DeviceError> {
    let failed = |reason| DeviceError::Unavailable { device: context.name.clone(), reason };
    let (version, known) = compiler().map_err(failed)?;
    if version.0 > context.driver / 1000 {
        return Err(failed(format!(
            "the compiler is that of CUDA {}.{}, but the NVIDIA driver supports only CUDA {}.{}; install a newer driver, or the \
             libraries of an older CUDA and name their folder in GLOWFLOW_CUDA_LIBRARIES",
            version.0,
            version.1,
            context.driver / 1000,
            context.driver % 1000 / 10
        )));
    }
    let target = Target::choose(context.capability, &known).ok_or_else(|| {
        let (major, minor) = (context.capability / 10, context.capability % 10);
        let (version, minor_version) = version;
        failed(format!(
            "the compiler of CUDA {version}.{minor_version} does not support GPUs as old as this one, of compute capability \
             {major}.{minor}; use an older CUDA"
        ))
    })?;
    let name = format!("kernels-{:016x}", hash((SOURCE, HEADERS, version, target.option(), &context.name)));
    let path = cache_folder().map(|folder| folder.join(name));
    if let Some(image) = path.as_ref().and_then(|path| recall(path))
        && let Ok(module) = load_module(context, &image)
    {
        return Ok(Compiled { module, target, version });
    }
    let image = compile(SOURCE, target).map_err(failed)?;
    let module = load_module(context, &image)?;
    if let Some(path) = path {
        remember(&path, &image);
    }
    Ok(Compiled { module, target, version })
}
