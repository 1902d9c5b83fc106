//! Finding NVIDIA's libraries: the driver, the compiler NVRTC, cuBLASLt for matrix products, and NCCL.
//!
//! They are loaded when a device is opened, not at build time or program start, so that one program runs with
//! and without them. The search covers the folders in [`LIBRARIES`], the system's search path (including
//! `LD_LIBRARY_PATH`), and the folders of NVIDIA's packages.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cudarc::{cublaslt, driver, nvrtc};

use crate::device::DeviceError;

/// Environment variable with folders to search first, separated as in `PATH`, for example that of the Python
/// package `nvidia-cuda-nvrtc`.
pub const LIBRARIES: &str = "GLOWFLOW_CUDA_LIBRARIES";

/// Folders in which packages install libraries, outside the system's search path.
const INSTALL_FOLDERS: [&str; 5] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
    "/opt/cuda/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
];

/// The files `lib{name}.so*` in these folders, in the order of the folders.
fn candidates(folders: &[PathBuf], name: &str) -> Vec<PathBuf> {
    let prefix = format!("lib{name}.so");
    let is_it = |path: &PathBuf| {
        path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&prefix))
    };
    let of_folder = |folder: &PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_it).collect();
        files.sort();
        files
    };
    folders.iter().flat_map(of_folder).collect()
}

/// These folders, and those that the environment names.
fn first_folders(folders: &[PathBuf]) -> Vec<PathBuf> {
    let named = std::env::var_os(LIBRARIES);
    let named = named.iter().flat_map(std::env::split_paths).filter(|folder| !folder.as_os_str().is_empty());
    folders.iter().cloned().chain(named).collect()
}

/// Candidate files of a library, in order: those in `folders` and in the environment's folders, then `file`,
/// which the system searches for, then those of packages.
pub fn files(folders: &[PathBuf], name: &str, file: &str) -> Vec<PathBuf> {
    let installed = INSTALL_FOLDERS.map(PathBuf::from);
    let mut files = candidates(&first_folders(folders), name);
    files.push(file.into());
    files.extend(candidates(&installed, name));
    files
}

/// Opens the first of a library's [`candidates`] that can be opened, and leaves it open, so that later calls
/// that open the library by its name alone get this one.
fn preload(folders: &[PathBuf], name: &str) -> bool {
    candidates(folders, name).iter().any(|path| open(path))
}

#[allow(unsafe_code)]
fn open(path: &Path) -> bool {
    // SAFETY: opening a library runs its initialisers. These are NVIDIA's, or those of a replacement chosen
    // by the user.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

/// Returns whether cudarc would find a library. cudarc opens libraries at the first call and panics if one is
/// missing, so this must be checked first.
#[allow(unsafe_code)]
fn present(name: &str) -> bool {
    // SAFETY: as for `open`.
    unsafe {
        match name {
            DRIVER => driver::sys::is_culib_present(),
            COMPILER => nvrtc::sys::is_culib_present(),
            _ => cublaslt::sys::is_culib_present(),
        }
    }
}

const DRIVER: &str = "cuda";
const COMPILER: &str = "nvrtc";
const PRODUCTS: &str = "cublasLt";
/// The compiler opens this library by name at its first use.
const BUILTINS: &str = "nvrtc-builtins";

fn missing(name: &str) -> &'static str {
    match name {
        DRIVER => "no NVIDIA driver was found (libcuda.so.1); install the one for your GPU",
        COMPILER => {
            "the run-time compiler NVRTC was not found (libnvrtc.so); install the CUDA toolkit, or the Python package \
             nvidia-cuda-nvrtc and name its folder in GLOWFLOW_CUDA_LIBRARIES"
        }
        _ => {
            "the library cuBLASLt was not found (libcublasLt.so); install the CUDA toolkit, or the Python package \
             nvidia-cublas and name its folder in GLOWFLOW_CUDA_LIBRARIES"
        }
    }
}

/// Checks that everything a GPU requires is present. `folders` are searched before those of the environment.
pub fn load(device: &str, folders: &[PathBuf]) -> Result<(), DeviceError> {
    load_all(device, &[DRIVER, COMPILER, PRODUCTS], folders)
}

/// Checks that the compiler is present.
pub fn load_compiler(folders: &[PathBuf]) -> Result<(), DeviceError> {
    load_all("cuda", &[COMPILER], folders)
}

fn load_all(device: &str, names: &[&str], folders: &[PathBuf]) -> Result<(), DeviceError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let first = first_folders(folders);
    let installed = INSTALL_FOLDERS.map(PathBuf::from);
    for &name in names {
        let with_builtins = |folders: &[PathBuf]| {
            if name == COMPILER {
                preload(folders, BUILTINS);
            }
            preload(folders, name)
        };
        with_builtins(&first);
        if !present(name) {
            with_builtins(&installed);
        }
        if !present(name) {
            let (device, reason) = (device.into(), missing(name).into());
            return Err(match name {
                DRIVER => DeviceError::Absent { device, reason },
                _ => DeviceError::Unavailable { device, reason },
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{candidates, files};

    #[test]
    fn earlier_folders_come_first() {
        let root = std::env::temp_dir().join(format!("glowflow-libraries-{}", std::process::id()));
        let folders = ["z", "missing", "a"].map(|folder| root.join(folder));
        for (folder, files) in
            [(&folders[0], ["libnvrtc.so.13", "libnvrtc.so"]), (&folders[2], ["libnvrtc.so", "libcuda.so"])]
        {
            fs::create_dir_all(folder).unwrap();
            files.iter().for_each(|file| fs::write(folder.join(file), "").unwrap());
        }
        let found = candidates(&folders, "nvrtc");
        let tried = files(&folders[..1], "nvrtc", "libnvrtc.so.13");
        fs::remove_dir_all(&root).unwrap();
        let want = ["z/libnvrtc.so", "z/libnvrtc.so.13", "a/libnvrtc.so"].map(|file| root.join(file));
        assert_eq!(found, want);
        assert_eq!(tried[..2], want[..2]);
        assert!(tried.contains(&"libnvrtc.so.13".into()), "{tried:?}");
    }
}
