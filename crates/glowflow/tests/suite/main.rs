//! Integration tests, one module per subject. They form one program, so that the library's generic code is
//! compiled once; `reversible_memory` measures its whole process and is a separate one.

mod adapt;
mod bounds;
mod card;
mod common;
mod couplings;
mod data;
mod decoding;
mod dequantization;
mod dequantization_training;
mod device;
mod directions;
mod edge_prior;
mod evaluate;
mod files;
mod fine_tuning;
mod latent;
mod latents_file;
mod layers;
mod normalization;
mod observer;
mod optimizer;
mod pretrained;
mod ranks;
mod ranks_run;
mod reference;
mod run;
mod scale;
mod study;
mod training;
mod vectors;
