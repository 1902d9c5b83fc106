//! Lets so many requests compute at a time, so many more wait, and turns the rest away.

use std::sync::{Arc, Weak};

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use crate::Problem;

/// Who work is done for.
#[derive(Debug)]
pub(crate) struct Client(Weak<()>);

impl Client {
    /// Ends work that nobody waits for any longer.
    pub fn check(&self) -> Result<(), Problem> {
        if self.0.strong_count() == 0 {
            return Err(Problem::late(StatusCode::SERVICE_UNAVAILABLE));
        }
        Ok(())
    }
}

/// Where requests queue for the model.
#[derive(Debug)]
pub(crate) struct Gate {
    computing: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Gate {
    pub fn new(computing: usize, waiting: usize) -> Self {
        Self { computing: Arc::new(Semaphore::new(computing.max(1))), waiting: Semaphore::new(waiting) }
    }

    /// Computes in a thread of its own when it is this request's turn. The place is kept until the work is done, also
    /// when nobody waits for it any longer: what is started ends only where `work` asks its [`Client`], and must not pile up.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Client) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = match Arc::clone(&self.computing).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let _waiting = self.waiting.try_acquire().map_err(|_| Problem::busy())?;
                Arc::clone(&self.computing).acquire_owned().await.map_err(|_| Problem::busy())?
            }
        };
        // Gone with this future, which ends early where the client goes away or time is up.
        let waits = Arc::new(());
        let client = Client(Arc::downgrade(&waits));
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&client)
        });
        done.await.unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the computation failed; see the server's output",
            ))
        })
    }
}
