//! Places for connections: a limited number in all and for one client. The longest idle connection makes
//! room.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::activity::{Activity, Wait};

/// Interval at which a connection without a place looks for one that can be closed.
const RETRY: Duration = Duration::from_millis(20);

/// Number of such intervals after which a client is refused whose own places are all taken.
const TRIES: usize = 10;

/// All connections.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_client: usize,
    open: Mutex<Vec<Arc<Open>>>,
    freed: Notify,
}

#[derive(Debug)]
struct Open {
    client: IpAddr,
    activity: Arc<Activity>,
    leaving: AtomicBool,
    leave: Notify,
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    open: Arc<Open>,
}

impl Places {
    /// Places for `most` connections, `most_of_client` of them for one client.
    pub fn new(most: usize, most_of_client: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            most_of_client: most_of_client.max(1),
            open: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place for a connection from `address`. None if the client's own places are all in use.
    /// This computer has no such limit: a proxy on it brings many clients.
    pub async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = client(address);
        let mut tries = 0;
        loop {
            let freed = self.freed.notified();
            {
                let mut open = self.open();
                let mut of_client: Vec<_> = open.iter().filter(|open| open.client == client).collect();
                if !client.is_loopback() && of_client.len() >= self.most_of_client {
                    tries += 1;
                    of_client.retain(|open| !matches!(open.activity.wait(), Some(Wait::Slow(_))));
                    if tries > TRIES || !make_room(of_client) {
                        return None;
                    }
                } else if open.len() < self.most {
                    let activity = Arc::new(Activity::new());
                    let (leaving, leave) = (AtomicBool::new(false), Notify::new());
                    let new = Arc::new(Open { client, activity, leaving, leave });
                    open.push(Arc::clone(&new));
                    return Some(Place { places: Arc::clone(self), open: new });
                } else {
                    make_room(open.iter().collect());
                }
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// Asks the longest waiting connection to close, one at a time. False if there is none.
fn make_room(open: Vec<&Arc<Open>>) -> bool {
    if open.iter().any(|open| open.leaving.load(Ordering::Relaxed)) {
        return true;
    }
    let waiting = open.into_iter().filter_map(|open| Some((open.activity.wait()?, open)));
    let longest = waiting.max_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let Some((_, longest)) = longest else { return false };
    longest.leaving.store(true, Ordering::Relaxed);
    longest.leave.notify_one();
    true
}

/// The client behind an address. In IPv6, a client has a network of 64 bits.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

impl Place {
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.open.activity)
    }

    /// Waits until the connection has to make room for another one, unless it has something to do by then.
    pub async fn needed(&self) {
        loop {
            self.open.leave.notified().await;
            if self.open.activity.wait().is_some() {
                return;
            }
            self.open.leaving.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().retain(|open| !Arc::ptr_eq(open, &self.open));
        self.places.freed.notify_waiters();
    }
}
