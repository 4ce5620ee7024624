//! What becomes of an intercepted connection: the plan, and the endpoint where bytes go.

mod client_hello;
mod endpoint;
pub mod fuzzing;
mod replayed;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use weft_core::plan::{ConnectionFacts, ConnectionPlan, plan_connection};
use weft_core::reason::Reason;

use crate::identify::LocalWorkload;
use crate::store::Store;

pub(crate) use client_hello::{Hello, read_client_hello, server_name_in};
pub(crate) use endpoint::{backend_of, frontend_of};
pub(crate) use replayed::Replayed;

/// How long a connection to an address inside the cluster waits for the configuration that names it.
const CONFIG_WAIT: Duration = Duration::from_secs(1);

/// Plans a connection, waiting a little for configuration on its way.
pub(crate) async fn plan(store: &Store, source: &LocalWorkload, destination: SocketAddr) -> ConnectionPlan {
    let deadline = Instant::now() + CONFIG_WAIT;
    let mut versions = store.subscribe();
    loop {
        versions.borrow_and_update();
        let plan = {
            let snapshot = store.load();
            let client = source.workload(&snapshot);
            plan_connection(&snapshot, &ConnectionFacts { client: &client, destination })
        };
        if !matches!(plan, ConnectionPlan::AwaitConfig) {
            return plan;
        }
        match timeout_at(deadline, versions.changed()).await {
            Ok(Ok(())) => {}
            _ => return ConnectionPlan::Refuse(Reason::UnknownDestination),
        }
    }
}
