//! Stable ClusterIPs, as a value: ranges, what was assigned before and the Services in; assignments out.
//!
//! - A Service keeps what it has for as long as it is there and still wants that family.
//! - An address that a Service names (`spec.clusterIP`) is its own, unless another Service has it already.
//! - New addresses start at the hash of the Service's name, so that even without the old assignments most Services
//!   get the same address again, and a freed address is not handed to the next Service at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::translate::{Problem, Reason};

/// Most addresses of a range that are used; larger ranges are used from their start.
const MAX_HOSTS: u128 = 1 << 20;

/// The ClusterIPs of Services, by `namespace/name`. The first address decides what `spec.clusterIP` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Assignments(pub BTreeMap<String, Vec<IpAddr>>);

impl Assignments {
    /// The addresses of a Service.
    pub fn of(&self, service: &Service) -> &[IpAddr] {
        self.0.get(&name(service)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Writes the addresses into the object.
    pub fn complete(&self, service: &mut Service) {
        let addresses: Vec<_> = self.of(service).iter().map(ToString::to_string).collect();
        if let (Some(first), Some(spec)) = (addresses.first(), service.spec.as_mut()) {
            spec.cluster_ip = Some(first.clone());
            spec.cluster_ips = Some(addresses);
        }
    }
}

fn name(service: &Service) -> String {
    let meta = &service.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default())
}

/// Assigns addresses to all Services that need them.
///
/// `ranges` holds at most one range of each family; the first is the default of the cluster. The problems are by
/// `namespace/name`: an address that is taken, a range that is used up, a family without a range.
pub fn assign(ranges: &[IpNet], before: &Assignments, services: &[&Service]) -> (Assignments, Vec<(String, Problem)>) {
    let mut sorted: Vec<_> = services.iter().map(|s| (name(s), *s)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut work = Work { ranges, made: Assignments::default(), taken: BTreeSet::new(), problems: Vec::new() };
    let wants: Vec<_> = sorted
        .iter()
        .filter_map(|(name, s)| Some((name, s.spec.as_ref().filter(|spec| needs(spec))?)))
        .map(|(name, spec)| (name, requested(spec), families(spec, ranges)))
        .collect();
    for (name, requested, families) in &wants {
        work.keep(name, requested, families, before);
    }
    for (name, requested, _) in &wants {
        work.take_requested(name, requested);
    }
    for (name, _, families) in &wants {
        work.allocate(name, families);
    }
    (work.made, work.problems)
}

fn needs(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() != Some("ExternalName") && spec.cluster_ip.as_deref() != Some("None")
}

fn requested(spec: &ServiceSpec) -> Vec<IpAddr> {
    let texts = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in texts.filter_map(|t| t.parse().ok()) {
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

/// The families of a Service in its order, `true` for IPv4: what it names, else the cluster's default; both with
/// `PreferDualStack` and `RequireDualStack`.
fn families(spec: &ServiceSpec, ranges: &[IpNet]) -> Vec<bool> {
    let is_v4 = |net: &IpNet| matches!(net, IpNet::V4(_));
    let mut found: Vec<bool> = spec.ip_families.iter().flatten().map(|f| f == "IPv4").collect();
    if found.is_empty() {
        found.extend(ranges.first().map(is_v4));
    }
    if matches!(spec.ip_family_policy.as_deref(), Some("PreferDualStack" | "RequireDualStack")) {
        found.extend(ranges.iter().map(is_v4));
    }
    let mut once = Vec::new();
    found.into_iter().for_each(|f| {
        if !once.contains(&f) {
            once.push(f)
        }
    });
    once
}

struct Work<'a> {
    ranges: &'a [IpNet],
    made: Assignments,
    taken: BTreeSet<IpAddr>,
    problems: Vec<(String, Problem)>,
}

impl Work<'_> {
    fn keep(&mut self, name: &str, requested: &[IpAddr], families: &[bool], before: &Assignments) {
        for ip in before.0.get(name).into_iter().flatten() {
            // An address it no longer asks for makes way for the one of the same family that it does ask for.
            let replaced = requested.iter().any(|r| r.is_ipv4() == ip.is_ipv4() && r != ip);
            let wanted = requested.contains(ip) || families.contains(&ip.is_ipv4());
            if wanted && !replaced && self.taken.insert(*ip) {
                self.made.0.entry(name.to_owned()).or_default().push(*ip);
            }
        }
    }

    fn take_requested(&mut self, name: &str, requested: &[IpAddr]) {
        for ip in requested {
            let own = self.made.0.entry(name.to_owned()).or_default();
            if own.contains(ip) {
                continue;
            }
            if self.taken.insert(*ip) {
                own.push(*ip);
                continue;
            }
            let message = format!("{ip} belongs to another Service already; another address is assigned");
            let remedy = "name a free address, or leave the field out";
            self.problems.push((name.to_owned(), Problem::new("spec.clusterIP", Reason::Conflicted, message, remedy)));
        }
    }

    fn allocate(&mut self, name: &str, families: &[bool]) {
        for v4 in families {
            let own = self.made.0.entry(name.to_owned()).or_default();
            if own.iter().any(|ip| ip.is_ipv4() == *v4) {
                continue;
            }
            let range = self.ranges.iter().find(|r| matches!(r, IpNet::V4(_)) == *v4);
            let taken = &self.taken;
            let found = range.and_then(|r| candidates(r, name).find(|ip| !taken.contains(ip)));
            match found {
                Some(ip) => {
                    own.push(ip);
                    self.taken.insert(ip);
                }
                None => {
                    let family = if *v4 { "IPv4" } else { "IPv6" };
                    let message = match range {
                        Some(range) => format!("no address of {range} is free"),
                        None => format!("there is no range for {family} addresses"),
                    };
                    let remedy = "give the node a larger range, or remove the family";
                    self.problems
                        .push((name.to_owned(), Problem::new("spec.ipFamilies", Reason::Conflicted, message, remedy)));
                }
            }
        }
        let order = |ip: &IpAddr| families.iter().position(|v4| *v4 == ip.is_ipv4()).unwrap_or(families.len());
        match self.made.0.get_mut(name) {
            Some(own) if own.is_empty() => drop(self.made.0.remove(name)),
            Some(own) => own.sort_by_key(order),
            None => {}
        }
    }
}

/// All usable addresses of a range, from the one that the name hashes to: without the first, and for IPv4 the last.
fn candidates(range: &IpNet, name: &str) -> impl Iterator<Item = IpAddr> {
    let (start, bits) = match range.network() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let size = 1u128.checked_shl(bits - u32::from(range.prefix_len())).unwrap_or(u128::MAX);
    let usable = size.saturating_sub(if bits == 32 { 2 } else { 1 }).min(MAX_HOSTS);
    let digest = Sha256::digest(name.as_bytes());
    let hash = digest.iter().take(8).fold(0u128, |n, b| (n << 8) | u128::from(*b));
    (0..usable).map(move |i| {
        let number = start + 1 + (hash + i) % usable;
        match bits {
            32 => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            _ => IpAddr::V6(Ipv6Addr::from(number)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, spec: &str) -> Service {
        serde_norway::from_str(&format!("metadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}")).unwrap()
    }

    fn ranges() -> Vec<IpNet> {
        vec!["10.96.0.0/28".parse().unwrap(), "fd00:96::/112".parse().unwrap()]
    }

    fn run(before: &Assignments, services: &[Service]) -> (Assignments, Vec<(String, Problem)>) {
        assign(&ranges(), before, &services.iter().collect::<Vec<_>>())
    }

    #[test]
    fn an_address_stays_while_others_come_and_go() {
        let (first, problems) = run(&Assignments::default(), &[service("a", ""), service("b", "")]);
        assert!(problems.is_empty());
        let many: Vec<_> = ["0", "1", "2", "a", "b", "c"].iter().map(|n| service(n, "")).collect();
        let (second, _) = run(&first, &many);
        assert_eq!(first.0["shop/a"], second.0["shop/a"]);
        assert_eq!(first.0["shop/b"], second.0["shop/b"]);
        assert_eq!(second.0.values().flatten().collect::<BTreeSet<_>>().len(), 6);
        let (third, _) = run(&second, &[service("b", "")]);
        assert_eq!(third.0.len(), 1);
        assert_eq!(third.0["shop/b"], first.0["shop/b"]);
    }

    #[test]
    fn a_named_address_is_its_own_unless_taken() {
        let asks = service("z", "clusterIP: 10.96.0.7");
        let (made, problems) = run(&Assignments::default(), &[service("a", ""), asks.clone()]);
        assert_eq!(made.0["shop/z"], ["10.96.0.7".parse::<IpAddr>().unwrap()]);
        assert!(problems.is_empty());
        let held = Assignments([("shop/a".to_owned(), vec!["10.96.0.7".parse().unwrap()])].into());
        let (made, problems) = run(&held, &[service("a", ""), asks]);
        assert_eq!(made.0["shop/a"], ["10.96.0.7".parse::<IpAddr>().unwrap()]);
        assert_ne!(made.0["shop/z"], made.0["shop/a"]);
        assert_eq!(problems[0].0, "shop/z");
    }

    #[test]
    fn families_are_as_asked_for() {
        let (made, _) = run(
            &Assignments::default(),
            &[
                service("one", ""),
                service("two", "ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6]"),
                service("six", "ipFamilies: [IPv6]"),
                service("headless", "clusterIP: None"),
                service("alias", "type: ExternalName, externalName: example.com"),
            ],
        );
        let families = |n: &str| made.0[n].iter().map(IpAddr::is_ipv4).collect::<Vec<_>>();
        assert_eq!(families("shop/one"), [true]);
        assert_eq!(families("shop/two"), [false, true]);
        assert_eq!(families("shop/six"), [false]);
        assert_eq!(made.0.len(), 3);
        let mut object = service("two", "");
        made.complete(&mut object);
        assert_eq!(object.spec.unwrap().cluster_ips.unwrap().len(), 2);
    }

    #[test]
    fn a_full_range_is_said_and_takes_nothing_from_anyone() {
        let services: Vec<_> = (0..16).map(|i| service(&format!("s{i}"), "")).collect();
        let (made, problems) = run(&Assignments::default(), &services);
        assert_eq!(made.0.len(), 14, "a /28 without its network and broadcast address");
        assert_eq!(problems.len(), 2);
        assert_eq!(made.0.values().flatten().collect::<BTreeSet<_>>().len(), 14);
    }
}
