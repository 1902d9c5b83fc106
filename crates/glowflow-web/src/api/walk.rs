//! `walk`: a path through several images.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use glowflow::latent::between;
use glowflow::{Latents, Model};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::format::{Course, Format};
use super::images::{File, MAX_IDS, all_stored};
use crate::gate::Client;
use crate::store::Stored;
use crate::{Demo, Problem};

/// A path through images, in order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// The images, 2 to 8.
    #[schema(min_items = 2, max_items = 8)]
    ids: Vec<Uuid>,
    /// Frames from each image to the next, the first image included. An open path ends with one more frame,
    /// the last image. The total is at most `images` of `info`.
    #[schema(minimum = 1)]
    frames: usize,
    /// True if the path returns to the first image.
    #[serde(default)]
    closed: bool,
    /// Linear, or spherical along the great circle.
    #[serde(default)]
    path: Course,
    /// Format of the answer.
    #[serde(default)]
    format: Format,
}

impl Route {
    /// Validates the request; returns the images of the path.
    fn check(&self, demo: &Demo) -> Result<Vec<Arc<Stored>>, Problem> {
        let images = self.ids.len();
        if !(2..=MAX_IDS).contains(&images) {
            return Err(Problem::unprocessable(format!("{images} images: a walk needs 2 to {MAX_IDS}")));
        }
        let stored = all_stored(demo, &self.ids)?;
        let (pairs, last) = if self.closed { (images, 0) } else { (images - 1, 1) };
        let most = demo.images().saturating_sub(last) / pairs;
        if most == 0 {
            return Err(Problem::unprocessable(format!(
                "a walk through {images} images has {} frames or more, but a request can have only {} images of this \
                 model's size",
                pairs + last,
                demo.images()
            )));
        }
        if !(1..=most).contains(&self.frames) {
            let [height, width, _] = demo.config.image();
            return Err(Problem::unprocessable(format!(
                "{} frames from each image to the next: use 1 to {most} for {images} images of {width}×{height} \
                 pixels",
                self.frames
            )));
        }
        Ok(stored)
    }

    /// Points of the path: the indices of two images, and the position from the first to the second.
    fn points(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let (images, frames) = (self.ids.len(), self.frames);
        let pairs = if self.closed { images } else { images - 1 };
        let end = (!self.closed).then_some((images - 2, images - 1, 1.0));
        let pair = move |pair| {
            (0..frames).map(move |frame| (pair, (pair + 1) % images, frame as f64 / frames as f64))
        };
        (0..pairs).flat_map(pair).chain(end)
    }
}

/// Returns the frames of a path through several images. As PNG, they are side by side, each at its own size.
#[utoipa::path(
    post,
    path = "/api/v1/walk",
    request_body = Route,
    responses(
        (status = 200, description = "The frames, in the requested format",
            content((File = "image/png"), (File = "image/gif"), (File = "image/apng")),
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Other pixels are black and meaningless."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json",
            description = "No such image, or too many images or frames"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn walk(
    State(demo): Shared,
    request: Result<Json<Route>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(route) = request?;
    let images = route.check(&demo)?;
    let work = move |glow: &Model, client: &Client| {
        let (mut parts, mut labels) = (vec![], vec![]);
        for (a, b, t) in route.points() {
            let (a, b) = (&images[a], &images[b]);
            parts.push(between(&a.latents, &b.latents, t, route.path.into()));
            labels.extend(if t > 0.5 { &b.labels } else { &a.labels });
        }
        let walk = glow.decode_while(&Latents::concatenate(&parts)?, &labels, || client.check())?;
        let finite = walk.all_finite();
        route.format.frames(&walk.into_bytes(), glow.config().image(), finite)
    };
    demo.compute(work).await
}
