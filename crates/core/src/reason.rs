//! Why a connection or request ended as it did: one closed set for logs, metrics and answers.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)+) => {
        /// A reason code. The text of a code never changes once it was released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code as logs and metrics show it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The reason of a code; `None` for a text that is none.
            pub fn of_code(code: &str) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// Nothing went wrong.
    Ok = "ok",
    /// No rule of the routes that apply matched: 404.
    NoRoute = "no_route",
    /// No listener of the Gateway has the host that was asked for: 404, or a TLS alert.
    NoListener = "no_listener",
    /// The request is for another listener than its TLS connection was made to: 421.
    Misdirected = "misdirected",
    /// The rule or its filters are invalid: 500.
    InvalidRoute = "invalid_route",
    /// The backendRef picked could not be resolved: 500.
    InvalidBackend = "invalid_backend",
    /// The rule has no backend with a weight: 500.
    NoBackend = "no_backend",
    /// A redirect filter answered.
    Redirect = "redirect",
    /// A CORS filter answered a preflight.
    CorsPreflight = "cors_preflight",
    /// The Service has no endpoint that may be used: 503.
    NoEndpoint = "no_endpoint",
    /// The endpoint refused or could not be reached.
    ConnectFailed = "connect_failed",
    /// The endpoint did not answer in time to connect.
    ConnectTimeout = "connect_timeout",
    /// The endpoint's certificate is not the destination workload's, or could not be verified.
    PeerIdentity = "peer_identity",
    /// The endpoint's certificate, or one above it, has expired.
    CertificateExpired = "certificate_expired",
    /// The TLS handshake failed for another reason.
    TlsHandshake = "tls_handshake",
    /// This node has no valid certificate for the workload.
    NoCertificate = "no_certificate",
    /// The destination's policy denied the call.
    PolicyDenied = "policy_denied",
    /// The destination's policy changed and no longer permits the open connection.
    PolicyRevoked = "policy_revoked",
    /// An external authorizer says no: its own answer, mostly 401 or 403.
    AuthDenied = "auth_denied",
    /// No external authorizer gave an answer that can be understood: 403.
    AuthFailed = "auth_failed",
    /// The body is longer than what the external authorizer takes: 413.
    BodyTooLarge = "body_too_large",
    /// Plaintext to a Strict workload.
    PlaintextRefused = "plaintext_refused",
    /// Plaintext from the node's own address that is no probe the pod declares.
    NotAProbe = "not_a_probe",
    /// An address inside the cluster that no configuration names.
    UnknownDestination = "unknown_destination",
    /// The Service has no such port.
    UnknownPort = "unknown_port",
    /// The proxy would have connected to itself.
    Loop = "loop",
    /// `timeouts.request` ran out: 504.
    RequestTimeout = "request_timeout",
    /// `timeouts.backendRequest` ran out: 504.
    BackendTimeout = "backend_timeout",
    /// The request would be tried again, but the backend's budget of retries is used up: 503.
    RetryBudget = "retry_budget",
    /// The endpoint closed or reset before its answer was complete.
    UpstreamReset = "upstream_reset",
    /// The client closed or reset before the answer was complete.
    DownstreamReset = "downstream_reset",
    /// The endpoint's answer is not valid HTTP: 502.
    UpstreamProtocol = "upstream_protocol",
    /// A connection without the header of the PROXY protocol that it has to have, with a malformed one, or of somebody who may
    /// send none.
    ProxyProtocol = "proxy_protocol",
    /// The client's request is not valid HTTP: 400.
    BadRequest = "bad_request",
    /// Request headers over the limit: 431.
    HeadersTooLarge = "headers_too_large",
    /// The client was slower than the header timeout: 408.
    HeaderTimeout = "header_timeout",
    /// The client sent nothing of the body it owes for too long: 408.
    BodyTimeout = "body_timeout",
    /// The tunnel peer answered the CONNECT with an error.
    TunnelRefused = "tunnel_refused",
    /// The tunnel broke.
    TunnelReset = "tunnel_reset",
    /// No byte for longer than the idle limit.
    IdleTimeout = "idle_timeout",
    /// The workload's budget of connections is used up.
    LimitConnections = "limit_connections",
    /// The workload's budget of handshakes is used up.
    LimitHandshakes = "limit_handshakes",
    /// The workload's budget of buffers is used up.
    LimitBuffers = "limit_buffers",
    /// The node is out of file descriptors or memory.
    NodeExhausted = "node_exhausted",
    /// The proxy is draining.
    Draining = "draining",
    /// The workload left the node.
    WorkloadGone = "workload_gone",
    /// The connection's task panicked.
    Panic = "panic",
}

/// Whose doing an answer is: what one asks first when a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MadeBy {
    /// The application answered so, or with something that is no answer.
    Application,
    /// A proxy decided so: by a route, a policy, a limit, or for want of something that it needs.
    Proxy,
    /// There was no connection, or it broke.
    Network,
}

impl MadeBy {
    /// As logs name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Proxy => "proxy",
            Self::Network => "network",
        }
    }
}

impl Reason {
    /// Whose doing an answer with this reason is. A client that went away leaves it the application's, whose answer was on
    /// its way; where a time limit ran out it is the proxy's, which enforces the limit.
    pub const fn made_by(self) -> MadeBy {
        match self {
            Self::Ok | Self::DownstreamReset | Self::UpstreamProtocol => MadeBy::Application,
            Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::TlsHandshake
            | Self::TunnelRefused
            | Self::TunnelReset
            | Self::UpstreamReset => MadeBy::Network,
            _ => MadeBy::Proxy,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_and_fit_a_label() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn a_code_leads_back_to_its_reason() {
        assert!(Reason::ALL.iter().all(|reason| Reason::of_code(reason.as_str()) == Some(*reason)));
        assert_eq!(Reason::of_code("no_such_thing"), None);
    }
}
