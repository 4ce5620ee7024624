//! Reads a cluster: the only I/O behind the checks and views.

mod answers;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weft_controller::kubernetes::board;
use weft_k8s::object::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, WEFT_GROUP};
use weft_kube::kube::api::{Api, DynamicObject, ListParams, PostParams};
use weft_kube::kube::client::Body;
use weft_kube::kube::core::{ApiResource, GroupVersionKind, Resource};
use weft_kube::kube::{Client, Error};

use super::facts::{COMPONENTS, Crd, Facts, MeshObject, Pages, Read, Right, Server, Unread, component_of, name_of};
use super::metrics::Metrics;
use answers::{crd_of, failed, http_date, missing, unexpected, wanted};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Pods that are asked at the same time.
const AT_ONCE: usize = 16;
/// The largest page of a pod that is read, in bytes.
const LARGEST: usize = 32 << 20;
/// Kinds of the Gateway API that may be there.
const GATEWAY_KINDS: [&str; 10] = [
    "gatewayclasses",
    "gateways",
    "httproutes",
    "grpcroutes",
    "tlsroutes",
    "tcproutes",
    "udproutes",
    "referencegrants",
    "backendtlspolicies",
    "listenersets",
];
/// Those that it tries out.
const EXPERIMENTAL_KINDS: [&str; 1] = ["xbackendtrafficpolicies"];
const WEFT_KINDS: [&str; 3] = ["meshpolicies", "authorizationpolicies", "telemetrypolicies"];

/// A cluster and the mesh in it.
#[derive(Clone)]
pub struct Session {
    pub client: Client,
    /// The mesh's namespace.
    pub mesh: String,
}

fn unread(what: impl Into<String>, error: &Error) -> Unread {
    let why = match error {
        Error::Api(status) => status.message.trim().to_owned(),
        other => with_causes(other),
    };
    Unread { what: what.into(), why }
}

/// An error with its causes, those that the one before doesn't have in its words.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// Waits for an answer, but not for ever.
pub async fn within<T>(what: &str, answer: impl Future<Output = Result<T, Error>>) -> Read<T> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| unread(what, &error)),
        Err(_) => Err(Unread { what: what.to_owned(), why: format!("no answer within {} s", PATIENCE.as_secs()) }),
    }
}

/// An object of a kind that the API server may not serve: then it answers 404 in plain text, and there is none.
async fn or_unserved<T>(answer: impl Future<Output = Result<Option<T>, Error>>) -> Result<Option<T>, Error> {
    match answer.await {
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        answer => answer,
    }
}

impl Session {
    /// All objects of a kind.
    pub async fn list<K: Clone + DeserializeOwned + std::fmt::Debug>(&self, what: &str, api: Api<K>) -> Read<Vec<K>> {
        let mut params = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = within(what, api.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }

    /// All objects of a kind in the cluster.
    pub async fn all<K>(&self) -> Read<Vec<K>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.list(&K::plural(&()), Api::all(self.client.clone())).await
    }

    /// Namespaces and names of all objects of a kind; what they hold isn't asked for.
    pub async fn names<K>(&self) -> Read<Vec<(String, String)>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = within(&K::plural(&()), api.list_metadata(&params)).await?;
            let names = page.items.into_iter().map(|object| object.metadata);
            all.extend(names.map(|meta| (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default())));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }

    /// All objects of a kind in the mesh's namespace.
    async fn own<K>(&self) -> Read<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        self.list(&K::plural(&()), Api::namespaced(self.client.clone(), &self.mesh)).await
    }

    /// Pods of the mesh's namespace.
    pub async fn own_pods(&self) -> Read<Vec<Pod>> {
        self.own().await
    }

    /// A ConfigMap, if it is there.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Read<Option<ConfigMap>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        within(&format!("ConfigMap {namespace}/{name}"), api.get_opt(name)).await
    }

    /// The API server: its version and its clock.
    ///
    /// # Errors
    /// When it can't be reached.
    pub async fn server(&self) -> Read<Server> {
        let what = "the API server";
        let asked = SystemTime::now();
        let request = http::Request::get("/version").body(Body::empty()).map_err(|e| failed(what, e))?;
        let response = within(what, self.client.send(request)).await?;
        let took = asked.elapsed().unwrap_or_default();
        let date = response.headers().get(http::header::DATE).and_then(|v| v.to_str().ok()).and_then(http_date);
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| failed(what, e))?.to_bytes();
        let info: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(version) = info.get("gitVersion").and_then(Value::as_str) else {
            let said = info.get("message").and_then(Value::as_str).unwrap_or("no version");
            return Err(Unread { what: what.to_owned(), why: format!("{status}: {said}") });
        };
        Ok(Server { version: version.to_owned(), date, now: asked + took / 2 })
    }

    /// A page of a pod, by way of the API server: its code and text.
    ///
    /// # Errors
    /// When the API server refuses, or can't reach the pod.
    pub async fn page(&self, pod: &str, port: u16, path: &str) -> Read<(u16, String)> {
        let mesh = &self.mesh;
        let what = format!("{path} of pod {mesh}/{pod}");
        let uri = format!("/api/v1/namespaces/{mesh}/pods/{pod}:{port}/proxy/{path}");
        let request = http::Request::get(uri).body(Body::empty()).map_err(|e| failed(&what, e))?;
        let response = within(&what, self.client.send(request)).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST).collect();
        let body = tokio::time::timeout(PATIENCE, body).await.map_err(|e| failed(&what, e))?;
        let body = body.map_err(|e| failed(&what, e))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        // What the API server says itself is an object of kind Status; pods answer in plain text.
        let status = serde_json::from_str::<Value>(&text)
            .ok()
            .filter(|v| v.get("kind").and_then(Value::as_str) == Some("Status"));
        match status {
            Some(status) if code >= 400 => {
                let why = status.get("message").and_then(Value::as_str).unwrap_or("refused").to_owned();
                Err(Unread { what, why })
            }
            _ => Ok((code, text)),
        }
    }

    async fn pages_of(&self, pod: &str, port: u16) -> Pages {
        let (ready, metrics) = tokio::join!(self.page(pod, port, "readyz"), self.page(pod, port, "metrics"));
        let what = format!("pod {pod}");
        let missing = ready.and_then(|(code, text)| missing(code, &text).ok_or_else(|| unexpected(&what, code)));
        let metrics = metrics.and_then(|(code, text)| match code {
            200 => Ok(Metrics::parse(&text)),
            code => Err(unexpected(&what, code)),
        });
        Pages { missing, metrics }
    }

    /// Readiness and metrics of the mesh's pods, or of those of one component, by their names.
    pub async fn pages(&self, pods: &[Pod], only: Option<&str>) -> BTreeMap<String, Pages> {
        let asked = pods.iter().filter(|pod| pod.metadata.namespace.as_deref() == Some(self.mesh.as_str()));
        let asked = asked.filter_map(|pod| {
            let component = component_of(pod).filter(|c| only.is_none_or(|only| only == *c))?;
            let (_, port) = COMPONENTS.into_iter().find(|(name, _)| *name == component)?;
            let runs = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
            runs.then(|| (name_of(&pod.metadata).to_owned(), port))
        });
        let asked: Vec<_> = asked.collect();
        let answers = futures::stream::iter(asked).map(|(pod, port)| async move {
            let pages = self.pages_of(&pod, port).await;
            (pod, pages)
        });
        answers.buffer_unordered(AT_ONCE).collect().await
    }

    async fn crds(&self) -> Read<Vec<Crd>> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let names = GATEWAY_KINDS.iter().map(|kind| format!("{kind}.{GATEWAY_GROUP}"));
        let names = names.chain(EXPERIMENTAL_KINDS.iter().map(|kind| format!("{kind}.{EXPERIMENTAL_GROUP}")));
        let names = names.chain(WEFT_KINDS.iter().map(|kind| format!("{kind}.{WEFT_GROUP}")));
        let found = futures::stream::iter(names).map(|name| {
            let api = api.clone();
            async move { within("customresourcedefinitions", api.get_opt(&name)).await }
        });
        let found: Vec<_> = found.buffered(AT_ONCE).collect().await;
        found.into_iter().filter_map(Result::transpose).map(|crd| crd.map(|crd| crd_of(&crd))).collect()
    }

    /// Routes and policies, with their statuses, and ReferenceGrants.
    async fn objects(&self, crds: &Read<Vec<Crd>>) -> Read<Vec<MeshObject>> {
        let crds = crds.as_ref().map_err(Clone::clone)?;
        let mut all = Vec::new();
        let is_ours = |crd: &&Crd| [WEFT_GROUP, EXPERIMENTAL_GROUP].contains(&crd.group.as_str());
        let is_route = |crd: &&Crd| crd.kind.ends_with("Route") || crd.kind == "ReferenceGrant";
        for crd in crds.iter().filter(|crd| is_ours(crd) || is_route(crd)) {
            let kind = GroupVersionKind::gvk(&crd.group, &crd.version, &crd.kind);
            let api = Api::<DynamicObject>::all_with(
                self.client.clone(),
                &ApiResource::from_gvk_with_plural(&kind, &crd.plural),
            );
            let objects = self.list(&crd.plural, api).await?;
            let objects = objects.into_iter().filter_map(|object| serde_json::to_value(object).ok());
            all.extend(objects.map(|object| MeshObject { kind: crd.kind.clone(), object }));
        }
        Ok(all)
    }

    /// All objects of a kind that has a CustomResourceDefinition, each with its version and kind; none if it isn't defined.
    pub async fn custom(&self, plural: &str, group: &str) -> Read<Vec<Value>> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let found = within("customresourcedefinitions", api.get_opt(&format!("{plural}.{group}"))).await?;
        let Some(crd) = found.as_ref().map(crd_of) else { return Ok(Vec::new()) };
        let kind = GroupVersionKind::gvk(&crd.group, &crd.version, &crd.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &crd.plural);
        let objects = self.list(plural, Api::<DynamicObject>::all_with(self.client.clone(), &resource)).await?;
        let values = objects.into_iter().filter_map(|object| serde_json::to_value(object).ok());
        let version = format!("{group}/{}", crd.version);
        Ok(values.map(|value| typed(value, &version, &crd.kind)).collect())
    }

    async fn felix(&self) -> Read<Option<Value>> {
        let kind = GroupVersionKind::gvk("crd.projectcalico.org", "v1", "FelixConfiguration");
        let resource = ApiResource::from_gvk_with_plural(&kind, "felixconfigurations");
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let found = within("felixconfigurations", or_unserved(api.get_opt("default"))).await?;
        Ok(found.and_then(|object| serde_json::to_value(object).ok()))
    }

    async fn rights(&self) -> Read<Vec<Right>> {
        let answers = futures::stream::iter(wanted(&self.mesh)).map(|right| self.may(right));
        let answers: Vec<_> = answers.buffered(AT_ONCE).collect().await;
        answers.into_iter().collect()
    }

    async fn may(&self, right: Right) -> Read<Right> {
        let attributes = ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(right.resource.to_owned()),
            verb: Some(right.verb.to_owned()),
            namespace: right.namespace.clone(),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let reviewed = within("rights of the caller", api.create(&PostParams::default(), &review)).await?;
        Ok(Right { allowed: reviewed.status.is_some_and(|s| s.allowed), ..right })
    }

    /// What the checks before an installation look at.
    ///
    /// # Errors
    /// When the API server can't be reached; what it refuses is unread in the facts.
    pub async fn before(&self) -> Read<Facts> {
        let mut facts = Facts::new(&self.mesh, self.server().await?);
        let platform = async {
            tokio::join!(
                self.all(),
                self.config_map("kube-system", "cilium-config"),
                self.felix(),
                self.crds(),
                self.rights()
            )
        };
        let traffic = async { tokio::join!(self.all(), self.all(), self.all()) };
        let (platform, traffic) = tokio::join!(platform, traffic);
        (facts.nodes, facts.cilium, facts.felix, facts.crds, facts.rights) = platform;
        (facts.namespaces, facts.pods, facts.network_policies) = traffic;
        Ok(facts)
    }

    /// What the checks of an installation and its status look at.
    ///
    /// # Errors
    /// When the API server can't be reached; what it refuses is unread in the facts.
    pub async fn installed(&self) -> Read<Facts> {
        let mut facts = Facts::new(&self.mesh, self.server().await?);
        let platform = async {
            tokio::join!(self.all(), self.config_map("kube-system", "cilium-config"), self.felix(), self.crds())
        };
        let traffic = async { tokio::join!(self.all(), self.all(), self.all(), self.all()) };
        let maps =
            async { tokio::join!(self.config_map(&self.mesh, "weft-trust"), self.config_map(&self.mesh, board::NAME)) };
        let own = async { tokio::join!(self.own(), self.own(), self.own(), maps) };
        let (platform, traffic, own) = tokio::join!(platform, traffic, own);
        (facts.nodes, facts.cilium, facts.felix, facts.crds) = platform;
        (facts.namespaces, facts.pods, facts.network_policies, facts.services) = traffic;
        (facts.deployments, facts.daemon_sets, facts.leases, (facts.trust, facts.refusals)) = own;
        let pods = facts.pods.as_deref().unwrap_or_default();
        (facts.pages, facts.objects) = tokio::join!(self.pages(pods, None), self.objects(&facts.crds));
        Ok(facts)
    }
}

/// An item of a list with its version and kind, which the list has for all of them.
pub fn typed(mut value: Value, version: &str, kind: &str) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), version.into());
        object.insert("kind".to_owned(), kind.into());
    }
    value
}
