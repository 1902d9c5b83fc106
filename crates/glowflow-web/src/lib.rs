//! The latent space in the browser: one page, and the HTTP API behind it.
//!
//! ```text
//! connection (places.rs) ──► access (access.rs) ──► handler (api/) ──► gate (gate.rs) ──► model (glowflow)
//!                                latents stay in the store (store.rs), the client gets an id ──┘
//! ```
//!
//! What a client can do is bounded everywhere ([`Limits`]): connections, how long they last and how long they may say
//! nothing; bytes and pixels of an upload, and bytes of all uploads together; images of a request, and their pixels; images
//! in the store and how long they stay; requests that compute and requests that wait. Whatever is beyond a bound of requests is
//! answered with a problem document ([`Problem`]). How long an image takes is the model's affair: a request that takes too
//! long is given up, computes to the end of the images that it is at, and keeps its place until then.
//!
//! [`Access`] decides about requests: it refuses pages of other sites and foreign names of this computer, and can
//! demand a token. No part of a request ever becomes a path in the file system, and latents never leave the server.
//! One request writes a file: the positions of the eyes, into `eyes.toml` with the model, and only if
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
