//! Integration tests, one module per subject. They form one program, so that the library's generic code is
//! compiled once; `hostile` measures its whole process and is a separate one.

mod common;
mod peers;
mod programs;
mod variants;
