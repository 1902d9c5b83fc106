//! Substitutes for `libcuda`, `libnvrtc`, `libcublasLt` and `libnccl` that run on the CPU. With them, the
//! results of kernels, and of the code around them (streams, graphs, pools, failures), are tested without a
//! GPU.
//!
//! They are written in C++ and compiled with g++ on first use, to `cuda-emulator/KEY` in cargo's target
//! folder, so that `cargo clean` removes them. The key is a hash of sources, options, compiler and CPU:
//! after a change, another folder is used. Kernels that they compile are cached there, too, and contain the
//! key: the driver rejects those of another build. A build happens in a separate folder, named after the
//! process, which is renamed when it is complete. Of several processes that build concurrently, the first to
//! finish provides the libraries for all.
//!
//! [`libraries`] returns their folder. A test loads them by full path, in any order, before any code opens
//! CUDA by name:
//!
//! ```ignore
//! let Some(folder) = cuda_emulator::libraries() else { return };
//! for name in cuda_emulator::NAMES {
//!     std::mem::forget(unsafe { libloading::Library::new(folder.join(name)) }.unwrap());
//! }
//! ```
//!
//! `glowflow_kernels::Cuda` does the same with the folders passed to it ([`gpu`]). The loader then returns
//! the loaded libraries to any code that opens `libcuda.so` and the others by name. Kernels are also compiled
//! with g++, without `__CUDA_ARCH__`. A header of theirs that has a stand-in, a file of the same name in
//! `emulator/stand_ins/`, is replaced by it.
//!
//! Environment variables, read on every call, change the device or inject failures:
//!
//! | | |
//! | --- | --- |
//! | `CUDA_EMULATOR_MEMORY=BYTES` | the device's memory; 2 GiB otherwise |
//! | `CUDA_EMULATOR_FAIL_LAUNCH=N` | the `N`-th kernel of the process fails, as does every later call |
//! | `CUDA_EMULATOR_DRIVER_VERSION=12000` | the driver's version; 13000 otherwise |
//! | `CUDA_EMULATOR_DEVICES=N` | the number of devices, up to 16; 1 otherwise |
//! | `CUDA_EMULATOR_MULTIPROCESSORS=N` | the number of multiprocessors; 132 otherwise |
//! | `CUDA_EMULATOR_LAZY=1` | streams and graph branches run only when waited for: shows missing waits |
//! | `CUDA_EMULATOR_ORDER=reverse` | blocks and threads run from last to first: shows missing barriers |
//! | `NCCL_EMULATOR_VERSION=21403` | the version of NCCL; 2.30.7 otherwise |
//! | `NCCL_EMULATOR_SILENT=RANK:N` | this rank sends and receives nothing from its `N`-th group on |
//! | `NCCL_EMULATOR_ERROR=RANK:N` | this rank reports an error of the network from its `N`-th group on |
//!
//! Ranks of NCCL are processes, or threads of one process that each have a device. The library is in a
//! separate folder ([`nccl`]), so that tests can also run without it.
//!
//! Errors in kernels end the process with a message that names the kernel: an access outside an allocation,
//! threads that deadlock or wait in different barriers, writes past the end of dynamic shared memory, an
//! integer division by zero. Memory that was never written reads as NaN, as does a shuffle from a lane that
//! does not exist.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::OnceLock;

/// File names of the libraries in the folder of [`libraries`], also their names for the loader.
pub const NAMES: [&str; 3] = ["libcuda.so", "libnvrtc.so", "libcublasLt.so"];

const SOURCES: [(&str, &str); 17] = [
    ("cublasLt.cpp", include_str!("emulator/cublasLt.cpp")),
    ("cuda.cpp", include_str!("emulator/cuda.cpp")),
    ("cuda_memory.cpp", include_str!("emulator/cuda_memory.cpp")),
    ("cuda_modules.cpp", include_str!("emulator/cuda_modules.cpp")),
    ("cuda_streams.cpp", include_str!("emulator/cuda_streams.cpp")),
    ("cuda_types.h", include_str!("emulator/cuda_types.h")),
    ("device.h", include_str!("emulator/device.h")),
    ("driver.h", include_str!("emulator/driver.h")),
    ("fibers.cpp", include_str!("emulator/fibers.cpp")),
    ("fibers.h", include_str!("emulator/fibers.h")),
    ("kernel_abi.h", include_str!("emulator/kernel_abi.h")),
    ("memory.h", include_str!("emulator/memory.h")),
    ("nccl.cpp", include_str!("emulator/nccl.cpp")),
    ("nvrtc.cpp", include_str!("emulator/nvrtc.cpp")),
    ("stand_ins/fused_hopper.cuh", include_str!("emulator/stand_ins/fused_hopper.cuh")),
    ("stand_ins/hidden_hopper.cuh", include_str!("emulator/stand_ins/hidden_hopper.cuh")),
    ("streams.h", include_str!("emulator/streams.h")),
];

const COMMON: [&str; 6] =
    ["-std=c++17", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-Wl,-z,defs"];

/// Each library with what its build needs; cuBLASLt and NCCL put their work on the streams of libcuda.
const BUILDS: [(&str, &[&str], &[&str]); 4] = [
    (
        "libcuda.so",
        &["cuda.cpp", "cuda_memory.cpp", "cuda_modules.cpp", "cuda_streams.cpp", "fibers.cpp"],
        &["-O2", "-ldl"],
    ),
    ("libnvrtc.so", &["nvrtc.cpp"], &["-O2", "-ldl"]),
    (
        "libcublasLt.so",
        &["cublasLt.cpp"],
        &["-O3", "-march=native", "-L.", "-l:libcuda.so", "-Wl,-rpath,$ORIGIN", "-Wl,--disable-new-dtags"],
    ),
    (
        "nccl/libnccl.so.2",
        &["nccl.cpp"],
        &["-O2", "-L.", "-l:libcuda.so", "-Wl,-rpath,$ORIGIN/..", "-Wl,--disable-new-dtags"],
    ),
];

/// Returns the folder that holds the libraries of [`NAMES`]. Without Linux, or without a g++ for the processor
/// of this program, prints a message to stderr and returns `None`.
///
/// They are built once and cached in cargo's target folder. Several processes may call this concurrently.
///
/// # Panics
///
/// If g++ is present but the build fails.
pub fn libraries() -> Option<PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(find_or_build).clone()
}

/// The folder that holds `libnccl.so.2`; `None` as for [`libraries`].
///
/// # Panics
///
/// As [`libraries`].
pub fn nccl() -> Option<PathBuf> {
    Some(libraries()?.join("nccl"))
}

/// A GPU to test with: that of the machine if `open` succeeds without additional folders of libraries, and
/// otherwise the emulated one. If that is unavailable too, prints a message to stderr and returns `None`.
///
/// # Panics
///
/// If the emulated GPU fails to open.
pub fn gpu<G, E: std::fmt::Display>(open: impl Fn(&[PathBuf]) -> Result<G, E>) -> Option<G> {
    if let Ok(gpu) = open(&[]) {
        return Some(gpu);
    }
    match open(&[libraries()?]) {
        Ok(gpu) => Some(gpu),
        Err(error) => panic!("the emulated GPU failed to open: {error}"),
    }
}

fn find_or_build() -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: the CUDA emulator runs on Linux only");
        return None;
    }
    let Some((compiler, target)) = compiler("--version").zip(compiler("-dumpmachine")) else {
        eprintln!("skipped: no g++ to build the CUDA emulator with");
        return None;
    };
    // A program can run on another processor than that of the machine, under an emulator of its own.
    if !target.starts_with(env::consts::ARCH) {
        eprintln!("skipped: g++ compiles for {}, not for {}", target.trim_end(), env::consts::ARCH);
        return None;
    }
    let key: u64 = key(&compiler);
    let folder = target_folder().join("cuda-emulator").join(format!("{key:016x}"));
    if !folder.is_dir() {
        build(&folder, key).unwrap_or_else(|error| panic!("cannot build the CUDA emulator: {error}"));
    }
    Some(folder)
}

/// Cargo's target folder that contains the running program, or else the workspace's default. Cargo writes a
/// file with one of these names into it.
fn target_folder() -> PathBuf {
    let program: PathBuf = env::current_exe().unwrap_or_default();
    let is_target =
        |folder: &&Path| ["CACHEDIR.TAG", ".rustc_info.json"].iter().any(|name| folder.join(name).is_file());
    match program.ancestors().find(is_target) {
        Some(folder) => folder.to_path_buf(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
    }
}

/// Output of g++ for an option.
fn compiler(option: &str) -> Option<String> {
    let output = Command::new("g++").arg(option).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A hash of everything that the libraries and the cached kernels depend on, including the CPU, because of
/// `-march=native`.
fn key(compiler: &str) -> u64 {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = processor.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let mut hasher = DefaultHasher::new();
    (SOURCES, COMMON, BUILDS, compiler, features).hash(&mut hasher);
    hasher.finish()
}

/// Builds in a temporary folder and renames it, so that the folder exists only when it is complete.
fn build(folder: &Path, key: u64) -> io::Result<()> {
    let aside = folder.with_extension(process::id().to_string());
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::create_dir_all(aside.join("stand_ins"))?;
    for (name, text) in SOURCES {
        fs::write(aside.join(name), text)?;
    }
    fs::write(aside.join("build_key.h"), format!("#define EMULATOR_BUILD_KEY 0x{key:x}ull\n"))?;
    for (library, sources, options) in BUILDS {
        let (folder, name) = library.rsplit_once('/').unwrap_or((".", library));
        fs::create_dir_all(aside.join(folder))?;
        let output = Command::new("g++")
            .current_dir(&aside)
            .args(COMMON)
            .arg(format!("-Wl,-soname,{name}"))
            .args(["-o", library])
            .args(sources)
            .args(options)
            .output()?;
        if !output.status.success() {
            let messages = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("g++ on {library}:\n{messages}")));
        }
    }
    match fs::rename(&aside, folder) {
        // Another process was faster; its libraries are the same.
        Err(_) if folder.is_dir() => fs::remove_dir_all(&aside),
        result => result,
    }
}
