//! The logs of the mesh's parts.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use weft_kube::kube::api::{Api, LogParams};

use super::facts::{Read, name_of};
use super::read::{Session, within};

/// Logs that are read at the same time.
const AT_ONCE: usize = 8;
/// The most bytes of one log.
const LARGEST: i64 = 16 << 20;

/// The logs of all pods of the mesh's namespace, container by container, each with its name; of a container that was started
/// again also the one before.
///
/// # Errors
/// Pods can't be listed.
pub async fn logs(session: &Session, since_seconds: i64, lines: i64) -> Read<Vec<(String, Read<String>)>> {
    let pods = session.own_pods().await?;
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.mesh);
    let wanted: Vec<_> = pods.iter().flat_map(containers).collect();
    let read = futures::stream::iter(wanted).map(|(pod, container, previous)| {
        let api = api.clone();
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
            let name = format!("{pod}-{container}{}", if previous { "-before" } else { "" });
            let log = within(&format!("log of pod {pod}"), api.logs(&pod, &params)).await;
            (name, log)
        }
    });
    Ok(read.buffered(AT_ONCE).collect().await)
}

/// Pod, container, and whether it is the one before that is meant.
fn containers(pod: &Pod) -> Vec<(String, String, bool)> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let each = statuses.into_iter().flatten().flat_map(|status| {
        let one = |previous| (name_of(&pod.metadata).to_owned(), status.name.clone(), previous);
        [Some(one(false)), (status.restart_count > 0).then(|| one(true))]
    });
    each.flatten().collect()
}
