//! How connections are protected, as logs and metrics name it.

/// How a connection to the other end is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Security {
    /// Mutual TLS.
    Mtls,
    /// Both ends on this node, in memory.
    Local,
    /// Not at all: the other end is not in the mesh.
    Plaintext,
    /// Not at all: from an address of the node itself, where the kubelet's probes come from.
    Node,
    /// Not the mesh's business: relayed unchanged.
    Passthrough,
    /// There was no connection.
    None,
}

impl Security {
    /// The transport that the connection pipelines name for it.
    pub const fn transport(self) -> &'static str {
        match self {
            Self::Mtls => "hbone",
            Self::Local => "local",
            Self::Plaintext => "plaintext",
            Self::Node => "node",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// The protection that a transport gives.
    pub fn of_transport(transport: &str) -> Self {
        match transport {
            "hbone" => Self::Mtls,
            "local" => Self::Local,
            "plain" | "plaintext" => Self::Plaintext,
            "node" => Self::Node,
            "passthrough" => Self::Passthrough,
            _ => Self::None,
        }
    }

    /// As logs and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mutual_tls",
            Self::Local => "local",
            Self::Plaintext => "plaintext",
            Self::Node => "node",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }
}
