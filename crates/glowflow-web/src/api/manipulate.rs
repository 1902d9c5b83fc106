//! `manipulate`: changes attributes of an image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Response;
use glowflow::latent::{self, Directions};
use glowflow::{Error, Latents, Model};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Shared;
use super::format::Format;
use super::images::{File, stored};
use crate::Problem;
use crate::gate::Client;

/// Amounts by attribute.
type Amounts = BTreeMap<String, f64>;

/// Parameters of a change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manipulate {
    /// The image.
    id: Uuid,
    /// Distance along each attribute's direction, −3 to 3. A distance of 1 leads from the mean of the images
    /// without the attribute to the mean of those with it.
    #[schema(example = json!({ "Smiling": 0.7 }))]
    amounts: Amounts,
    /// Amounts of the first frame; by default those of the image itself.
    #[serde(default)]
    from: Option<Amounts>,
    /// Number of frames from `from` to `amounts`, including both: at least 2, at most `images` of `info`. By
    /// default, the answer is one image at `amounts`.
    #[schema(minimum = 2)]
    frames: Option<usize>,
    /// Format of the answer.
    #[serde(default)]
    format: Format,
}

impl Manipulate {
    /// Amounts of each frame.
    fn frames(self, most: usize, [height, width, _]: [usize; 3]) -> Result<Vec<Amounts>, Problem> {
        let frames = match (self.frames, self.from.is_some()) {
            (None, false) => return Ok(vec![self.amounts]),
            (None, true) => return Err(Problem::unprocessable("\"from\" needs \"frames\"")),
            (Some(frames), _) => frames,
        };
        if !(2..=most).contains(&frames) {
            let bounds =
                if most < 2 { "1 picture at a time".to_owned() } else { format!("2 to {most} frames") };
            return Err(Problem::unprocessable(format!(
                "{frames} frames: at {width}×{height} pixels, the limit is {bounds}"
            )));
        }
        let (from, to) = (self.from.unwrap_or_default(), self.amounts);
        let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        let at = |frame: usize| {
            let t = frame as f64 / (frames - 1) as f64;
            let amount = |amounts: &Amounts, name: &String| amounts.get(name).copied().unwrap_or(0.0);
            let between = |name: &&String| (1.0 - t) * amount(&from, name) + t * amount(&to, name);
            names.iter().map(|name| ((*name).clone(), between(name))).collect()
        };
        Ok((0..frames).map(at).collect())
    }
}

/// Moves the image along the directions.
fn moved(image: &Latents, directions: &Directions, amounts: &Amounts) -> Result<Latents, Error> {
    let moves = amounts.iter().map(|(name, &amount)| Ok((directions.get(name)?, amount)));
    latent::manipulate(image, &moves.collect::<Result<Vec<_>, Error>>()?)
}

/// Changes attributes of an image; returns an image, or the frames of the transition. As PNG, frames are side
/// by side, each at its own size.
#[utoipa::path(
    post,
    path = "/api/v1/manipulate",
    request_body = Manipulate,
    responses(
        (status = 200, description = "The image or frames, in the requested format",
            content((File = "image/png"), (File = "image/gif"), (File = "image/apng")),
            headers(("glowflow-finite" = bool, description = "False if the \
            model's numbers are not all finite. Other pixels are black and meaningless."))),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image, \
            no such attribute, or too far"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn manipulate(
    State(demo): Shared,
    request: Result<Json<Manipulate>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(request) = request?;
    let (image, format) = (stored(&demo, request.id)?, request.format);
    let frames = request.frames(demo.images(), demo.config.image())?;
    let at = Arc::clone(&demo);
    let work = move |glow: &Model, client: &Client| {
        let directions = at.directions.as_ref().ok_or_else(|| {
            Problem::unprocessable("this model has no directions, so nothing can be changed")
        })?;
        // The last frame first, so that an error names an amount of the request.
        frames.last().map(|amounts| moved(&image.latents, directions, amounts)).transpose()?;
        let parts = frames.iter().map(|amounts| moved(&image.latents, directions, amounts));
        let moved = Latents::concatenate(&parts.collect::<Result<Vec<_>, _>>()?)?;
        let labels = image.labels.repeat(frames.len());
        let moved = glow.decode_while(&moved, &labels, || client.check())?;
        let finite = moved.all_finite();
        format.frames(&moved.into_bytes(), glow.config().image(), finite)
    };
    demo.compute(work).await
}
