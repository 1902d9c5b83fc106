//! `decode`: views of an image stored on the server.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Shared;
use super::images::{File, png, stored};
use crate::Problem;
use crate::store::Stored;

/// Header of difference images: the factor by which they are amplified.
const GAIN: HeaderName = HeaderName::from_static("glowflow-gain");

/// Views of an image.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Show {
    /// The image decoded from the latents.
    #[default]
    Reconstruction,
    /// The model's input: cropped, resized, and in the model's bit depth.
    Original,
    /// The absolute difference of these two, amplified until its maximum is white; black if they are equal.
    Difference,
}

/// Choice of a view.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Shown {
    /// The view to return.
    #[serde(default)]
    #[param(inline)]
    show: Show,
}

/// The difference between original and reconstruction, and its amplification.
fn difference(image: &Stored) -> (Vec<u8>, u8) {
    let differences = image.original().iter().zip(&image.pixels).map(|(a, b)| a.abs_diff(*b));
    let differences: Vec<u8> = differences.collect();
    let gain =
        differences.iter().copied().max().and_then(|largest| u8::MAX.checked_div(largest)).unwrap_or(1);
    (differences.into_iter().map(|difference| difference * gain).collect(), gain)
}

/// Returns a view of an image as PNG: the reconstruction from its latents, the model's input, or the
/// difference.
#[utoipa::path(
    get,
    path = "/api/v1/decode/{id}",
    params(("id" = Uuid, Path, description = "Id returned by encode or sample"), Shown),
    responses(
        (status = 200, body = File, content_type = "image/png",
            headers(
                ("glowflow-finite" = bool, description = "False if the \
                model's numbers are not all finite. Other pixels are black and meaningless."),
                ("glowflow-gain" = u8, description = "For a difference, the factor by which it is amplified.")
            )),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "No such image"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the model failed")
    )
)]
pub(super) async fn decode(
    State(demo): Shared,
    id: Result<Path<Uuid>, PathRejection>,
    shown: Result<Query<Shown>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(id), Query(Shown { show })) = (id?, shown?);
    let image = stored(&demo, id)?;
    let shape = demo.config.image();
    let work = move |_: &_| match show {
        Show::Reconstruction => png(&image.pixels, shape, image.finite),
        Show::Original => png(image.original(), shape, image.finite),
        Show::Difference => {
            let (pixels, gain) = difference(&image);
            let mut answer = png(&pixels, shape, image.finite)?;
            answer.headers_mut().insert(GAIN, HeaderValue::from(u16::from(gain)));
            Ok(answer)
        }
    };
    demo.gate.run(work).await
}
