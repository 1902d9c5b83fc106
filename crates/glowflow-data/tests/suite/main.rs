//! Integration tests, one module per subject. They form one program, so that it is linked once.

mod align;
mod attributes;
mod broken;
mod cifar;
mod color_profiles;
mod common;
mod contents;
mod fit;
mod folder;
mod folder_splits;
#[cfg(unix)]
mod links;
mod mnist;
mod numpy;
#[cfg(target_os = "linux")]
mod odd_names;
mod portraits;
mod split;
mod system_errors;
mod system_files;
mod training;
mod transparency;
mod truncated;
