//! The policy routes of a pod, over netlink: packets with the reply mark are delivered locally.
//!
//! As commands: `ip rule add priority 20574 fwmark 0x575/0xfff lookup 574`, `ip route add local default dev lo table 574`,
//! and the same with `ip -6`.

use std::path::Path;

use futures::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion};
use weft_core::inpod::{MARK_MASK, REPLY_MARK, REPLY_RULE_PRIORITY, REPLY_TABLE};
use weft_sys::Netns;

use super::apply::{Drift, RulesError};

/// The loopback device has this index in every namespace.
const LOOPBACK: u32 = 1;

/// Routes of one namespace. The task that talks to the kernel ends with it.
pub(super) struct Routes {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
    families: Vec<Family>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Routes {
    /// Opens the netlink socket inside the namespace; it stays there.
    pub(super) fn open(netns: &Netns) -> Result<Self, RulesError> {
        let opened = netns.run(|| rtnetlink::new_connection().map(|c| (c, families())));
        let ((connection, handle, _), families) = opened.and_then(|o| o).map_err(RulesError::Enter)?;
        Ok(Self { handle, connection: tokio::spawn(connection), families })
    }

    /// Adds what is missing.
    pub(super) async fn apply(&self) -> Result<(), RulesError> {
        for &family in &self.families {
            let mut route = self.handle.route().add(family.route()).replace();
            route.message_mut().header.address_family = family.address_family();
            route.execute().await.map_err(|e| failed("add a route", family, e))?;
            if self.rules(family).await?.is_empty() {
                let mut rule = self.handle.rule().add();
                *rule.message_mut() = family.rule();
                rule.execute().await.map_err(|e| failed("add a rule", family, e))?;
            }
        }
        Ok(())
    }

    /// What is missing or was changed by somebody else.
    pub(super) async fn verify(&self, drift: &mut Vec<Drift>) -> Result<(), RulesError> {
        for &family in &self.families {
            if self.rules(family).await?.len() != 1 {
                drift.push(Drift::Rule(family.name()));
            }
            let routes = self.routes(family).await?;
            if !matches!(routes.as_slice(), [route] if is_ours(route)) {
                drift.push(Drift::Route(family.name()));
            }
        }
        Ok(())
    }

    /// Removes all of it, also what somebody else put in our table.
    pub(super) async fn remove(&self) -> Result<(), RulesError> {
        for &family in &self.families {
            for rule in self.rules_at_our_priority(family).await? {
                let removed = self.handle.rule().del(rule).execute().await;
                removed.or_else(ignore_absent).map_err(|e| failed("remove a rule", family, e))?;
            }
            for route in self.routes(family).await? {
                let removed = self.handle.route().del(route).execute().await;
                removed.or_else(ignore_absent).map_err(|e| failed("remove a route", family, e))?;
            }
        }
        Ok(())
    }

    async fn rules(&self, family: Family) -> Result<Vec<RuleMessage>, RulesError> {
        let mut rules = self.rules_at_our_priority(family).await?;
        let want = family.rule();
        rules.retain(|r| {
            r.header.action == want.header.action && want.attributes.iter().all(|a| r.attributes.contains(a))
        });
        Ok(rules)
    }

    async fn rules_at_our_priority(&self, family: Family) -> Result<Vec<RuleMessage>, RulesError> {
        let all = self.handle.rule().get(family.ip_version()).execute();
        let all: Vec<_> = all.try_collect().await.map_err(|e| failed("list rules", family, e))?;
        let ours = RuleAttribute::Priority(REPLY_RULE_PRIORITY);
        Ok(all.into_iter().filter(|r: &RuleMessage| r.attributes.contains(&ours)).collect())
    }

    async fn routes(&self, family: Family) -> Result<Vec<RouteMessage>, RulesError> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family.address_family();
        let all = self.handle.route().get(filter).execute();
        let all: Vec<_> = all.try_collect().await.map_err(|e| failed("list routes", family, e))?;
        let ours = RouteAttribute::Table(REPLY_TABLE);
        Ok(all.into_iter().filter(|r: &RouteMessage| r.attributes.contains(&ours)).collect())
    }
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    fn ip_version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }

    fn rule(self) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = self.address_family();
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Priority(REPLY_RULE_PRIORITY),
            RuleAttribute::FwMark(REPLY_MARK),
            RuleAttribute::FwMask(MARK_MASK),
            RuleAttribute::Table(REPLY_TABLE),
        ];
        rule
    }

    fn route(self) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = self.address_family();
        route.header.kind = RouteType::Local;
        route.header.scope = RouteScope::Host;
        route.header.protocol = RouteProtocol::Static;
        route.attributes = vec![RouteAttribute::Table(REPLY_TABLE), RouteAttribute::Oif(LOOPBACK)];
        route
    }
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local
        && route.header.destination_prefix_length == 0
        && route.attributes.contains(&RouteAttribute::Oif(LOOPBACK))
}

/// The families whose loopback is usable in the calling thread's namespace.
fn families() -> Vec<Family> {
    // `/proc/net` would show the namespace of the process' first thread.
    let v6 = Path::new("/proc/thread-self/net/if_inet6").exists()
        && std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|v| v.trim() == "0");
    if v6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

fn failed(what: &'static str, family: Family, error: rtnetlink::Error) -> RulesError {
    RulesError::Netlink { what, family: family.name(), message: error.to_string() }
}

fn ignore_absent(error: rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    match &error {
        rtnetlink::Error::NetlinkError(message) if matches!(message.to_io().raw_os_error(), Some(code) if code == nix::libc::ENOENT || code == nix::libc::ESRCH) => {
            Ok(())
        }
        _ => Err(error),
    }
}
