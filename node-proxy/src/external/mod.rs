//! Hosts outside that a Gateway sends to (XBackend, GEP-4152): resolved here, as often as DNS says.
//!
//! ```text
//!  snapshot --backends that are hosts--> hosts: what to ask, when --> dns
//!     ^                                    |
//!     \--endpoints, as slices of our own---/
//! ```
//!
//! Whoever writes such a backend, and whoever answers for its name, could name addresses that are no host outside: this
//! machine's, the cloud's metadata, a node's, the cluster's own. Nothing is sent to these unless the operator allows it.

mod dns;
pub mod fuzzing;
mod hosts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use weft_core::backend_kind::BackendKind;
use weft_core::ids::ServiceKey;
use weft_core::service::{Service, ServiceKind};
use weft_core::snapshot::{Address, Snapshot};

use crate::store::{ConfigSink, Store};
use dns::{Answer, Dns, Failure};
use hosts::{External, Hosts};

/// Where the machine says which servers to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Changes of the configuration that come soon after one another are looked at once.
const GATHER: Duration = Duration::from_millis(50);
/// Addresses at which clouds answer machines of theirs, and that aren't link-local.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Resolves the hosts of the configuration that `store` has, through `sink`, as long as both are there. Addresses in `allowed`
/// may be sent to whatever they are.
pub(crate) async fn follow(store: Arc<Store>, sink: ConfigSink, allowed: Vec<IpNet>) {
    let dns = match tokio::fs::read_to_string(RESOLV_CONF).await {
        Ok(text) => Dns::of_resolv_conf(&text),
        Err(error) => {
            tracing::warn!(file = RESOLV_CONF, %error, "the servers for names of hosts aren't known");
            Dns::of_resolv_conf("")
        }
    };
    follow_with(store, sink, (dns, reachable), allowed).await;
}

/// `usable` leaves out of an answer what is of no use here.
async fn follow_with(
    store: Arc<Store>,
    sink: ConfigSink,
    (dns, usable): (Dns, fn(Answer) -> Answer),
    allowed: Vec<IpNet>,
) {
    let mut rules = Rules { allowed, own: BTreeSet::new() };
    let (mut versions, mut hosts, mut asked) = (store.subscribe(), Hosts::default(), JoinSet::new());
    // Of thousands of Services few are hosts, and an edit of a route changes none.
    let mut looked_at = None;
    versions.mark_changed();
    loop {
        let changes = {
            let snapshot = store.load();
            let may = |ip| rules.refused(&snapshot, ip).is_none();
            hosts.changes(Instant::now(), may)
        };
        if !changes.is_empty() && sink.apply(changes).await.is_none() {
            return;
        }
        for host in hosts.next(Instant::now()) {
            let dns = dns.clone();
            asked.spawn(async move {
                let answer = dns.resolve(&host).await.map(usable);
                let own = answer.iter().flat_map(|it| &it.addresses).copied().filter(is_own).collect::<Vec<_>>();
                (host, answer, own)
            });
        }
        let due = hosts.due();
        tokio::select! {
            changed = versions.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
                versions.borrow_and_update();
                let services = Some(store.load().all_services());
                if looked_at != services {
                    hosts.want(wanted(&store.load()), Instant::now());
                    looked_at = services;
                }
            }
            Some(Ok((host, answer, own))) = asked.join_next() => {
                rules.own.extend(own);
                if hosts.answered(&host, answer.clone(), Instant::now()) {
                    tell(&store.load(), &rules, &host, &answer);
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

/// The backends that are hosts.
fn wanted(snapshot: &Snapshot) -> BTreeMap<ServiceKey, External> {
    let external = |service: &Arc<Service>| {
        let (BackendKind::XBackend, ServiceKind::ExternalName(host)) = (service.key.object().0, &service.kind) else {
            return None;
        };
        let port = service.ports.first()?;
        let external = External { host: host.clone(), port_name: port.name.clone(), port: port.port };
        Some((service.key.clone(), external))
    };
    snapshot.services().filter_map(external).collect()
}

/// Which addresses are sent to.
struct Rules {
    /// Whatever they are.
    allowed: Vec<IpNet>,
    /// This machine's, as far as somebody has answered with them. One that it loses stays among them.
    own: BTreeSet<IpAddr>,
}

impl Rules {
    /// Why an address isn't sent to.
    fn refused(&self, snapshot: &Snapshot, ip: IpAddr) -> Option<&'static str> {
        let ip = embedded(ip.to_canonical());
        if self.allowed.iter().any(|net| net.contains(&ip)) {
            return None;
        }
        let (is_local, is_broadcast) = match ip {
            IpAddr::V4(v4) => (v4.is_link_local() || v4.octets().first() == Some(&0), v4.is_broadcast()),
            IpAddr::V6(v6) => (v6.is_unicast_link_local(), false),
        };
        if ip.is_loopback() || ip.is_unspecified() || self.own.contains(&ip) {
            Some("this machine")
        } else if is_local || METADATA.contains(&ip) {
            Some("link-local, or the cloud's metadata")
        } else if ip.is_multicast() || is_broadcast {
            Some("not of a single host")
        } else if !matches!(snapshot.address(ip), Address::Outside) {
            Some("inside the cluster")
        } else if snapshot.mesh().node_addresses.iter().any(|net| net.contains(&ip)) {
            Some("a node or an API server of the cluster")
        } else {
            None
        }
    }
}

/// The address that a translator (NAT64) sends to: the last four bytes of its well-known prefix (RFC 6052, section 2.1).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into(),
        _ => ip,
    }
}

/// Whether an address is this machine's: what is sent there comes from there.
fn is_own(ip: &IpAddr) -> bool {
    // Nothing is sent: the kernel only looks for a route.
    towards(*ip).is_ok_and(|socket| socket.local_addr().is_ok_and(|from| from.ip() == *ip))
}

fn towards(ip: IpAddr) -> std::io::Result<std::net::UdpSocket> {
    let any = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect((ip, 53))?;
    Ok(socket)
}

/// Leaves addresses out that there is no way to, those of a family that the machine doesn't have; all of them if that leaves none.
fn reachable(answer: Answer) -> Answer {
    let addresses: Vec<_> = answer.addresses.iter().copied().filter(|ip| towards(*ip).is_ok()).collect();
    if addresses.is_empty() { answer } else { Answer { addresses, ..answer } }
}

fn tell(snapshot: &Snapshot, rules: &Rules, host: &str, answer: &Result<Answer, Failure>) {
    match answer {
        Ok(Answer { addresses, ttl }) => {
            tracing::debug!(host, ?addresses, ?ttl, "a host outside is resolved");
            for (address, why) in addresses.iter().filter_map(|ip| Some((ip, rules.refused(snapshot, *ip)?))) {
                tracing::warn!(host, %address, why, "an address of a host outside is not sent to");
            }
        }
        Err(Failure::NoSuchHost) => {
            metrics::counter!("weft_gateway_dns_failures_total", "reason" => "no_such_host").increment(1);
            tracing::warn!(host, "there is no such host, or it has no addresses");
        }
        Err(Failure::Unanswered(why)) => {
            metrics::counter!("weft_gateway_dns_failures_total", "reason" => "unanswered").increment(1);
            tracing::warn!(host, why, "nobody can say the addresses of a host outside; the last ones stay for an hour");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
