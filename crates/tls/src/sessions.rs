//! Tickets a client holds for servers it has met, in memory, for one certificate of ours and one bundle generation.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;
use tokio::time::Instant;

/// Most servers remembered; an arbitrary one goes when another comes.
const MAX_SERVERS: usize = 512;
/// Most tickets kept for one server: each is good for one connection, so this is the burst that resumes. Each takes some
/// KiB: what the server sealed, certificates of ours among it, and the server's certificates.
const MAX_TICKETS: usize = 8;
/// How long a server is remembered after the last handshake with it. Pods come and go, and their addresses with them: whom
/// nobody has dialled for so long is most likely another by now, and if not, one whole handshake is no loss.
const REMEMBERED: Duration = Duration::from_secs(300);

struct Server {
    group: Option<NamedGroup>,
    tickets: VecDeque<Tls13ClientSessionValue>,
    /// The last handshake.
    seen: Instant,
}

/// Grows with use, unlike rustls' own, which allocates its whole capacity for each of our identities, and shrinks without.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<ServerName<'static>, Server>>);

impl Sessions {
    /// Forgets the servers that weren't dialled for a while.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut servers = self.0.lock();
        servers.retain(|_, server| now.duration_since(server.seen) < REMEMBERED);
        servers.shrink_to_fit();
    }

    /// Forgets everything about a server.
    pub fn forget(&self, name: &ServerName<'static>) {
        self.0.lock().remove(name);
    }

    fn with(&self, name: ServerName<'static>, change: impl FnOnce(&mut Server)) {
        let mut servers = self.0.lock();
        if servers.len() >= MAX_SERVERS
            && !servers.contains_key(&name)
            && let Some(victim) = servers.keys().next().cloned()
        {
            servers.remove(&victim);
        }
        let seen = Instant::now();
        let fresh = || Server { group: None, tickets: VecDeque::new(), seen };
        let server = servers.entry(name).or_insert_with(fresh);
        server.seen = seen;
        change(server);
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.with(name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().get(&name.to_owned()).and_then(|server| server.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.with(name, |server| {
            if server.tickets.len() >= MAX_TICKETS {
                server.tickets.pop_front();
            }
            server.tickets.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest first: its ticket key is the least likely to have been rotated away.
        self.0.lock().get_mut(name).and_then(|server| server.tickets.pop_back())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({} servers)", self.0.lock().len())
    }
}
