//! Every file of `examples/` is taken by an API server that has the Gateway API's kinds and ours: by their schemas, with no
//! field that isn't in them, and by the API server's own rules. Nothing is made.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};
use weft_tests::apiserver::ApiServer;
use weft_tests::cluster::{PATIENCE, eventually, repository};

/// Files of other programs, in which no object of Kubernetes is.
const OTHERS: [&str; 5] = [
    "examples/observability/standalone/compose.yaml",
    "examples/observability/standalone/grafana/dashboards.yaml",
    "examples/observability/standalone/grafana/datasource.yaml",
    "examples/observability/standalone/prometheus.yaml",
    "examples/observability/standalone/rules.yaml",
];

/// Files that are refused, and with which words.
const REFUSED: [(&str, &str); 1] = [
    // For a machine without Kubernetes, where programs beside the Gateway are endpoints.
    ("examples/standalone/backends.yaml", "may not be in the loopback range"),
];

/// What the comment says of a file with fields that the standard channel doesn't have.
const EXPERIMENTAL: &str = "of the Gateway API's experimental channel";

struct Example {
    /// From the repository's root.
    path: String,
    text: String,
    /// What has a kind.
    objects: Vec<Value>,
}

/// What becomes of a file at an API server with the standard channel.
enum Fate {
    Taken,
    /// By the other channel.
    TakenLater,
    Refused(&'static str),
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl Example {
    /// All below a folder.
    fn all(folder: &Path, found: &mut Vec<Self>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                Self::all(&path, found)?;
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(Self::read(&path).with_context(|| path.display().to_string())?);
            }
        }
        Ok(())
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let documents = serde_norway::Deserializer::from_str(&text).map(Value::deserialize);
        let mut objects = documents.collect::<Result<Vec<_>, _>>()?;
        objects.retain(|object| object["kind"].is_string());
        Ok(Self { path: path.strip_prefix(repository())?.display().to_string(), text, objects })
    }

    fn fate(&self) -> Fate {
        match REFUSED.iter().find(|(path, _)| *path == self.path) {
            Some((_, words)) => Fate::Refused(words),
            None if self.text.contains(EXPERIMENTAL) => Fate::TakenLater,
            None => Fate::Taken,
        }
    }

    /// Gives it to the API server.
    fn give(&self, server: &ApiServer) -> Result<()> {
        let path = repository().join(&self.path).display().to_string();
        server.k(&["apply", "--dry-run=server", "--validate=strict", "-f", &path]).map(drop)
    }

    /// Why its fate isn't what it should be; none if it is.
    fn complaint(&self, server: &ApiServer) -> Option<String> {
        match (self.fate(), self.give(server)) {
            (Fate::Taken, Ok(())) | (Fate::TakenLater, Err(_)) => None,
            (Fate::Refused(words), Err(error)) if format!("{error:#}").contains(words) => None,
            (_, Err(error)) => Some(format!("{}: {error:#}", self.path)),
            (Fate::TakenLater, Ok(())) => {
                Some(format!("{}: the standard channel will do, its comment is wrong", self.path))
            }
            (Fate::Refused(_), Ok(())) => Some(format!("{}: it is taken, so it is no exception", self.path)),
        }
    }
}

/// Makes what has to be there before anything else is taken: namespaces, and the ServiceAccounts of pods.
fn prepare(server: &ApiServer, examples: &[Example]) -> Result<()> {
    let (mut namespaces, mut accounts) = (BTreeSet::new(), BTreeSet::new());
    for object in examples.iter().flat_map(|example| &example.objects) {
        let namespace = match text(object, "/kind") {
            "Namespace" => text(object, "/metadata/name"),
            _ => text(object, "/metadata/namespace"),
        };
        if !namespace.is_empty() {
            namespaces.insert(namespace);
        }
        if text(object, "/kind") == "Pod" {
            let account = object.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or("default");
            accounts.insert((namespace, account));
        }
    }
    let namespaces = namespaces
        .into_iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string());
    let accounts = accounts.into_iter().map(|(namespace, name)| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
            .to_string()
    });
    server.apply(&namespaces.chain(accounts).map(|object| format!("---\n{object}\n")).collect::<String>())
}

#[test]
#[ignore = "needs make cluster-build"]
fn an_api_server_takes_every_example() -> Result<()> {
    let mut examples = Vec::new();
    Example::all(&repository().join("examples"), &mut examples)?;
    let (others, examples): (Vec<_>, Vec<_>) =
        examples.into_iter().partition(|example| OTHERS.contains(&example.path.as_str()));
    ensure!(others.len() == OTHERS.len(), "one of {OTHERS:?} isn't there");
    for other in others {
        ensure!(other.objects.is_empty(), "{} has objects of Kubernetes, so it is no exception", other.path);
    }
    for (path, _) in REFUSED {
        ensure!(examples.iter().any(|example| example.path == path), "there is no {path}");
    }
    ensure!(examples.len() > 30, "only {} examples: looking in the wrong place", examples.len());

    let server = ApiServer::start(&[])?;
    server.install("standard")?;
    prepare(&server, &examples)?;
    let mut found: Vec<_> = examples.iter().filter_map(|example| example.complaint(&server)).collect();
    server.define("experimental")?;
    for example in examples.iter().filter(|example| matches!(example.fate(), Fate::TakenLater)) {
        // A schema that changes is in force a moment later.
        let taken = eventually("the experimental channel to take it", PATIENCE, || example.give(&server));
        found.extend(taken.err().map(|error| format!("{}: {error:#}", example.path)));
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
