//! Writes objects to the API server, many at a time.

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use weft_kube::kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use weft_kube::kube::core::{ApiResource, DynamicObject};
use weft_kube::kube::{self, Client};

/// Requests under way at once.
const AT_ONCE: usize = 48;
/// Tries of a request that the server can't take now.
const TRIES: u32 = 5;

/// The API server.
#[derive(Clone)]
pub struct Api {
    pub client: Client,
}

/// A kind of objects.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
}

impl Api {
    /// The one that `KUBECONFIG` names.
    pub async fn connect() -> anyhow::Result<Self> {
        Ok(Self { client: weft_kube::client().await? })
    }

    /// Objects of a kind, in one namespace or, when that is empty, of the cluster.
    pub fn of(&self, kind: Kind, namespace: &str) -> kube::Api<DynamicObject> {
        let (group, version) = (kind.group.to_owned(), kind.version.to_owned());
        let (name, plural) = (kind.kind.to_owned(), kind.plural.to_owned());
        let resource = ApiResource { group, version, api_version: api_version(kind), kind: name, plural };
        match namespace {
            "" => kube::Api::all_with(self.client.clone(), &resource),
            _ => kube::Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    /// Makes an object, and sets its status if it has one; it may be there already.
    pub async fn create(&self, kind: Kind, object: Value) -> anyhow::Result<()> {
        let (name, namespace) = names(&object);
        let status = object.get("status").cloned();
        let api = self.of(kind, &namespace);
        let mut object = object;
        object["apiVersion"] = api_version(kind).into();
        object["kind"] = kind.kind.into();
        let object: DynamicObject = serde_json::from_value(object)?;
        let what = || format!("{} {namespace}/{name}", kind.kind);
        let (post, params) = (PostParams::default(), PatchParams::default());
        match again(|| api.create(&post, &object)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            made => drop(made.with_context(what)?),
        }
        if let Some(status) = status {
            let patch = Patch::Merge(serde_json::json!({ "status": status }));
            again(|| api.patch_status(&name, &params, &patch)).await.with_context(what)?;
        }
        Ok(())
    }

    /// Makes many objects.
    pub async fn create_all(&self, objects: impl Iterator<Item = (Kind, Value)> + Send) -> anyhow::Result<()> {
        let making = futures::stream::iter(objects).map(|(kind, object)| self.create(kind, object));
        making.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Removes objects of a kind, many at a time.
    pub async fn delete_all(&self, kind: Kind, namespace: &str, names: Vec<String>) -> anyhow::Result<()> {
        let (api, params) = (self.of(kind, namespace), DeleteParams::default());
        let (api, params) = (&api, &params);
        let removing = futures::stream::iter(names).map(|name| async move {
            again(|| api.delete(&name, params)).await.map(drop).with_context(|| format!("{} {name}", kind.kind))
        });
        removing.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Changes an object, or its status.
    pub async fn patch(
        &self,
        kind: Kind,
        (namespace, name): (&str, &str),
        patch: &Value,
        status: bool,
    ) -> anyhow::Result<()> {
        let (api, params, patch) = (self.of(kind, namespace), PatchParams::default(), Patch::Merge(patch));
        match status {
            true => api.patch_status(name, &params, &patch).await?,
            false => api.patch(name, &params, &patch).await?,
        };
        Ok(())
    }

    /// How many objects of a namespace the API server has in its memory, from which watches are served.
    pub async fn cached(&self, kind: Kind, namespace: &str) -> anyhow::Result<usize> {
        Ok(self.of(kind, namespace).list(&ListParams::default().match_any()).await?.items.len())
    }

    /// An object, if it is there.
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<Option<Value>> {
        let found = self.of(kind, namespace).get_opt(name).await?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }
}

/// Its `apiVersion`.
pub fn api_version(kind: Kind) -> String {
    if kind.group.is_empty() { kind.version.to_owned() } else { format!("{}/{}", kind.group, kind.version) }
}

fn names(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("name"), text("namespace"))
}

async fn again<T, F: Future<Output = Result<T, kube::Error>>>(ask: impl Fn() -> F) -> Result<T, kube::Error> {
    for attempt in 1..TRIES {
        match ask().await {
            Err(kube::Error::Api(status)) if [429, 500, 504].contains(&status.code) => {}
            Err(kube::Error::HyperError(_) | kube::Error::Service(_)) => {}
            answer => return answer,
        }
        tokio::time::sleep(std::time::Duration::from_millis(200) * attempt).await;
    }
    ask().await
}
