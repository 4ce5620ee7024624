//! What is migrated, read from a cluster: nothing is written there.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use serde::Serialize;
use serde_json::Value;

use super::super::report::{Level, Report};
use super::input::Inputs;
use crate::cluster::{Session, Target, Unread, typed};

/// Istio's kinds, by group.
const KINDS: [(&str, &[&str]); 4] = [
    ("extensions.istio.io", &["wasmplugins"]),
    (
        "networking.istio.io",
        &[
            "destinationrules",
            "envoyfilters",
            "gateways",
            "proxyconfigs",
            "serviceentries",
            "sidecars",
            "virtualservices",
            "workloadentries",
            "workloadgroups",
        ],
    ),
    ("security.istio.io", &["authorizationpolicies", "peerauthentications", "requestauthentications"]),
    ("telemetry.istio.io", &["telemetries"]),
];

/// Reads Istio's objects and what they speak of.
///
/// # Errors
/// When the cluster can't be reached. What may not be read is in the report.
pub fn read(target: &Target, inputs: &mut Inputs, report: &mut Report) -> anyhow::Result<()> {
    crate::cluster::block_on(async {
        let session = target.session().await?;
        from(&session, inputs, report).await
    })
}

/// Reads from a session.
pub async fn from(session: &Session, inputs: &mut Inputs, report: &mut Report) -> anyhow::Result<()> {
    let services = session.all::<Service>().await?;
    take(Ok(services), ("v1", "Service"), inputs, report);
    for (group, plurals) in KINDS {
        for plural in plurals {
            listed(session.custom(plural, group).await, inputs, report);
        }
    }
    listed(session.custom("gateways", "gateway.networking.k8s.io").await, inputs, report);
    take(session.all::<Namespace>().await, ("v1", "Namespace"), inputs, report);
    take(session.all::<Pod>().await, ("v1", "Pod"), inputs, report);
    take(session.all::<Deployment>().await, ("apps/v1", "Deployment"), inputs, report);
    take(session.all::<StatefulSet>().await, ("apps/v1", "StatefulSet"), inputs, report);
    take(session.all::<DaemonSet>().await, ("apps/v1", "DaemonSet"), inputs, report);
    take(session.all::<Job>().await, ("batch/v1", "Job"), inputs, report);
    take(session.all::<CronJob>().await, ("batch/v1", "CronJob"), inputs, report);
    Ok(())
}

fn take<T: Serialize>(
    read: Result<Vec<T>, Unread>,
    (version, kind): (&str, &str),
    inputs: &mut Inputs,
    report: &mut Report,
) {
    let values = read.map(|list| {
        let values = list.iter().filter_map(|object| serde_json::to_value(object).ok());
        values.map(|value| typed(value, version, kind)).collect()
    });
    listed(values, inputs, report);
}

fn listed(read: Result<Vec<Value>, Unread>, inputs: &mut Inputs, report: &mut Report) {
    match read {
        Ok(values) => values.iter().for_each(|value| inputs.add(value, report)),
        Err(Unread { what, why }) => {
            let remedy = "get the right to read it; what it asks for is in none of the objects made";
            report.say(Level::LeftOut, ("the cluster", &what, ""), why, remedy);
        }
    }
}
