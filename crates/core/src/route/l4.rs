//! Rules of routes whose bytes aren't looked into.

use super::{BackendTarget, Created, HostnameMatch, Parent};
use crate::ids::{RuleKey, SectionName};

/// A rule of a TLSRoute, TCPRoute or UDPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct L4Rule {
    /// Its key.
    pub key: RuleKey,
    /// `rules[].name`
    pub name: Option<SectionName>,
    /// When its route was made.
    pub created: Created,
    /// Where it is attached.
    pub parents: Vec<Parent>,
    /// SNI names of a TLSRoute; empty means any.
    pub hostnames: Vec<HostnameMatch>,
    /// By weight; empty or all 0: connections are refused.
    pub backends: Vec<L4Backend>,
}

/// A backendRef of an L4 rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L4Backend {
    /// Where it goes.
    pub target: BackendTarget,
    /// Its share; 0 gets nothing.
    pub weight: u32,
}
