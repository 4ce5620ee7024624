//! Metrics that are looked up when the scrape comes: configuration, certificates, budgets, connections of the node.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use weft_xds::client::ClientStatus;

use super::labels::pair;
use crate::inpod::Manager;
use crate::worker::Node;

#[cfg(test)]
mod tests;

/// The metrics of the process; see the module.
#[derive(Debug)]
pub struct ProcessMetrics {
    node: Arc<Node>,
    manager: Arc<Manager>,
    config: Option<watch::Receiver<ClientStatus>>,
}

/// Lines of one metric after another.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let mut text = String::new();
        labels.iter().for_each(|(label, value)| pair(&mut text, label, value));
        let _ = match text.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{text}}} {value}"),
        };
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.value(name, &[], value);
    }
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
        let build = "weft_build_info";
        page.family(build, "gauge", "Always 1; the label says which version runs.");
        page.value(build, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.configuration(&mut page);
        self.certificates(&mut page);
        self.budgets(&mut page);
        page.0
    }

    fn configuration(&self, page: &mut Page) {
        let store = &self.node.store;
        let help = "Batches of configuration applied since the start.";
        page.single("weft_config_changes_total", "counter", help, store.version());
        let help = "Since the configuration last changed, or the process started.";
        page.single("weft_config_age_seconds", "gauge", help, store.age().as_secs_f64());
        let Some(status) = self.config.as_ref().map(|status| status.borrow().clone()) else { return };
        page.family(
            "weft_config_info",
            "gauge",
            "Always 1; the label is the control plane's version of what is applied.",
        );
        page.value("weft_config_info", &[("version", &status.version)], 1);
        let flag = |value: bool| u8::from(value);
        let help = "Whether the stream of configuration is open.";
        page.single("weft_config_connected", "gauge", help, flag(status.connected));
        let help = "Whether everything came at least once since the start.";
        page.single("weft_config_synced", "gauge", help, flag(status.synced));
        let help = "Responses with a resource that could not be used.";
        page.single("weft_config_rejections_total", "counter", help, status.nacks);
        if let Some(heard) = status.heard {
            let help = "Since the control plane was last heard.";
            page.single("weft_config_heard_age_seconds", "gauge", help, heard.elapsed().as_secs_f64());
        }
    }

    fn certificates(&self, page: &mut Page) {
        let all = self.node.certificates.status();
        let name = "weft_certificate_expiry_timestamp_seconds";
        page.family(name, "gauge", "End of the certificate in use, Unix time; 0 while there is none.");
        for status in &all {
            let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let end = status.not_after.map(since).unwrap_or_default();
            page.value(name, &[("identity", &status.identity.to_string())], end.as_secs());
        }
        let name = "weft_certificate_renewal_failures";
        page.family(name, "gauge", "Attempts to get a certificate that failed since the last that did not.");
        for status in &all {
            page.value(name, &[("identity", &status.identity.to_string())], status.failures);
        }
        let name = "weft_trusted_roots";
        page.family(name, "gauge", "Roots that peers' certificates may lead to: two while one replaces the other.");
        let bundle = &self.node.certificates.trust().current().bundle;
        for domain in bundle.domains() {
            page.value(name, &[("trust_domain", &domain.to_string())], bundle.roots(domain).len());
        }
    }

    fn budgets(&self, page: &mut Page) {
        let node = &self.node.budget;
        page.single("weft_node_connections", "gauge", "Connections open on the node.", node.connections());
        let help = "The most connections that the node takes.";
        page.single("weft_node_connections_limit", "gauge", help, node.max_connections());
        let mut pods = self.manager.pods();
        page.single("weft_pods", "gauge", "Pods served.", pods.len());
        pods.extend(self.node.gateways.pods());
        let mut usage = BTreeMap::new();
        for pod in &pods {
            let workload = pod.announced();
            usage.insert((workload.namespace.to_string(), workload.name.to_string()), pod.budget.usage());
        }
        type Of = fn(&crate::budget::Usage) -> u64;
        let families: [(&str, &str, Of); 6] = [
            ("connections", "Connections open that count on a pod.", |usage| u64::from(usage.connections)),
            ("connections_limit", "The most that may.", |usage| u64::from(usage.max_connections)),
            ("handshakes", "TLS handshakes with a pod under way.", |usage| u64::from(usage.handshakes)),
            ("handshakes_limit", "The most that may be.", |usage| u64::from(usage.max_handshakes)),
            ("buffer_bytes", "Bytes held for a pod because one end is slower.", |usage| usage.buffer_bytes),
            ("buffer_bytes_limit", "The most that may be.", |usage| usage.max_buffer_bytes),
        ];
        for (name, help, of) in families {
            let name = format!("weft_budget_{name}");
            page.family(&name, "gauge", help);
            for ((namespace, pod), usage) in &usage {
                page.value(&name, &[("namespace", namespace), ("pod", pod)], of(usage));
            }
        }
    }
}
