//! Who calls the pods of a namespace in plaintext, as the node proxies have counted it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::core::v1::Namespace;
use serde::Serialize;
use weft_k8s::translate::enrolment::says;
use weft_kube::kube::api::Api;

use super::facts::{Facts, Read, name_of, node_of};
use super::metrics::Metrics;
use super::read::{Session, within};
use crate::table;

/// A caller of a workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Caller {
    /// `namespace/workload`; `unknown/unknown` is one that isn't a pod.
    pub source: String,
    pub destination: String,
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that are open now.
    pub open: u64,
}

/// What mode Strict would mean for a namespace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Callers {
    pub namespace: String,
    /// Seconds that were counted; `None`: since the proxies started.
    pub seconds: Option<u64>,
    /// Whom Strict would refuse.
    pub refused: Vec<Caller>,
    /// Connections in plaintext from the nodes' own addresses, as of probes, which Strict takes.
    pub probes: u64,
    /// Connections over mutual TLS, or within a node.
    pub secure: u64,
    /// What couldn't be read.
    pub unknown: Vec<String>,
}

/// Numbers by source, destination and what protects them.
type Counts = BTreeMap<(String, String, String), (f64, f64)>;

/// Counts of the connections into a namespace's pods.
fn counts<'a>(proxies: impl Iterator<Item = &'a Metrics>, namespace: &str) -> Counts {
    let mut counts = Counts::new();
    for metrics in proxies {
        for (name, is_opened) in [("weft_tcp_connections_opened_total", true), ("weft_tcp_connections", false)] {
            let inbound = metrics.of(name).filter(|s| s.label("reporter") == "destination");
            for sample in inbound.filter(|s| s.label("destination_namespace") == namespace) {
                let end = |side: &str| {
                    format!(
                        "{}/{}",
                        sample.label(&format!("{side}_namespace")),
                        sample.label(&format!("{side}_workload"))
                    )
                };
                let key = (end("source"), end("destination"), sample.label("connection_security").to_owned());
                let count = counts.entry(key).or_default();
                if is_opened { count.0 += sample.value } else { count.1 += sample.value }
            }
        }
    }
    counts
}

/// What the numbers say; `before` are those of the beginning, if there was one.
fn callers(namespace: &str, before: Option<&Counts>, now: &Counts) -> Callers {
    let mut found = Callers {
        namespace: namespace.to_owned(),
        seconds: None,
        refused: Vec::new(),
        probes: 0,
        secure: 0,
        unknown: Vec::new(),
    };
    for ((source, destination, security), (opened, open)) in now {
        let key = (source.clone(), destination.clone(), security.clone());
        // A proxy that was replaced counts from the beginning.
        let earlier = before.and_then(|b| b.get(&key)).map_or(0.0, |(opened, _)| *opened);
        let opened = if *opened >= earlier { opened - earlier } else { *opened } as u64;
        let open = *open as u64;
        match security.as_str() {
            "plaintext" if opened + open > 0 => {
                found.refused.push(Caller { source: source.clone(), destination: destination.clone(), opened, open })
            }
            "node" => found.probes += opened,
            "mutual_tls" | "local" => found.secure += opened,
            _ => {}
        }
    }
    found.refused.sort_by_key(|caller| std::cmp::Reverse((caller.opened, caller.open)));
    found
}

/// Reads the numbers of all node proxies, twice if they are to be of a time.
///
/// # Errors
/// When the namespace isn't there or isn't enrolled, or pods can't be listed.
pub async fn read(session: &Session, namespace: &str, over: Option<Duration>) -> anyhow::Result<Callers> {
    let api: Api<Namespace> = Api::all(session.client.clone());
    let Some(found) = within("namespaces", api.get_opt(namespace)).await? else {
        bail!("there is no namespace {namespace}");
    };
    if says(found.metadata.labels.as_ref()) != Some(true) {
        eprintln!("weft: namespace {namespace} isn't enrolled: only pods with a label of their own are looked at");
    }
    let (first, mut unknown) = sample(session, namespace).await?;
    let mut callers = match over {
        None => callers(namespace, None, &first),
        Some(over) => {
            tokio::time::sleep(over).await;
            let (second, more) = sample(session, namespace).await?;
            unknown.extend(more);
            Callers { seconds: Some(over.as_secs()), ..callers(namespace, Some(&first), &second) }
        }
    };
    unknown.sort();
    unknown.dedup();
    callers.unknown = unknown;
    Ok(callers)
}

async fn sample(session: &Session, namespace: &str) -> Read<(Counts, Vec<String>)> {
    let mut facts = Facts::new(&session.mesh, session.server().await?);
    facts.pods = session.own_pods().await;
    let pods = facts.pods.as_deref().map_err(Clone::clone)?;
    facts.pages = session.pages(pods, Some("weft-node-proxy")).await;
    let mut unknown = Vec::new();
    let mut read = Vec::new();
    for pod in facts.component_with_replaced("weft-node-proxy") {
        match facts.pages.get(name_of(&pod.metadata)).map(|pages| &pages.metrics) {
            Some(Ok(metrics)) => read.push(metrics),
            Some(Err(why)) => unknown.push(format!("node {}: {}", node_of(pod), why.why)),
            None => unknown.push(format!("node {}: its proxy isn't running", node_of(pod))),
        }
    }
    if read.is_empty() && unknown.is_empty() {
        unknown.push(format!("no node proxy in namespace {}", session.mesh));
    }
    Ok((counts(read.into_iter(), namespace), unknown))
}

impl Callers {
    /// 1 if somebody would be refused, 2 if that can't be said, else 0.
    pub fn code(&self) -> u8 {
        match (self.refused.is_empty(), self.unknown.is_empty()) {
            (false, _) => 1,
            (true, false) => 2,
            (true, true) => 0,
        }
    }
}

impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, probes, secure, .. } = self;
        let time = self.seconds.map_or("since the proxies started".to_owned(), |s| format!("in {s} s"));
        if self.refused.is_empty() {
            writeln!(f, "nobody called {namespace} in plaintext {time}")?;
        } else {
            writeln!(f, "called {namespace} in plaintext {time}, and would be refused in mode Strict")?;
            let rows = self.refused.iter();
            let rows =
                rows.map(|c| vec![c.source.clone(), c.destination.clone(), c.opened.to_string(), c.open.to_string()]);
            write!(f, "{}", table(&["FROM", "TO", "OPENED", "OPEN NOW"], rows))?;
        }
        writeln!(f, "\nconnections over mutual TLS or within a node: {secure}")?;
        writeln!(f, "probes from the nodes' addresses, which Strict takes: {probes}")?;
        if self.unknown.is_empty() && self.refused.is_empty() {
            let policy = format!(
                "{{apiVersion: weftmesh.io/v1alpha1, kind: MeshPolicy, metadata: {{name: strict, namespace: {namespace}}}, spec: {{mode: Strict}}}}"
            );
            writeln!(f, "\nto refuse plaintext: kubectl apply -f - <<< '{policy}'")?;
        }
        self.unknown.iter().try_for_each(|line| writeln!(f, "not known: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(plain: u32, tls: u32, open: u32) -> Metrics {
        let line = |name: &str, reporter: &str, from: &str, security: &str, value: u32| {
            format!(
                "{name}{{reporter=\"{reporter}\",source_namespace=\"{from}\",source_workload=\"w\",destination_namespace=\"shop\",destination_workload=\"cart\",connection_security=\"{security}\"}} {value}\n"
            )
        };
        let opened = "weft_tcp_connections_opened_total";
        Metrics::parse(&format!(
            "{}{}{}{}{}",
            line(opened, "destination", "old", "plaintext", plain),
            line("weft_tcp_connections", "destination", "old", "plaintext", open),
            line(opened, "destination", "web", "mutual_tls", tls),
            line(opened, "destination", "unknown", "node", 7),
            // The other end counts the same connection.
            line(opened, "source", "old", "plaintext", 1000),
        ))
    }

    #[test]
    fn only_plaintext_into_the_namespace_is_refused() {
        let (one, two) = (page(3, 10, 1), page(2, 5, 0));
        let now = counts([&one, &two].into_iter(), "shop");
        let found = callers("shop", None, &now);
        let caller = Caller { source: "old/w".into(), destination: "shop/cart".into(), opened: 5, open: 1 };
        assert_eq!(
            (found.refused.as_slice(), found.secure, found.probes, found.code()),
            ([caller].as_slice(), 15, 14, 1)
        );
        insta::assert_snapshot!(found.to_string());
        assert_eq!(callers("other", None, &counts([&one].into_iter(), "other")).code(), 0);
    }

    #[test]
    fn over_a_time_only_what_is_new_counts() {
        let before = counts([&page(3, 10, 0)].into_iter(), "shop");
        let quiet = callers("shop", Some(&before), &counts([&page(3, 12, 0)].into_iter(), "shop"));
        assert_eq!((quiet.code(), quiet.secure), (0, 2));
        insta::assert_snapshot!(quiet.to_string());
        // One that is still open would be cut.
        assert_eq!(callers("shop", Some(&before), &counts([&page(3, 12, 1)].into_iter(), "shop")).code(), 1);
        // A proxy that started anew has counted these two since.
        let replaced = callers("shop", Some(&before), &counts([&page(2, 1, 0)].into_iter(), "shop"));
        assert_eq!(replaced.refused[0].opened, 2);
    }
}
