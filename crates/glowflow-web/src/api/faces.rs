//! `faces`: detects the faces in a photograph.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use glowflow_data::picture_of_bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::images::File;
use super::upload::Upload;
use crate::{Face, Problem};

/// Maximum number of faces in an answer.
const MAX_FACES: usize = 32;

/// Faces in a photograph.
#[derive(Serialize, ToSchema)]
pub(crate) struct Found {
    /// Width of the photograph in pixels, in upright orientation.
    width: usize,
    /// Its height.
    height: usize,
    /// Up to 32 faces, the most prominent (large and central) first.
    faces: Vec<FoundFace>,
}

/// A face in a photograph.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundFace {
    /// Positions `[x, y]` of the eyes as fractions of width and height: first the one on the left of the
    /// photograph, then the one on the right.
    eyes: [[f64; 2]; 2],
    /// Left, top, right and bottom edges of the face, as fractions of width and height. They may be outside
    /// the photograph.
    #[serde(rename = "box")]
    bounds: [f64; 4],
    /// Confidence, from 0 to 1.
    score: f64,
}

impl From<Face> for FoundFace {
    fn from(Face { eyes, bounds, score }: Face) -> Self {
        Self { eyes, bounds, score }
    }
}

/// Detects the faces in a photograph (PNG, JPEG, WebP or BMP). The server does not store the photograph.
#[utoipa::path(
    post,
    path = "/api/v1/faces",
    request_body(
        description = "The photograph",
        content(
            (File = "image/png"), (File = "image/jpeg"), (File = "image/webp"), (File = "image/bmp")
        )
    ),
    responses(
        (status = 200, body = Found),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "Upload too slow"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "Upload too large"),
        (status = "4XX", body = Problem, content_type = "application/problem+json", description = "Not a readable image"),
        (status = 501, body = Problem, content_type = "application/problem+json", description = "Server built without a detector"),
        (status = "5XX", body = Problem, content_type = "application/problem+json",
            description = "Server too busy, or the detector failed")
    )
)]
pub(super) async fn faces(State(demo): Shared, body: Body) -> Result<Json<Found>, Problem> {
    if demo.detector.is_none() {
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "this server was built without a face detector",
        ));
    }
    let upload = Upload::read(&demo, body).await?;
    let at = Arc::clone(&demo);
    let work = move |_: &_| {
        let (pixels, shape) = picture_of_bytes(&upload.bytes, at.limits.upload_pixels)
            .map_err(|error| Problem::unprocessable(error.to_string()))?;
        drop(upload);
        let detect = at.detector.as_ref().map(|detect| detect(&pixels, shape));
        let faces = detect.unwrap_or(Ok(vec![])).map_err(|reason| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the face detector failed: {reason}"))
        })?;
        let faces = faces.into_iter().take(MAX_FACES).map(FoundFace::from).collect();
        Ok(Json(Found { width: shape.width, height: shape.height, faces }))
    };
    demo.gate.run(work).await
}
