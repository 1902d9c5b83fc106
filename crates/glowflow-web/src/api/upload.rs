//! Receives uploads within a shared memory budget.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::{Demo, Problem};

/// The bytes of an image file, and their share of the memory budget for uploads.
pub(super) struct Upload {
    pub bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
}

impl Upload {
    pub async fn read(demo: &Demo, mut body: Body) -> Result<Self, Problem> {
        let limit = demo.limits.upload_bytes;
        let room = |bytes: usize| {
            let permits = u32::try_from(bytes).map_err(|_| Problem::busy())?;
            Arc::clone(&demo.uploads).try_acquire_many_owned(permits).map_err(|_| Problem::busy())
        };
        let mut upload = Self { bytes: vec![], room: room(0)? };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| {
                Problem::new(StatusCode::BAD_REQUEST, format!("the upload was interrupted: {e}"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > limit - upload.bytes.len() {
                let detail = format!("the picture has more than {limit} bytes; send a smaller one");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            upload.room.merge(room(data.len())?);
            upload.bytes.extend_from_slice(&data);
        }
        Ok(upload)
    }
}
