//! Every metric that is not of requests or connections, with what it says about itself.

/// A metric's name, kind and help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Family {
    /// Without the prefix `weft_`, and for a counter without `_total`. With the unit, if there is one.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// What it tells.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// What is now; of several workers, the sum.
    Gauge,
}

impl Kind {
    /// As the exposition names it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

impl Family {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    /// The name in full.
    pub fn full_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("weft_{}_total", self.name),
            Kind::Gauge => format!("weft_{}", self.name),
        }
    }
}

macro_rules! families {
    ($($constant:ident = $kind:ident($name:literal, $help:literal);)+) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family::$kind($name, $help);
        )+

        /// Every family here.
        #[cfg(test)]
        pub(super) static ALL: &[&Family] = &[$(&$constant,)+];
    };
}

families! {
    CONNECTIONS_REFUSED = counter("tcp_connections_refused", "Connections and tunnel streams that ended before bytes could flow, by reason.");
    CONNECTIONS_SHED = counter("tcp_connections_shed", "Connections reset on arrival because a budget was used up, by listener and reason.");
    ACCEPT_FAILURES = counter("accept_failures", "Failed calls of accept, by class: connection, pressure or listener.");
    LISTENERS_REOPENED = counter("listeners_reopened", "Broken listeners that were opened anew.");
    PANICS = counter("panics", "Panics caught; each ended one connection or request.");
    STRICT_AUDIT = counter("strict_audit", "Plaintext connections that Strict would refuse, let through by StrictAudit.");
    NODE_PLAINTEXT = counter("node_plaintext_connections", "Plaintext connections from the node's own addresses, taken whatever the mode says: probes.");
    SOURCE_NOT_KEPT = counter("source_address_not_kept", "Inbound connections made from the proxy's own address because the families differ.");
    MIRRORED_REQUESTS = counter("http_mirrored_requests", "Copies of requests sent to mirrors, by result.");
    AUTH_CHECKS = counter("external_auth_checks", "Questions to external authorizers, by result: allowed, denied, or failed, which is a no as well.");
    HANDSHAKES = counter("tls_handshakes", "TLS handshakes of tunnels, by role (client or server) and result (ok, or the reason).");
    DECISIONS = counter("authorization_decisions", "Decisions of authorization policies on connections and requests. An empty policy: no ALLOW policy matched. Mode audit decides nothing.");
    ENDPOINT_EJECTIONS = counter("endpoint_ejections", "Endpoints taken out of balancing for failing, by Service.");
    ENDPOINTS_EJECTED = gauge("endpoints_ejected", "Endpoints out of balancing now; one that several workers have ejected counts for each.");
    TUNNELS = gauge("tunnels", "Tunnels open from pods of this node that take streams.");
    TUNNEL_STREAMS = gauge("tunnel_streams", "Streams on those tunnels.");
    TUNNEL_DIALS = gauge("tunnel_dials", "Tunnels being dialled now.");
    HTTP_DOWNSTREAM = gauge("http_downstream_connections", "Client connections on which HTTP is parsed.");
    HTTP_UPSTREAM_IDLE = gauge("http_upstream_idle_connections", "Idle HTTP/1 connections to endpoints.");
    HTTP_UPSTREAM_H2 = gauge("http2_upstream_connections", "HTTP/2 connections to endpoints.");
    HTTP_UPSTREAM_STREAMS = gauge("http2_upstream_streams", "Requests under way on those.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_follow_the_conventions() {
        let names: std::collections::HashSet<_> = ALL.iter().map(|family| family.full_name()).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            assert!(family.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!(!family.name.ends_with("_total") && family.help.ends_with('.') && !family.help.contains('\n'));
        }
    }
}
