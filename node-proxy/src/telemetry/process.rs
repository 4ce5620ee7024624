//! Metrics that are looked up when the scrape comes: configuration, certificates, budgets, connections of the node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use weft_metrics::Family;
use weft_xds::client::ClientStatus;

use super::families;
use super::page::Page;
use crate::budget::Usage;
use crate::inpod::Manager;
use crate::worker::Node;

#[cfg(test)]
mod tests;

/// A number of a pod's budget.
type Of = fn(&Usage) -> u64;

/// The metrics of the process; see the module.
#[derive(Debug)]
pub struct ProcessMetrics {
    node: Arc<Node>,
    manager: Arc<Manager>,
    config: Option<watch::Receiver<ClientStatus>>,
}

impl ProcessMetrics {
    /// Of a proxy's node and pods.
    pub fn new(node: Arc<Node>, manager: Arc<Manager>) -> Self {
        Self { node, manager, config: None }
    }

    /// And of the client of its configuration.
    pub fn with_config(mut self, status: watch::Receiver<ClientStatus>) -> Self {
        self.config = Some(status);
        self
    }

    /// All of them, in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        self.configuration(&mut page);
        self.certificates(&mut page);
        self.budgets(&mut page);
        page.text
    }

    fn configuration(&self, page: &mut Page) {
        let store = &self.node.store;
        page.single(&families::CONFIG_CHANGES, store.version());
        page.single(&families::CONFIG_AGE, store.age().as_secs_f64());
        let Some(status) = self.config.as_ref().map(|status| status.borrow().clone()) else { return };
        page.family(&families::CONFIG_INFO);
        page.value(&families::CONFIG_INFO, &[("version", &status.version)], 1);
        page.single(&families::CONFIG_CONNECTED, u8::from(status.connected));
        page.single(&families::CONFIG_SYNCED, u8::from(status.synced));
        page.single(&families::CONFIG_REJECTIONS, status.nacks);
        if let Some(heard) = status.heard {
            page.single(&families::CONFIG_HEARD_AGE, heard.elapsed().as_secs_f64());
        }
    }

    fn certificates(&self, page: &mut Page) {
        let all = self.node.certificates.status();
        let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        page.family(&families::CERTIFICATE_EXPIRY);
        for status in &all {
            let end = status.not_after.map(since).unwrap_or_default();
            page.value(&families::CERTIFICATE_EXPIRY, &[("identity", &status.identity.to_string())], end);
        }
        page.family(&families::RENEWAL_FAILURES);
        for status in &all {
            page.value(&families::RENEWAL_FAILURES, &[("identity", &status.identity.to_string())], status.failures);
        }
        let bundle = &self.node.certificates.trust().current().bundle;
        page.family(&families::TRUSTED_ROOTS);
        for domain in bundle.domains() {
            let labels = [("trust_domain", &*domain.to_string())];
            page.value(&families::TRUSTED_ROOTS, &labels, bundle.roots(domain).len());
        }
        page.family(&families::ROOT_EXPIRY);
        for (domain, end) in bundle.domains().filter_map(|domain| Some((domain, bundle.not_after(domain)?))) {
            page.value(&families::ROOT_EXPIRY, &[("trust_domain", &domain.to_string())], since(end));
        }
    }

    fn budgets(&self, page: &mut Page) {
        let node = &self.node.budget;
        page.single(&families::NODE_CONNECTIONS, node.connections());
        page.single(&families::NODE_CONNECTIONS_LIMIT, node.max_connections());
        let mut pods = self.manager.pods();
        page.single(&families::PODS, pods.len());
        pods.extend(self.node.gateways.pods());
        let mut usage = BTreeMap::new();
        for pod in &pods {
            let workload = pod.announced();
            usage.insert((workload.namespace.to_string(), workload.name.to_string()), pod.budget.usage());
        }
        let families: [(&Family, Of); 6] = [
            (&families::BUDGET_CONNECTIONS, |usage| u64::from(usage.connections)),
            (&families::BUDGET_CONNECTIONS_LIMIT, |usage| u64::from(usage.max_connections)),
            (&families::BUDGET_HANDSHAKES, |usage| u64::from(usage.handshakes)),
            (&families::BUDGET_HANDSHAKES_LIMIT, |usage| u64::from(usage.max_handshakes)),
            (&families::BUDGET_BUFFERS, |usage| usage.buffer_bytes),
            (&families::BUDGET_BUFFERS_LIMIT, |usage| usage.max_buffer_bytes),
        ];
        for (family, of) in families {
            page.family(family);
            for ((namespace, pod), usage) in &usage {
                page.value(family, &[("namespace", namespace), ("pod", pod)], of(usage));
            }
        }
    }
}
