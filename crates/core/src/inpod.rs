//! What the node agent's rules and the proxy's sockets inside a pod's network namespace agree on.

/// Where TCP that leaves the pod is redirected to.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where plaintext TCP that enters the pod is redirected to.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// Where tunnels (HBONE: mutual TLS, HTTP/2 CONNECT) arrive; the port Istio's ambient data plane uses.
pub const HBONE_PORT: u16 = 15008;

/// `SO_MARK` of every socket the proxy opens inside a pod: such packets are never redirected again.
pub const PROXY_MARK: u32 = 0x574;
/// Mark of packets that answer a connection whose source address is borrowed from a client: they are
/// routed to the loopback device, where the proxy's transparent socket waits for them.
pub const REPLY_MARK: u32 = 0x575;
/// The bits of the mark that belong to Weft; the others are the application's and the node's.
pub const MARK_MASK: u32 = 0xfff;
/// Routing table, inside the pod, that delivers packets with [`REPLY_MARK`] locally.
pub const REPLY_TABLE: u32 = 574;
/// Priority of the rule that looks [`REPLY_TABLE`] up; before the main table (32766).
pub const REPLY_RULE_PRIORITY: u32 = 20574;

/// The version of the conversation between node agent and proxy (`weft.agent.v1`).
pub const AGENT_PROTOCOL: u32 = 1;
