//! Integration tests, one module per subject. They form one program, so that the library's generic code is
//! compiled once.

mod access;
mod api;
mod connections;
