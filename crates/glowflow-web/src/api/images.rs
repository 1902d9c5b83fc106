//! Images by id, their pixels, and pictures as answers.

use std::ops::Range;
use std::sync::Arc;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use glowflow::{Glow, Latents};
use glowflow_report::picture;
use uuid::Uuid;

use crate::gate::Client;
use crate::store::Stored;
use crate::{Demo, Problem};

/// Header of pictures: false if the numbers behind their pixels are not all finite.
const FINITE: HeaderName = HeaderName::from_static("glowflow-finite");

/// Most images that a walk or a blend is made of.
pub(super) const MAX_IDS: usize = 8;

/// The image of an id.
pub(super) fn stored(demo: &Demo, id: Uuid) -> Result<Arc<Stored>, Problem> {
    demo.store.get(id).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no image {id}, or no longer; encode it again"))
    })
}

/// The images of ids.
pub(super) fn all_stored(demo: &Demo, ids: &[Uuid]) -> Result<Vec<Arc<Stored>>, Problem> {
    ids.iter().map(|&id| stored(demo, id)).collect()
}

/// Images in pixels.
pub(super) struct Decoded {
    /// Of all images, HWC.
    pub pixels: Vec<u8>,
    /// Of each image, whether the numbers behind its pixels are finite.
    pub finite: Vec<bool>,
}

impl Decoded {
    pub fn all_finite(&self) -> bool {
        self.finite.iter().all(|&finite| finite)
    }
}

/// Decodes images, as many at once as suits the device, as long as somebody waits for them.
pub(super) fn decoded(
    glow: &Glow,
    latents: &Latents,
    labels: &[usize],
    client: &Client,
) -> Result<Decoded, Problem> {
    let at_once = glow.decoded_at_once();
    let (mut pixels, mut finite) = (vec![], vec![]);
    for start in (0..latents.batch()).step_by(at_once) {
        client.check()?;
        let range = start..latents.batch().min(start + at_once);
        let labels_of = |range: Range<usize>| labels.get(range).unwrap_or_default();
        let (images, all_finite) =
            glow.decode_checked(&latents.slice(range.clone()), labels_of(range.clone()))?;
        pixels.extend(images);
        for i in range {
            // The batch has one flag, so each image is decoded alone to find those that are not finite.
            finite.push(all_finite || glow.decode_checked(&latents.slice(i..i + 1), labels_of(i..i + 1))?.1);
        }
    }
    Ok(Decoded { pixels, finite })
}

/// One image in its own size.
pub(super) fn png(pixels: &[u8], shape: [usize; 3], finite: bool) -> Result<Response, Problem> {
    answer("image/png", picture::encode_png(&picture::single(pixels, shape)), finite)
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
