//! The logs of the mesh's parts.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use weft_kube::kube::api::{Api, LogParams};

use super::facts::{Read, name_of, namespace_of};
use super::proxy::gateway_pods;
use super::read::{Session, within};

/// Logs that are read at the same time.
const AT_ONCE: usize = 8;
/// The most bytes of one log.
const LARGEST: i64 = 16 << 20;

/// Hands over the logs of all pods of the mesh's namespace and of Gateways' pods, container by container, each with its name; of
/// a container that was started again also the one before.
///
/// # Errors
/// Pods of the mesh's namespace can't be listed; or those of Gateways, when it has handed over the others'.
pub async fn logs(
    session: &Session,
    since_seconds: i64,
    lines: i64,
    mut take: impl FnMut(&str, Read<String>),
) -> Read<()> {
    let own = session.own_pods().await?;
    let of_gateways = gateway_pods(session).await;
    let elsewhere = of_gateways.iter().flatten().filter(|pod| namespace_of(&pod.metadata) != session.mesh);
    let wanted: Vec<_> = own.iter().chain(elsewhere).flat_map(containers).collect();
    let read = futures::stream::iter(wanted).map(|(namespace, pod, container, previous)| {
        let api: Api<Pod> = Api::namespaced(session.client.clone(), &namespace);
        async move {
            let params = LogParams {
                container: Some(container.clone()),
                since_seconds: (!previous).then_some(since_seconds),
                tail_lines: Some(lines),
                limit_bytes: Some(LARGEST),
                timestamps: true,
                previous,
                ..LogParams::default()
            };
            let place = if namespace == session.mesh { String::new() } else { format!("{namespace}/") };
            let name = format!("{place}{pod}-{container}{}", if previous { "-before" } else { "" });
            let log = within(&format!("log of pod {pod}"), api.logs(&pod, &params)).await;
            (name, log)
        }
    });
    let mut read = read.buffered(AT_ONCE).boxed_local();
    while let Some((name, log)) = read.next().await {
        take(&name, log);
    }
    of_gateways.map(drop)
}

/// Namespace, pod, container, and whether it is the one before that is meant.
fn containers(pod: &Pod) -> Vec<(String, String, String, bool)> {
    let meta = &pod.metadata;
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let each = statuses.into_iter().flatten().flat_map(|status| {
        let one = |previous| (namespace_of(meta).to_owned(), name_of(meta).to_owned(), status.name.clone(), previous);
        [Some(one(false)), (status.restart_count > 0).then(|| one(true))]
    });
    each.flatten().collect()
}
