//! Integration tests, one module per subject. They form one program, so that it is linked once.

mod comparison;
mod curve;
mod events;
mod file;
mod metrics;
mod picture;
mod progress;
