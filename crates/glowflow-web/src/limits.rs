//! Limits on the resources of clients.

use std::time::Duration;

/// Limits on a single request and on all requests together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an uploaded image file.
    pub upload_bytes: usize,
    /// Pixels of an uploaded image.
    pub upload_pixels: u64,
    /// Bytes of a JSON request.
    pub json_bytes: usize,
    /// Bytes of all uploads held at a time, from the first byte until the image is decoded. Because bytes are
    /// counted instead of uploads, slow uploads do not block others.
    pub uploading_bytes: usize,
    /// Requests that compute concurrently.
    pub computing: usize,
    /// Requests that wait to compute.
    pub waiting: usize,
    /// Images sampled, or frames of a walk, in one request.
    pub images: usize,
    /// Pixels of all images sampled in one request, which reduces the number of large images. A model whose
    /// images exceed it is not served.
    pub pixels: usize,
    /// Maximum duration of a request: receiving, waiting, computing.
    pub request: Duration,
    /// Connections open at a time. To admit another one, the longest idle connection is closed, or else one
    /// with a slow client; if there is none, the new connection waits.
    pub connections: usize,
    /// Connections per client, which is an address, or a network of 64 bits in IPv6. Another one waits
    /// briefly for an idle one to close. This computer has no such limit, because a proxy on it can represent
    /// many clients.
    pub connections_per_client: usize,
    /// Maximum time that a connection may take to send the complete header of a request, the first one or the
    /// next.
    pub header: Duration,
    /// Maximum time for which a connection accepts requests. The answer to the next one announces the end,
    /// and the client then has the same time again to read it.
    pub connection: Duration,
    /// Bytes of all stored latents and pixels.
    pub stored_bytes: u64,
    /// Time after which an unused image is dropped.
    pub stored_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_bytes: 12 << 20,
            upload_pixels: 24_000_000,
            json_bytes: 64 << 10,
            uploading_bytes: 16 * (12 << 20),
            computing: std::thread::available_parallelism().map_or(1, usize::from),
            waiting: 64,
            images: 64,
            pixels: 1024 * 1024,
            request: Duration::from_secs(15),
            // Below the 256 open files that some systems allow.
            connections: 192,
            // Browsers open six, and several people may share an address.
            connections_per_client: 16,
            header: Duration::from_secs(10),
            connection: Duration::from_secs(60),
            stored_bytes: 256 << 20,
            stored_for: Duration::from_secs(30 * 60),
        }
    }
}

impl Limits {
    /// Maximum number of images of this shape in one request.
    pub(crate) fn images_of(&self, [height, width, _]: [usize; 3]) -> usize {
        self.images.min(self.pixels / height.saturating_mul(width).max(1)).max(1)
    }
}
