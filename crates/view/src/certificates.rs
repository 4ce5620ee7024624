//! What proves who is who, and until when.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weft_core::identity::SpiffeId;
use weft_core::snapshot::Snapshot;
use x509_parser::pem::Pem;

use crate::lens::HIDDEN;
use crate::{Lens, Metrics};

/// All of them, what ends first at the front.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Certificates {
    /// By what they are of.
    pub certificates: Vec<Certificate>,
}

/// What a certificate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A root that peers trust.
    Root,
    /// What the authority signs with.
    Intermediate,
    /// A workload's identity.
    Workload,
    /// What a Gateway presents to its clients.
    Gateway,
}

/// A certificate, or several of one identity on several nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// What it is of.
    pub kind: Kind,
    /// The identity, the trust domain or the Secret.
    pub name: String,
    /// Empty for what belongs to the whole mesh.
    pub namespace: String,
    /// The proxies that hold it, or the listeners that present it.
    pub at: BTreeSet<String>,
    /// When the first of them ends, Unix time in seconds; `None`: somewhere there is none. Of Gateways: it isn't known, because
    /// what they present is in no proxy's copy of the configuration.
    pub until: Option<i64>,
    /// Attempts to get a new one that failed since the last that didn't, of all.
    pub failures: u64,
}

type Found = BTreeMap<(Kind, String, String), Certificate>;

impl Certificates {
    /// Of the pages of processes, by their names, and of the listeners of a snapshot. Roots are everybody's to see.
    pub fn of<'a>(
        pages: impl Iterator<Item = (&'a str, &'a Metrics)>,
        snapshot: Option<&Snapshot>,
        lens: &Lens,
    ) -> Self {
        let mut found = Found::new();
        for (process, metrics) in pages {
            workloads(&mut found, process, metrics, lens);
            for (kind, metric) in [
                (Kind::Root, "weft_trusted_root_expiry_timestamp_seconds"),
                (Kind::Root, "weft_ca_root_expiry_timestamp_seconds"),
                (Kind::Intermediate, "weft_ca_intermediate_expiry_timestamp_seconds"),
            ] {
                for sample in metrics.of(metric).filter(|sample| sample.value >= 1.0) {
                    let name = match sample.label("trust_domain") {
                        "" => "the authority",
                        domain => domain,
                    };
                    add(&mut found, (kind, name, ""), "", Some(sample.value as i64), 0);
                }
            }
        }
        if let Some(snapshot) = snapshot {
            listeners(&mut found, snapshot, lens);
        }
        let mut certificates: Vec<_> = found.into_values().collect();
        // A workload without a certificate can do nothing; of a Gateway's it is only not known when it ends.
        let end = |it: &Certificate| match (it.kind, it.until) {
            (_, Some(until)) => until,
            (Kind::Gateway, None) => i64::MAX,
            (Kind::Root | Kind::Intermediate | Kind::Workload, None) => i64::MIN,
        };
        certificates.sort_by(|a, b| (end(a), a.kind, &a.name).cmp(&(end(b), b.kind, &b.name)));
        Self { certificates }
    }
}

fn add(found: &mut Found, key: (Kind, &str, &str), at: &str, until: Option<i64>, failures: u64) {
    let (kind, name, namespace) = (key.0, key.1.to_owned(), key.2.to_owned());
    let new = || Certificate {
        kind,
        name: name.clone(),
        namespace: namespace.clone(),
        at: BTreeSet::new(),
        until,
        failures: 0,
    };
    let entry = found.entry((kind, name.clone(), namespace.clone())).or_insert_with(new);
    entry.at.extend((!at.is_empty()).then(|| at.to_owned()));
    // Where there is none comes before every moment.
    entry.until = entry.until.min(until);
    entry.failures += failures;
}

fn workloads(found: &mut Found, process: &str, metrics: &Metrics, lens: &Lens) {
    for sample in metrics.of("weft_certificate_expiry_timestamp_seconds") {
        let identity = sample.label("identity");
        let Ok(id) = identity.parse::<SpiffeId>() else { continue };
        let namespace = id.namespace.as_str();
        if !lens.wants(namespace) {
            continue;
        }
        let failed = metrics.of("weft_certificate_renewal_failures").find(|it| it.label("identity") == identity);
        let until = (sample.value >= 1.0).then_some(sample.value as i64);
        let failures = failed.map_or(0, |it| it.value as u64);
        add(found, (Kind::Workload, identity, namespace), process, until, failures);
    }
}

fn listeners(found: &mut Found, snapshot: &Snapshot, lens: &Lens) {
    for listener in snapshot.listeners() {
        let gateway = &listener.key.gateway;
        if !lens.wants(gateway.namespace.as_str()) {
            continue;
        }
        let at = format!("Gateway {gateway} listener {}", listener.key.name);
        for key in listener.protocol.certificates() {
            let secret = match lens.may_view(key.secret.namespace.as_str()) {
                true => format!("Secret {}", key.secret),
                false => format!("a Secret in {HIDDEN}"),
            };
            let until = snapshot.certificate(key).and_then(|certificate| end(&certificate.chain));
            add(found, (Kind::Gateway, &secret, gateway.namespace.as_str()), &at, until, 0);
        }
    }
}

/// When the first certificate of a chain in PEM ends, which is the leaf.
fn end(chain: &[u8]) -> Option<i64> {
    let pem = Pem::iter_from_buffer(chain).next()?.ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}
