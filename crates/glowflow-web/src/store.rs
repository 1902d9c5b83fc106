//! Images that clients work on: latents and pixels behind ids that cannot be guessed, bounded in size and time.

use std::sync::Arc;
use std::time::Duration;

use glowflow::Latents;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use uuid::Uuid;

/// One image.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Of one image.
    pub latents: Latents,
    /// Pixels that they decode to, HWC.
    pub pixels: Vec<u8>,
    /// Pixels that were encoded, in the model's bits; none if they are the decoded ones.
    pub source: Option<Vec<u8>>,
    /// Whether the numbers behind the pixels are finite.
    pub finite: bool,
    /// Its class, if the model has classes.
    pub labels: Vec<usize>,
}

impl Stored {
    /// Pixels that were encoded, in the model's bits, HWC. Those of a sample are the decoded ones.
    pub fn original(&self) -> &[u8] {
        self.source.as_deref().unwrap_or(&self.pixels)
    }
}

/// All images; those not asked about for longest are forgotten first.
#[derive(Debug)]
pub(crate) struct Store(Cache<Uuid, Arc<Stored>>);

impl Store {
    pub fn new(bytes: u64, idle: Duration) -> Self {
        let size = |_: &Uuid, image: &Arc<Stored>| {
            let latents: usize = image.latents.0.iter().map(|level| size_of::<f32>() * level.len()).sum();
            let pixels = image.pixels.len() + image.source.as_ref().map_or(0, Vec::len);
            u32::try_from(latents + pixels).unwrap_or(u32::MAX)
        };
        // By the default policy a full cache may refuse what comes new, which is just what is wanted next.
        let policy = EvictionPolicy::lru();
        Self(
            Cache::builder()
                .max_capacity(bytes)
                .weigher(size)
                .time_to_idle(idle)
                .eviction_policy(policy)
                .build(),
        )
    }

    /// Keeps an image, under a new id.
    pub fn put(&self, image: Stored) -> Uuid {
        let id = Uuid::new_v4();
        self.0.insert(id, Arc::new(image));
        // Left to itself, the cache would grow beyond its bound for a while.
        self.0.run_pending_tasks();
        id
    }

    /// The image of an id, while it is remembered.
    pub fn get(&self, id: Uuid) -> Option<Arc<Stored>> {
        self.0.get(&id)
    }
}
