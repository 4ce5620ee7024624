//! Edits, one after the other: from the API server's answer until the last client has taken it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, Kind};
use crate::clients::Clients;
use crate::measure::{Process, bytes_sent};
use crate::objects::{self, POD, ROUTE, SLICE, Size};
use crate::programs::XDS;

/// How long an edit may take to reach everybody.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two edits: so that each is a batch of its own, as edits of people are.
const PAUSE: Duration = Duration::from_millis(50);
/// Edits before those that count.
const WARM: usize = 5;
/// From one Service to the next; a prime, so that all of them have their turn.
const STRIDE: usize = 7919;

/// What is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The weights of an HTTPRoute.
    Weight,
    /// Whether an endpoint of a slice is ready.
    Endpoint,
    /// The address of a pod.
    Pod,
}

/// All kinds.
pub const KINDS: [Edit; 3] = [Edit::Weight, Edit::Endpoint, Edit::Pod];

/// Which objects are edited, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What was there already: other edits were made to it.
    pub from: Size,
    /// What is there.
    pub to: Size,
    pub nodes: usize,
    /// Edits of each kind.
    pub edits: usize,
}

/// What edits cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Of each edit, sorted.
    pub took: Vec<Duration>,
    /// The controller's processor time for one edit.
    pub cpu: Duration,
    /// What the controller sent for one edit, bytes.
    pub bytes: f64,
}

impl Cost {
    /// A quantile, in milliseconds.
    pub fn quantile(&self, of: f64) -> f64 {
        quantile(&self.took, of)
    }
}

/// A quantile of sorted times, in milliseconds.
pub fn quantile(sorted: &[Duration], of: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
    let place = ((sorted.len() as f64 * of).ceil() as usize).clamp(1, sorted.len());
    sorted[place - 1].as_secs_f64() * 1000.0
}

/// One edit: what is written where, and which resource follows.
struct Write {
    kind: Kind,
    name: String,
    patch: Value,
    status: bool,
    resource: String,
}

impl Edit {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight of a route",
            Self::Endpoint => "readiness of an endpoint",
            Self::Pod => "address of a pod",
        }
    }

    /// The edit of a Service that was edited so many times before.
    fn write(self, service: usize, before: usize, nodes: usize) -> Write {
        let (namespace, even) = (objects::namespace_of(service), before.is_multiple_of(2));
        match self {
            Self::Weight => {
                let name = objects::service_name(service);
                let patch = json!({ "spec": objects::route_spec(service, if even { 80 } else { 70 }) });
                Write { kind: ROUTE, resource: format!("HTTPRoute/{namespace}/{name}/0"), name, patch, status: false }
            }
            Self::Endpoint => {
                let name = objects::slice_name(service);
                let patch = json!({ "endpoints": objects::endpoints(service, nodes, !even) });
                Write { kind: SLICE, resource: format!("{namespace}/{name}"), name, patch, status: false }
            }
            Self::Pod => {
                let (name, ip) = (objects::pod_name(service, 0), objects::pod_address(service, 0, even));
                let patch = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } });
                let resource = format!("Kubernetes//Pod/{namespace}/{name}");
                Write { kind: POD, resource, name, patch, status: true }
            }
        }
    }
}

/// Makes so many edits, of Services all over the cluster.
pub async fn run(api: &Api, clients: &Clients, controller: Process, edit: Edit, plan: Plan) -> anyhow::Result<Cost> {
    let (first, count) = (plan.from.services, plan.to.services - plan.from.services);
    let mut took = Vec::new();
    let mut before = (controller.cpu()?, bytes_sent(XDS)?);
    for round in 0..WARM + plan.edits {
        if round == WARM {
            before = (controller.cpu()?, bytes_sent(XDS)?);
        }
        // All over the cluster. The second time around is another value.
        let service = first + round * STRIDE % count;
        let write = edit.write(service, round / count, plan.nodes);
        clients.expect(&write.resource).await;
        let namespace = objects::namespace_of(service);
        api.patch(write.kind, (&namespace, &write.name), &write.patch, write.status).await?;
        let answered = Instant::now();
        let last = clients.all_took_it(PATIENCE).await?;
        if round >= WARM {
            took.push(last.saturating_duration_since(answered));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let edits = u32::try_from(plan.edits)?;
    let (cpu, bytes) = (controller.cpu()? - before.0, bytes_sent(XDS)? - before.1);
    took.sort_unstable();
    Ok(Cost { took, cpu: cpu / edits, bytes: bytes / f64::from(edits) })
}
