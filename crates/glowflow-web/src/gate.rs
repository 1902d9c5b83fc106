//! Admission control: limits the number of requests that compute and that wait, and rejects the rest.

use std::sync::{Arc, Weak};

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use crate::Problem;

/// Tracks whether a client still waits for the result.
#[derive(Debug)]
pub(crate) struct Client(Weak<()>);

impl Client {
    /// Ends work whose client has gone.
    pub fn check(&self) -> Result<(), Problem> {
        if self.0.strong_count() == 0 {
            return Err(Problem::late(StatusCode::SERVICE_UNAVAILABLE));
        }
        Ok(())
    }
}

/// The queue of requests for the model.
#[derive(Debug)]
pub(crate) struct Gate {
    computing: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Gate {
    pub fn new(computing: usize, waiting: usize) -> Self {
        Self { computing: Arc::new(Semaphore::new(computing.max(1))), waiting: Semaphore::new(waiting) }
    }

    /// Runs `work` on a separate thread once this request is admitted. The slot is held until the work is
    /// done, even if the client has gone: started work ends only when it checks its [`Client`], and must not
    /// pile up.
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
        // Dropped with this future, which ends early if the client disconnects or time runs out.
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
