//! `eyes`: stores the eye positions of the model's images with the model.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use glowflow::faces::Faces;
use glowflow_data::Eyes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use crate::{Demo, Problem};

/// Headers added by proxies, in addition to all that begin with [`X_FORWARDED`].
const FORWARDED: [&str; 7] =
    ["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x-client-ip", "x-original-host"];

const X_FORWARDED: &str = "x-forwarded";

/// The header in which browsers state the relation of the requesting page to this server.
const FETCH_SITE: &str = "sec-fetch-site";

/// Returns whether a request comes directly from a program on this computer or from this server's page, as
/// far as its headers show.
fn is_direct(headers: &HeaderMap) -> bool {
    let forwarded = |name: &str| name.starts_with(X_FORWARDED) || FORWARDED.contains(&name);
    let mut sites = headers.get_all(FETCH_SITE).into_iter();
    !headers.keys().any(|name| forwarded(name.as_str()))
        && sites.all(|site| site == "same-origin" || site == "none")
}

/// Returns whether a request with these headers can store positions.
pub(super) fn are_stored(demo: &Demo, headers: &HeaderMap) -> bool {
    demo.eyes.are_stored() && is_direct(headers)
}

/// Faces in the model's images.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EyesOf {
    /// True if the model's images show faces.
    faces: bool,
    /// Positions `[x, y]` of the left and right eye, as fractions of width and height. Required for faces.
    #[serde(default)]
    #[schema(example = json!([[0.39, 0.51], [0.61, 0.51]]))]
    eyes: Option<[[f64; 2]; 2]>,
}

impl TryFrom<EyesOf> for Faces {
    type Error = Problem;

    fn try_from(of: EyesOf) -> Result<Self, Problem> {
        match of {
            EyesOf { faces: true, eyes: Some([left, right]) } => Eyes::new(left, right)
                .map(Self::Aligned)
                .map_err(|error| Problem::unprocessable(error.to_string())),
            EyesOf { faces: true, eyes: None } => {
                Err(Problem::unprocessable("\"eyes\" is missing; it is required if \"faces\" is true"))
            }
            EyesOf { faces: false, eyes: None } => Ok(Self::None),
            EyesOf { faces: false, eyes: Some(_) } => {
                Err(Problem::unprocessable("\"eyes\" without faces; omit it, or set \"faces\" to true"))
            }
        }
    }
}

/// Stores eye positions with the model, in `eyes.toml`. Only a server that is reachable from its own computer
/// alone does this, and not for requests with proxy headers: see `stores_eyes` of `info`.
#[utoipa::path(
    put,
    path = "/api/v1/eyes",
    request_body = EyesOf,
    responses(
        (status = 200, body = EyesOf, description = "Stored"),
        (status = 403, body = Problem, content_type = "application/problem+json",
            description = "This server does not store them"),
        (status = "4XX", body = Problem, content_type = "application/problem+json",
            description = "Invalid positions"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "The file cannot be written, or the server is too busy")
    )
)]
pub(super) async fn eyes(
    State(demo): Shared,
    headers: HeaderMap,
    request: Result<Json<EyesOf>, JsonRejection>,
) -> Result<Json<EyesOf>, Problem> {
    if !are_stored(&demo, &headers) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this server does not store positions of the eyes, because other computers can reach it; \
             store them on its computer",
        ));
    }
    let Json(of) = request?;
    let faces = of.try_into()?;
    demo.gate
        .run({
            let demo = demo.clone();
            move |_| demo.eyes.store(faces)
        })
        .await?;
    Ok(Json(of))
}
