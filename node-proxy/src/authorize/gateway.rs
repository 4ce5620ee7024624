//! May a client from outside use a Gateway's listener? Judged by the AuthorizationPolicies that name the listener, its Gateway
//! or its ListenerSet; what destinations' own policies say comes after that, and knows nothing of the client.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_core::authorize::{CallFacts, HttpFacts, evaluate};
use weft_core::gateway::{Bind, Listener};
use weft_core::ids::PolicyKey;
use weft_core::reason::Reason;
use weft_core::snapshot::{GatewayPort, Snapshot};
use weft_core::workload::Workload;

use super::decide::{ALLOW, Told, decided, report};
use super::settled;
use crate::observe::Observer;
use crate::relay::front::GatewayConnection;
use crate::store::Store;

/// How long after a change open connections are judged again.
const AGAIN: Duration = Duration::from_secs(1);

/// Somebody at a listener.
#[derive(Clone, Copy)]
pub(crate) struct AtListener<'a> {
    /// The Gateway.
    pub(crate) gateway: &'a Workload,
    /// The listener that has the request's host or the connection's name.
    pub(crate) listener: &'a Listener,
    /// The client's address, as far as it is known.
    pub(crate) client: IpAddr,
    /// The request; `None`: bytes that nobody looks at, where what asks about requests fails closed.
    pub(crate) http: Option<HttpFacts<'a>>,
    /// Who hears of the decision.
    pub(crate) told: Told<'a>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It may.
    Allowed,
    /// It may not: this DENY policy matched; `None`: no ALLOW policy did.
    Denied(Option<PolicyKey>),
    /// A policy of the listener is not here (yet).
    Unsettled,
}

impl Judged {
    /// Why not, for people; `None`: it may.
    pub(crate) fn why_not(&self) -> Option<String> {
        match self {
            Self::Allowed => None,
            Self::Denied(Some(policy)) => Some(format!("AuthorizationPolicy {policy}")),
            Self::Denied(None) => Some("no AuthorizationPolicy of action ALLOW matched".into()),
            Self::Unsettled => Some("not all AuthorizationPolicies of the listener are known".into()),
        }
    }
}

/// Judges by the policies of one snapshot. Clients from outside have no identity.
pub(crate) fn judge(snapshot: &Snapshot, at: &AtListener<'_>) -> Judged {
    if at.listener.policies.is_empty() {
        return Judged::Allowed;
    }
    let Some(policies) = snapshot.policies_at(at.listener) else { return Judged::Unsettled };
    let facts = CallFacts {
        identity: None,
        trust_domains: &snapshot.mesh().trust_domains,
        peer_ip: at.client,
        dst_port: at.listener.port,
        http: at.http,
    };
    let verdict = evaluate(&policies, &facts);
    let said = decided(&verdict.decision, false);
    if let Some(observer) = at.told {
        report(observer, (at.gateway, &at.client), &facts, &verdict.audits);
        observer.decided(at.gateway, said);
        if said.said != ALLOW {
            observer.audited(at.gateway, &at.client, &facts, said);
        }
    }
    if said.said == ALLOW { Judged::Allowed } else { Judged::Denied(said.policy.cloned()) }
}

/// A connection whose bytes nobody looks at, for as long as it may be open.
pub struct Admitted {
    store: Arc<Store>,
    gateway: Arc<Workload>,
    bind: Bind,
    listener: Arc<Listener>,
    client: IpAddr,
}

impl Admitted {
    /// One that came to a listener; whether it may isn't decided yet.
    pub(crate) fn new(
        store: &Arc<Store>,
        gateway: Arc<Workload>,
        connection: &GatewayConnection,
        listener: &Arc<Listener>,
    ) -> Self {
        let (bind, client) = (connection.bind, connection.client.ip());
        Self { store: Arc::clone(store), gateway, bind, listener: Arc::clone(listener), client }
    }

    fn judge(&self, listener: &Listener, told: Told<'_>) -> Judged {
        let at = AtListener { gateway: &self.gateway, listener, client: self.client, http: None, told };
        judge(&self.store.load(), &at)
    }

    /// Whether it may, by the policies that are here in a moment.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) async fn check(&self, observer: &dyn Observer) -> Result<(), String> {
        let mut judged = self.judge(&self.listener, Some(observer));
        if judged == Judged::Unsettled {
            settle(&self.store, &self.listener).await;
            judged = self.judge(&self.listener, Some(observer));
        }
        judged.why_not().map_or(Ok(()), Err)
    }

    /// Waits until the policies of the listener, as it is then, deny it. A listener that is gone leaves its connections alone.
    pub(crate) async fn revoked(&self) -> Reason {
        let mut versions = self.store.subscribe();
        // The listener as it was in the place that was looked at last: places rarely change, and may have many listeners.
        let mut seen: Option<(Arc<GatewayPort>, Option<Arc<Listener>>)> = None;
        loop {
            versions.borrow_and_update();
            let port = self.store.load().gateway_port(&self.bind).map(Arc::clone);
            if seen.as_ref().zip(port.as_ref()).is_none_or(|((old, _), new)| !Arc::ptr_eq(old, new)) {
                seen = port.map(|port| {
                    let listener = port.listeners.iter().find(|it| it.listener.key == self.listener.key);
                    let listener = listener.map(|it| Arc::clone(&it.listener));
                    (port, listener)
                });
            }
            let now = seen.as_ref().and_then(|(_, listener)| listener.as_ref());
            if now.is_some_and(|listener| matches!(self.judge(listener, None), Judged::Denied(_))) {
                return Reason::PolicyRevoked;
            }
            if versions.changed().await.is_err() {
                return pending().await;
            }
            // Many changes may come at once, and many connections look at each.
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Waits until all policies of a listener are there, or it takes too long.
pub(crate) async fn settle(store: &Store, listener: &Listener) {
    // Too late is for the one who judges to say.
    Box::pin(settled(store, || store.load().policies_at(listener).map(drop))).await;
}
