//! How much a client may ask for.

use std::time::Duration;

/// Bounds on what one request, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of an uploaded picture.
    pub upload_bytes: usize,
    /// Pixels of an uploaded picture.
    pub upload_pixels: u64,
    /// Bytes of a request that holds JSON.
    pub json_bytes: usize,
    /// Bytes of all uploads that are held at the same time, from the first byte until the picture is decoded. Counting
    /// bytes and not uploads, those that only trickle in keep nobody out.
    pub uploading_bytes: usize,
    /// Requests that compute at the same time.
    pub computing: usize,
    /// Requests that wait for their turn to compute.
    pub waiting: usize,
    /// Images drawn, or frames of a walk, in one request.
    pub images: usize,
    /// Pixels of all images drawn in one request: of large images there may be fewer. A model of which one image has
    /// more is not served.
    pub pixels: usize,
    /// How long a request may take: receiving, waiting, computing.
    pub request: Duration,
    /// Connections that are open at the same time. For further ones, the longest idle one is closed, or else
    /// one whose client is slow; if there is none, they wait.
    pub connections: usize,
    /// Connections of one client, which is an address, or a network of 64 bits in IPv6. A further one waits
    /// briefly for an idle one to close. This computer has no such bound, since a proxy on it brings many clients.
    pub connections_per_client: usize,
    /// How long a connection may be without the whole header of a request, the first one or the next.
    pub header: Duration,
    /// How long a connection takes requests. The answer to the next one announces the end, and the client
    /// then has as long again to read it.
    pub connection: Duration,
    /// Bytes of all latents and pixels that are kept.
    pub stored_bytes: u64,
    /// How long an image is kept that nobody asks about.
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
    /// The largest number of images in one request to a model of such images.
    pub(crate) fn images_of(&self, [height, width, _]: [usize; 3]) -> usize {
        self.images.min(self.pixels / height.saturating_mul(width).max(1)).max(1)
    }
}
