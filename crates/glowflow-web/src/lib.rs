//! The latent space in the browser: a web page and its HTTP API.
//!
//! ```text
//! connection (places.rs) ──► access (access.rs) ──► handler (api/) ──► gate (gate.rs) ──► model (glowflow)
//!                                latents stay in the store (store.rs), the client gets an id ──┘
//! ```
//!
//! Every resource that a client can use is bounded ([`Limits`]): connections, their duration and idle time;
//! bytes and pixels of an upload, and bytes of all uploads together; images of a request, and their pixels;
//! images in the store and their lifetime; requests that compute and requests that wait. A request beyond a
//! bound is answered with a problem document ([`Problem`]). The time per image depends on the model: a
//! request that takes too long is abandoned, finishes the images in progress, and holds its slot until then.
//!
//! [`Access`] admits requests: it refuses pages of other sites and foreign names of this computer, and can
//! require a token. No part of a request ever becomes a path in the file system, and latents never leave the
//! server. Only one request writes a file: it stores eye positions in `eyes.toml` with the model, and only if
//! [`Demo::storing_eyes`] allows it.

mod access;
mod activity;
mod api;
mod demo;
mod detection;
mod eyes;
mod gate;
mod host;
mod limits;
mod page;
mod places;
mod problem;
mod server;
mod signals;
mod store;
mod token;

pub use access::{Access, AccessError};
pub use api::openapi;
pub use demo::Demo;
pub use detection::Face;
pub use limits::Limits;
pub use problem::Problem;
pub use server::{router, run};
#[cfg(unix)]
pub use signals::ignored_signals;
pub use token::Token;
