//! Which endpoint a client of a Service with `sessionAffinity: ClientIP` was sent to last.
//!
//! Shared by all workers, because a client's connections land on any of them. Behind a lock, which only such Services
//! ever take.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weft_core::ids::ServicePortKey;

/// Most clients remembered for one Service port; beyond it the expired are dropped, then everybody.
const MAX_CLIENTS: usize = 65_536;

/// Client to endpoint, for each Service port with affinity.
#[derive(Debug, Default)]
pub struct AffinityTable(Mutex<HashMap<ServicePortKey, HashMap<IpAddr, Sticky>>>);

#[derive(Clone, Copy, Debug)]
struct Sticky {
    endpoint: SocketAddr,
    until: Instant,
}

/// When a client used its endpoint, and how long that holds.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The time.
    pub now: Instant,
    /// The Service's timeout.
    pub timeout: Duration,
}

impl AffinityTable {
    /// Where the client was sent last, if that was not longer ago than the Service's timeout.
    pub fn get(&self, service: &ServicePortKey, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let table = self.0.lock();
        let sticky = table.get(service)?.get(&client)?;
        (sticky.until > now).then_some(sticky.endpoint)
    }

    /// Remembers where the client was sent; each use starts the timeout anew.
    pub fn set(&self, service: &ServicePortKey, client: IpAddr, endpoint: SocketAddr, used: Use) {
        let now = used.now;
        let mut table = self.0.lock();
        if !table.contains_key(service) {
            table.insert(service.clone(), HashMap::new());
        }
        let Some(clients) = table.get_mut(service) else { return };
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|_, sticky| sticky.until > now);
            if clients.len() >= MAX_CLIENTS {
                clients.clear();
            }
        }
        clients.insert(client, Sticky { endpoint, until: now + used.timeout });
    }

    /// Drops what has expired and the Services that `keep` refuses.
    pub fn sweep(&self, now: Instant, keep: impl Fn(&ServicePortKey) -> bool) {
        self.0.lock().retain(|service, clients| {
            clients.retain(|_, sticky| sticky.until > now);
            !clients.is_empty() && keep(service)
        });
    }
}
