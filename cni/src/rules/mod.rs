//! What the agent sets in a pod's network namespace, as one declared set: an nftables table and two policy routes.
//!
//! ```text
//!   app --connect--> 10.96.0.7:80   outbound: redirect ----------------> proxy 15001
//!   eth0 ----------> pod:8080       inbound: redirect -----------------> proxy 15006
//!   eth0 ----------> pod:15008      untouched -------------------------> proxy 15008
//!   proxy (marked) -> anywhere      untouched
//!   proxy (marked, from the client's address) --lo--> app
//!   app --reply to the client's address--> reply: marked, routed to lo --> proxy
//! ```
//!
//! Invariants:
//! - One set per namespace, replaced whole in one nftables transaction; applying it twice changes nothing.
//! - The first set a pod gets is [`RuleSet::Closed`]; the transaction that opens it is the one that redirects.
//! - Only the table `inet weft`, the routing table and the rule priority of [`weft_core::inpod`] are ever touched, and
//!   [`Rules::remove`] takes all of it away.
//! - Only TCP. Only new connections are redirected: a flow in its middle can't be taken over, see [`OlderFlows`].
//! - What stays inside the pod (loopback, its own addresses) is never redirected: processes of one pod share a network
//!   namespace and could reach each other by loopback anyway. A pod that dials its own Service is redirected like any
//!   other client, because the address of the Service isn't the pod's.
//! - No sysctl is set. Packets between proxy and app cross the loopback device with their route attached, so neither
//!   reverse path filtering nor `accept_local` sees them, and redirection on output needs no `route_localnet`;
//!   the tests run with the strictest values of all three.
//!
//! The proxy connects to the app from the client's own address, so the two legs of one client connection differ for
//! connection tracking only by a port. The inner leg gets a tracking zone of its own in the original direction (chain
//! `zone`), so that an equal tuple never meets the redirection of the outer leg.
//!
//! The table is loaded by the `nft` program: its text is what a person sees in `nft list ruleset`, and the
//! transaction is the kernel's. Routes go over netlink from a socket made inside the namespace: nothing to install.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use weft_core::inpod::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, MARK_MASK, OUTBOUND_PORT, PROXY_MARK, REPLY_MARK};

mod apply;
mod nft;
mod routes;

pub use apply::{Drift, Held, Rules, RulesError};

/// The table that holds every rule of ours.
pub const TABLE: &str = "weft";

/// What to do with TCP connections that are older than the redirection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OlderFlows {
    /// They go on as they are, past the proxy.
    #[default]
    Keep,
    /// They are reset: everything that crosses the pod's interface belongs to the proxy.
    Close,
}

/// The rules of a pod, one of two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleSet {
    /// No TCP in or out, except inside the pod: until a proxy has taken the pod.
    Closed,
    /// TCP goes through the proxy. With no proxy there, connections are refused.
    Redirecting {
        /// The fate of connections that are older.
        older_flows: OlderFlows,
    },
}

impl RuleSet {
    /// The text for `nft -f -`: replaces whatever the table held, in one transaction.
    pub fn render(self) -> String {
        let mut text = Self::render_removal();
        let body = match self {
            Self::Closed => CLOSED.to_owned(),
            Self::Redirecting { older_flows } => redirecting(older_flows),
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "table inet {TABLE} {{\n{body}}}");
        text
    }

    /// The text that removes the table, also when there is none: one must exist to be deleted.
    pub fn render_removal() -> String {
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\n")
    }
}

/// Dropped, not refused: an app that dials in this short time tries again by itself.
const CLOSED: &str = r#"	chain closed-in {
		type filter hook input priority filter; policy accept;
		iif != "lo" meta l4proto tcp drop
	}
	chain closed-out {
		type filter hook output priority filter; policy accept;
		oif != "lo" meta l4proto tcp drop
	}
"#;

fn redirecting(older_flows: OlderFlows) -> String {
    let proxy = format!("meta mark & {MARK_MASK:#x} == {PROXY_MARK:#x}");
    let not_proxy = format!("meta mark & {MARK_MASK:#x} != {PROXY_MARK:#x}");
    let keep = !MARK_MASK;
    let ports = format!("{OUTBOUND_PORT}, {INBOUND_PLAINTEXT_PORT}, {HBONE_PORT}");
    let new = "tcp flags & (fin | syn | rst | ack) == syn";
    let mut text = format!(
        r#"	chain zone {{
		type filter hook output priority raw; policy accept;
		oif "lo" {proxy} tcp sport != {{ {ports} }} ct original zone set {REPLY_MARK}
	}}
	chain reply {{
		type route hook output priority mangle; policy accept;
		oif "lo" {proxy} meta l4proto tcp ct state new ct mark set ct mark & {keep:#x} | {REPLY_MARK:#x}
		meta l4proto tcp ct direction reply ct mark & {MARK_MASK:#x} == {REPLY_MARK:#x} {not_proxy} meta mark set meta mark & {keep:#x} | {REPLY_MARK:#x}
	}}
	chain own {{
		type filter hook output priority mangle; policy accept;
		oif != "lo" {proxy} meta l4proto tcp ct mark set ct mark & {keep:#x} | {PROXY_MARK:#x}
	}}
	chain outbound {{
		type nat hook output priority -100; policy accept;
		oif "lo" accept
		{proxy} accept
		{new} redirect to :{OUTBOUND_PORT}
	}}
	chain inbound {{
		type nat hook prerouting priority dstnat; policy accept;
		iif "lo" accept
		{new} tcp dport != {{ {ports} }} fib daddr type local redirect to :{INBOUND_PLAINTEXT_PORT}
	}}
	chain guard {{
		type filter hook input priority filter; policy accept;
		tcp dport {{ {OUTBOUND_PORT}, {INBOUND_PLAINTEXT_PORT} }} ct status ! dnat reject with tcp reset
		iif "lo" tcp dport {HBONE_PORT} {not_proxy} reject with tcp reset
	}}
"#
    );
    if older_flows == OlderFlows::Close {
        text.push_str(&close_older_flows());
    }
    text
}

/// Lets pass what crosses the interface and is the proxy's: its own connections (marked, and remembered on the
/// connection for their answers), redirected ones, tunnels, answers to borrowed addresses. Resets the rest.
///
/// These chains come and go while a pod runs, as policies do. What they let pass is remembered by chain `own`, which is there
/// in either case: the proxy's connections aren't older flows because the policy is newer than they are.
///
/// In the output hooks of one packet `oif` stays what it was before a redirection changed the route, hence the
/// exceptions by state instead of by interface. A reset without a socket carries no mark and may always leave.
fn close_older_flows() -> String {
    let masked = format!("& {MARK_MASK:#x}");
    format!(
        r#"	chain older-in {{
		type filter hook input priority filter + 1; policy accept;
		iif != "lo" meta l4proto tcp tcp dport != {HBONE_PORT} ct status ! dnat ct mark {masked} != {PROXY_MARK:#x} reject with tcp reset
	}}
	chain older-out {{
		type filter hook output priority filter + 1; policy accept;
		oif != "lo" meta l4proto tcp meta mark {masked} != {{ {PROXY_MARK:#x}, {REPLY_MARK:#x} }} tcp sport != {HBONE_PORT} tcp flags ! rst ct status ! dnat reject with tcp reset
	}}
"#
    )
}

#[cfg(test)]
mod tests;
