//! Stores images for clients: latents and pixels under unguessable ids, bounded in size and time.

use std::sync::Arc;
use std::time::Duration;

use glowflow::Latents;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use uuid::Uuid;

/// One image.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Latents of the image.
    pub latents: Latents,
    /// Pixels decoded from the latents, HWC.
    pub pixels: Vec<u8>,
    /// Pixels that were encoded, at the model's bit depth; `None` if equal to the decoded ones.
    pub source: Option<Vec<u8>>,
    /// True if the values before quantisation are finite.
    pub finite: bool,
    /// Its class, if the model has classes.
    pub labels: Vec<usize>,
}

impl Stored {
    /// Pixels that were encoded, at the model's bit depth, HWC. Those of a sample are the decoded ones.
    pub fn original(&self) -> &[u8] {
        self.source.as_deref().unwrap_or(&self.pixels)
    }
}

/// All images; the least recently used ones are dropped first.
#[derive(Debug)]
pub(crate) struct Store(Cache<Uuid, Arc<Stored>>);

impl Store {
    pub fn new(bytes: u64, idle: Duration) -> Self {
        let size = |_: &Uuid, image: &Arc<Stored>| {
            let latents: usize = image.latents.0.iter().map(|level| size_of::<f32>() * level.len()).sum();
            let pixels = image.pixels.len() + image.source.as_ref().map_or(0, Vec::len);
            u32::try_from(latents + pixels).unwrap_or(u32::MAX)
        };
        // With the default policy a full cache may reject new entries, which are the ones needed next.
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

    /// Stores an image under a new id.
    pub fn put(&self, image: Stored) -> Uuid {
        let id = Uuid::new_v4();
        self.0.insert(id, Arc::new(image));
        // Otherwise the cache would temporarily grow beyond its limit.
        self.0.run_pending_tasks();
        id
    }

    /// The image with this id, if still stored.
    pub fn get(&self, id: Uuid) -> Option<Arc<Stored>> {
        self.0.get(&id)
    }
}
