//! Slots for connections, limited in total and per client. If all slots are taken, the longest idle
//! connection is closed. A client whose own slots are all taken waits briefly for one of them, without
//! delaying other clients.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::activity::{Activity, Wait};

/// Interval at which a connection without a slot searches for one that can be closed.
const RETRY: Duration = Duration::from_millis(20);

/// Time for which a client whose own slots are all taken waits for one of them. It exceeds the idle time
/// after which a connection can be closed, so a page that was just loaded makes room for the next.
const CLIENT_WAIT: Duration = Duration::from_secs(2);

/// Maximum number of connections that wait for one of their client's slots, in total and per client.
const MAX_WAITING: usize = 32;
const MAX_WAITING_OF_CLIENT: usize = 16;

/// All connections.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    most_of_client: usize,
    open: Mutex<Vec<Arc<Open>>>,
    /// The clients of the connections that wait for one of their client's slots.
    waiting: Mutex<Vec<IpAddr>>,
    freed: Notify,
}

#[derive(Debug)]
struct Open {
    client: IpAddr,
    activity: Arc<Activity>,
    leaving: AtomicBool,
    leave: Notify,
}

/// The slot of a connection, released on drop.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    open: Arc<Open>,
}

impl Places {
    /// Slots for `most` connections, `most_of_client` of them per client.
    pub fn new(most: usize, most_of_client: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            most_of_client: most_of_client.max(1),
            open: Mutex::default(),
            waiting: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<IpAddr>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot for a connection from `address` if all slots are taken. If the client's own slots are
    /// taken, returns immediately.
    pub async fn admit(self: &Arc<Self>, address: IpAddr) -> Admission {
        let client = client(address);
        loop {
            let freed = self.freed.notified();
            // A freed slot belongs to the connections that already wait for it.
            if self.waiting().contains(&client) {
                return Admission::OwnInUse(Turn::new(self, client));
            }
            match self.attempt(client) {
                Attempt::Got(place) => return Admission::Place(place),
                Attempt::OwnInUse => return Admission::OwnInUse(Turn::new(self, client)),
                Attempt::AllInUse => {}
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Takes a free slot, or asks a connection to close. This computer has no per-client limit, because a
    /// proxy on it can represent many clients.
    fn attempt(self: &Arc<Self>, client: IpAddr) -> Attempt {
        let mut open = self.open();
        let mut of_client: Vec<_> = open.iter().filter(|open| open.client == client).collect();
        if !client.is_loopback() && of_client.len() >= self.most_of_client {
            of_client.retain(|open| !matches!(open.activity.wait(), Some(Wait::Slow(_))));
            make_room(of_client);
            Attempt::OwnInUse
        } else if open.len() < self.most {
            let activity = Arc::new(Activity::new());
            let (leaving, leave) = (AtomicBool::new(false), Notify::new());
            let new = Arc::new(Open { client, activity, leaving, leave });
            open.push(Arc::clone(&new));
            Attempt::Got(Place { places: Arc::clone(self), open: new })
        } else {
            make_room(open.iter().collect());
            Attempt::AllInUse
        }
    }
}

/// The result of requesting a slot.
#[derive(Debug)]
pub(crate) enum Admission {
    /// A slot was assigned.
    Place(Place),
    /// The client's own slots are all taken. `None` if too many connections already wait.
    OwnInUse(Option<Turn>),
}

#[derive(Debug)]
enum Attempt {
    Got(Place),
    OwnInUse,
    AllInUse,
}

/// A place in the queue for a slot of the same client.
#[derive(Debug)]
pub(crate) struct Turn {
    places: Arc<Places>,
    client: IpAddr,
}

impl Turn {
    fn new(places: &Arc<Places>, client: IpAddr) -> Option<Self> {
        let mut waiting = places.waiting();
        let of_client = waiting.iter().filter(|&&other| other == client).count();
        if waiting.len() >= MAX_WAITING || of_client >= MAX_WAITING_OF_CLIENT {
            return None;
        }
        waiting.push(client);
        Some(Self { places: Arc::clone(places), client })
    }

    /// Waits for a limited time until one of the client's slots is free.
    pub async fn place(self) -> Option<Place> {
        let found = async {
            loop {
                let freed = self.places.freed.notified();
                if let Attempt::Got(place) = self.places.attempt(self.client) {
                    return place;
                }
                tokio::select! {
                    () = freed => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        };
        tokio::time::timeout(CLIENT_WAIT, found).await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.places.waiting();
        if let Some(turn) = waiting.iter().position(|&client| client == self.client) {
            waiting.swap_remove(turn);
        }
    }
}

/// Asks the longest waiting connection to close, one at a time.
fn make_room(open: Vec<&Arc<Open>>) {
    if open.iter().any(|open| open.leaving.load(Ordering::Relaxed)) {
        return;
    }
    let waiting = open.into_iter().filter_map(|open| Some((open.activity.wait()?, open)));
    let longest = waiting.max_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    if let Some((_, longest)) = longest {
        longest.leaving.store(true, Ordering::Relaxed);
        longest.leave.notify_one();
    }
}

/// The client at an address. In IPv6, a client has a network of 64 bits.
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

    /// Waits until the connection must close in favour of another one, unless it becomes active in the
    /// meantime.
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
