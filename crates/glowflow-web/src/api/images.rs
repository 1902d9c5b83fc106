//! Looks up images by id and returns their pixels.

use std::sync::Arc;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use glowflow_report::picture;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::Stored;
use crate::{Demo, Problem};

/// Header of image answers: false if the values before quantisation are not all finite.
const FINITE: HeaderName = HeaderName::from_static("glowflow-finite");

/// Maximum number of images in a walk or a blend.
pub(super) const MAX_IDS: usize = 8;

/// The bytes of a picture's file, for the description of the API.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only described")]
pub(super) struct File(Vec<u8>);

/// The image with this id.
pub(super) fn stored(demo: &Demo, id: Uuid) -> Result<Arc<Stored>, Problem> {
    demo.store.get(id).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("image {id} does not exist or is no longer stored; encode it again"),
        )
    })
}

/// The images with these ids.
pub(super) fn all_stored(demo: &Demo, ids: &[Uuid]) -> Result<Vec<Arc<Stored>>, Problem> {
    ids.iter().map(|&id| stored(demo, id)).collect()
}

/// Returns one image at its own size.
pub(super) fn png(pixels: &[u8], shape: [usize; 3], finite: bool) -> Result<Response, Problem> {
    answer("image/png", picture::encode(&picture::single(pixels, shape)), finite)
}

pub(super) fn answer(
    kind: &'static str,
    encoded: Result<Vec<u8>, String>,
    finite: bool,
) -> Result<Response, Problem> {
    let bytes = encoded.map_err(|reason| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, reason))?;
    let finite = if finite { "true" } else { "false" };
    Ok(([(header::CONTENT_TYPE, kind), (FINITE, finite)], bytes).into_response())
}
