//! What a status says, and how it looks in a terminal.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use weft_ca::Authority;
use weft_cni::agent::{LocalPod, Protection};
use weft_controller::standalone::Bound;
use weft_core::gateway::{Listener, ListenerProtocol};
use weft_core::ids::ServicePortKey;
use weft_core::service::EndpointHealth;
use weft_core::snapshot::Snapshot;

use crate::standalone::access::NodeView;
use crate::standalone::supervisor::Proxies;
use crate::table;

/// A node of a standalone mesh.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub role: String,
    pub primary: String,
    pub trust_domain: String,
    /// SHA-256 of the roots.
    pub roots: Vec<String>,
    /// The primary's authority.
    pub authority: Option<AuthorityView>,
    pub proxies: Proxies,
    /// The primary's view of all nodes.
    pub nodes: BTreeMap<String, NodeView>,
    /// Pods of this node.
    pub pods: Vec<PodView>,
    pub services: Vec<ServiceView>,
    /// What this machine listens on for Gateways; the primary only.
    pub listeners: Vec<ListenerView>,
    /// What is wrong with the manifests.
    pub findings: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AuthorityView {
    pub stage: String,
    /// Dates, as YYYY-MM-DD.
    pub root_until: String,
    pub intermediate_until: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PodView {
    pub name: String,
    pub ips: Vec<String>,
    pub service_account: Option<String>,
    /// `protected`, `outside`, `closed` or `unprotected`.
    pub protection: String,
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceView {
    pub name: String,
    pub addresses: Vec<String>,
    pub ports: Vec<PortView>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PortView {
    pub port: u16,
    pub protocol: String,
    pub endpoints: usize,
    pub ready: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ListenerView {
    /// `namespace/gateway/listener`
    pub name: String,
    pub binds: Vec<String>,
    pub protocol: String,
    pub hostname: Option<String>,
    /// `bound`, `waiting` or `refused`.
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub why: String,
}

impl ListenerView {
    pub fn all(snapshot: &Snapshot, bound: &Bound) -> Vec<Self> {
        let protocol = |protocol: &ListenerProtocol| match protocol {
            ListenerProtocol::Http => "HTTP",
            ListenerProtocol::Https { .. } => "HTTPS",
            ListenerProtocol::TlsTerminate { .. } | ListenerProtocol::TlsPassthrough => "TLS",
            ListenerProtocol::Tcp => "TCP",
            ListenerProtocol::Udp => "UDP",
        };
        let view = |listener: &std::sync::Arc<Listener>| {
            let (state, why) = match bound.get(&listener.key.gateway).map(|refused| refused.get(&listener.key)) {
                None => ("waiting", ""),
                Some(None) => ("bound", ""),
                Some(Some(why)) => ("refused", why.as_str()),
            };
            Self {
                name: listener.key.to_string(),
                binds: listener.binds().map(|bind| bind.to_string()).collect(),
                protocol: protocol(&listener.protocol).to_owned(),
                hostname: listener.hostname.as_ref().map(ToString::to_string),
                state: state.to_owned(),
                why: why.to_owned(),
            }
        };
        let mut all: Vec<_> = snapshot.listeners().map(view).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl AuthorityView {
    pub fn of(authority: &Authority) -> Option<Self> {
        let status = authority.status().inspect_err(|e| tracing::error!("the authority's state: {e}")).ok()?;
        let date = |at: std::time::SystemTime| time::OffsetDateTime::from(at).date().to_string();
        Some(Self {
            stage: format!("{:?}", status.stage),
            root_until: date(status.root_not_after),
            intermediate_until: date(status.intermediate_not_after),
        })
    }
}

impl PodView {
    pub fn of(pod: &LocalPod) -> Self {
        let (protection, why) = match &pod.protection {
            Protection::Protected => ("protected", String::new()),
            Protection::Outside(why) => ("outside", why.to_string()),
            Protection::Closed(why) => ("closed", why.clone()),
            Protection::Unprotected(why) => ("unprotected", why.clone()),
        };
        Self {
            name: pod.pod.to_string(),
            ips: pod.ips.iter().map(ToString::to_string).collect(),
            service_account: pod.service_account.as_ref().map(ToString::to_string),
            protection: protection.to_owned(),
            why,
        }
    }
}

impl ServiceView {
    pub fn all(snapshot: &Snapshot) -> Vec<Self> {
        let mut services: Vec<_> = snapshot.services().collect();
        services.sort_by_key(|service| service.key.to_string());
        let port = |service: &weft_core::service::Service, port: &weft_core::service::ServicePort| {
            let key = ServicePortKey { service: service.key.clone(), port: port.port };
            let entries = snapshot.frontend(&key).map(|f| f.endpoints.entries.clone()).unwrap_or_default();
            PortView {
                port: port.port.get(),
                protocol: format!("{:?}", port.protocol).to_lowercase(),
                endpoints: entries.len(),
                ready: entries.iter().filter(|e| e.health == EndpointHealth::Ready).count(),
            }
        };
        let view = |service: &std::sync::Arc<weft_core::service::Service>| Self {
            name: service.key.to_string(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            ports: service.ports.iter().map(|p| port(service, p)).collect(),
        };
        services.into_iter().map(view).collect()
    }
}

impl Status {
    /// What needs attention.
    pub fn trouble(&self) -> Vec<String> {
        let mut trouble = Vec::new();
        if self.proxies.pids.is_empty() {
            trouble.push("no proxy runs: connections of enrolled pods are refused".to_owned());
        }
        for pod in self.pods.iter().filter(|p| p.protection == "closed" || p.protection == "unprotected") {
            trouble.push(format!("pod {} is {}: {}", pod.name, pod.protection, pod.why));
        }
        for (node, view) in self.nodes.iter().filter(|(_, view)| view.streams == 0) {
            trouble.push(format!(
                "node {node} is away{}",
                view.last_nack.as_ref().map_or("", |_| ", and refused configuration before")
            ));
        }
        for listener in self.listeners.iter().filter(|it| it.state == "refused") {
            trouble.push(format!("listener {} isn't served: {}", listener.name, listener.why));
        }
        trouble.extend(self.findings.iter().filter(|f| f.contains("error")).cloned());
        trouble
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "node {} ({}), primary {}, trust domain {}",
            self.node, self.role, self.primary, self.trust_domain
        )?;
        self.roots.iter().try_for_each(|root| writeln!(f, "root {root}"))?;
        if let Some(authority) = &self.authority {
            let AuthorityView { stage, root_until, intermediate_until } = authority;
            writeln!(f, "authority {stage}, root until {root_until}, intermediate until {intermediate_until}")?;
        }
        let pids: Vec<_> = self.proxies.pids.iter().map(ToString::to_string).collect();
        writeln!(f, "proxy {} (ended unasked {} times)", pids.join(", "), self.proxies.failures)?;
        if !self.nodes.is_empty() {
            let rows = self.nodes.iter().map(|(name, view)| {
                let state = if view.streams == 0 {
                    "away"
                } else if view.synced {
                    "in step"
                } else {
                    "catching up"
                };
                vec![name.clone(), state.to_owned(), view.nacks.to_string()]
            });
            write!(f, "\nnodes\n{}", table(&["NAME", "CONFIGURATION", "REFUSALS"], rows))?;
        }
        let rows = self.pods.iter().map(|pod| {
            let account = pod.service_account.clone().unwrap_or_default();
            vec![pod.name.clone(), pod.ips.join(" "), account, pod.protection.clone(), pod.why.clone()]
        });
        write!(f, "\npods of this node\n{}", table(&["NAME", "ADDRESSES", "ACCOUNT", "STATE", "WHY"], rows))?;
        let rows = self.services.iter().map(|service| {
            let port = |p: &PortView| format!("{}/{} {}/{}", p.port, p.protocol, p.ready, p.endpoints);
            let ports: Vec<_> = service.ports.iter().map(port).collect();
            vec![service.name.clone(), service.addresses.join(" "), ports.join(", ")]
        });
        write!(f, "\nservices\n{}", table(&["NAME", "ADDRESSES", "PORTS (READY/ALL)"], rows))?;
        if !self.listeners.is_empty() {
            let rows = self.listeners.iter().map(|it| {
                let hostname = it.hostname.clone().unwrap_or_else(|| "*".into());
                vec![it.name.clone(), it.binds.join(" "), it.protocol.clone(), hostname, it.state.clone()]
            });
            write!(f, "\nlisteners\n{}", table(&["NAME", "LISTENS ON", "PROTOCOL", "HOSTNAME", "STATE"], rows))?;
        }
        let trouble = self.trouble();
        if !trouble.is_empty() {
            writeln!(f, "\nneeds attention")?;
        }
        trouble.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_core::change::{Change, Resource};
    use weft_core::ids::{GatewayKey, ListenerKey, Port};

    use super::*;

    fn listener(name: &str, port: u16) -> Change {
        Change::Upsert(Resource::Listener(Arc::new(Listener {
            key: ListenerKey::new(GatewayKey::new("edge", "gw"), name),
            addresses: Vec::new(),
            port: Port::new(port).unwrap(),
            hostname: None,
            protocol: ListenerProtocol::Http,
            kinds: Vec::new(),
            client_validation: None,
            policies: Vec::new(),
            http3: false,
        })))
    }

    fn shown(bound: &Bound) -> Status {
        Status {
            node: "a".into(),
            role: "primary".into(),
            primary: "127.0.0.1:15012".into(),
            trust_domain: "cluster.local".into(),
            roots: Vec::new(),
            authority: None,
            proxies: Proxies { pids: vec![7], failures: 0 },
            nodes: BTreeMap::new(),
            pods: Vec::new(),
            services: Vec::new(),
            listeners: ListenerView::all(
                &Snapshot::default().apply(&[listener("http", 80), listener("more", 81)]),
                bound,
            ),
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_listener_that_is_not_bound_is_shown_and_needs_attention_once_the_proxy_has_refused_it() {
        let states = |status: &Status| status.listeners.iter().map(|it| it.state.clone()).collect::<Vec<_>>();
        let waiting = shown(&Bound::new());
        assert_eq!((states(&waiting), waiting.trouble()), (vec!["waiting".to_owned(); 2], Vec::new()));
        let gateway = GatewayKey::new("edge", "gw");
        let refused = BTreeMap::from([(ListenerKey::new(gateway.clone(), "more"), "*:81: in use".to_owned())]);
        let refused = shown(&[(gateway.clone(), refused)].into());
        assert_eq!(states(&refused), ["bound", "refused"]);
        assert_eq!(refused.trouble(), ["listener edge/gw/more isn't served: *:81: in use"]);
        assert!(refused.to_string().contains("isn't served"), "{refused}");
        assert!(shown(&[(gateway, BTreeMap::new())].into()).trouble().is_empty());
    }
}
