//! Safe wrapper of CUDA's driver: a device's context, streams, events, kernels, graphs.
//!
//! Every call checks its result. Calls that wait also report errors of previously queued work.

mod context;
mod errors;
mod event;
mod graph;
mod launch;
mod module;
mod pinned;
mod start;
mod stream;

pub use context::Context;
pub use event::Event;
pub use graph::Graph;
pub use launch::{Argument, Launch};
pub use module::{Kernel, Module, load_module};
pub use pinned::Pinned;
pub use start::start;
pub use stream::Stream;
