//! The latent space in the browser: one page, and the HTTP API behind it.
//!
//! ```text
//! request ──► headers, time limit ──► handler (api.rs) ──► gate (gate.rs) ──► model (glowflow)
//!                                        └── latents stay in the store (store.rs), the client gets an id
//! ```
//!
//! What a client can do is bounded everywhere: bytes and pixels of an upload, images in the store and how long they stay,
//! requests that compute and requests that wait. Whatever is beyond a bound is answered with a problem document
//! ([`Problem`]). No part of a request ever becomes a path in the file system, and latents never leave the server.

mod api;
mod demo;
mod gate;
mod limits;
mod page;
mod problem;
mod server;
mod store;

pub use api::openapi;
pub use demo::{Demo, Eyes};
pub use limits::Limits;
pub use problem::Problem;
pub use server::{router, run};
