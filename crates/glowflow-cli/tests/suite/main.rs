//! Tests of the program from outside, one module per subject. One test binary takes less time to compile;
//! tests of several processes over MPI, which have time limits, are separate.

#[path = "../common/mod.rs"]
mod common;

mod align;
mod architectures;
mod commands;
mod cuda;
mod data;
mod errors;
mod exactness;
mod help;
mod import;
mod latent;
mod old_files;
mod outputs;
mod packages;
mod precision;
mod pretrained;
mod release;
mod resume;
mod serve;
mod shells;
mod speedrun;
mod study;
mod train;
