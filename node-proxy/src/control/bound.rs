//! Listeners are acknowledged when they are bound: what can't be is refused by name, and taken as soon as it can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use weft_core::change::{Change, Resource, ResourceKey};
use weft_core::gateway::{Bind, Listener};
use weft_core::ids::ListenerKey;
use weft_core::wire;
use weft_xds::client::{Demand, Rejection};
use weft_xds::{ResourceName, TypeUrl};

use crate::gateway::{Failing, Progress};

/// How long binding may take. The controller waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often refused listeners are looked at, beside each time that something is bound.
const LOOK: Duration = Duration::from_secs(5);

/// Listeners that were refused, and whether they have been asked for again since.
type Refused = Arc<Mutex<BTreeMap<ListenerKey, Waiting>>>;

#[derive(Debug)]
struct Waiting {
    binds: Vec<Bind>,
    asked: bool,
}

/// What of the listeners is bound. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    progress: Progress,
    refused: Refused,
}

impl Binding {
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress, refused: Refused::default() }
    }

    /// Waits until the listeners among these changes are bound, which the store has with this version; returns those that
    /// can't be. They are held all the same, and tried again.
    pub(super) async fn settle(&self, version: u64, changes: &[Change]) -> Vec<Rejection> {
        let listeners: Vec<&Listener> = changes.iter().filter_map(listener).collect();
        let removed = changes.iter().filter_map(|change| match change {
            Change::Remove(ResourceKey::Listener(key)) => Some(key),
            _ => None,
        });
        removed.for_each(|key| drop(self.refused.lock().remove(key)));
        if listeners.is_empty() {
            return Vec::new();
        }
        let failing = timeout(PATIENCE, self.progress.reached(version)).await;
        listeners.into_iter().filter_map(|listener| self.judge(listener, failing.as_ref().ok())).collect()
    }

    /// `failing` is `None` if the workers haven't come that far in time.
    fn judge(&self, listener: &Listener, failing: Option<&Failing>) -> Option<Rejection> {
        let binds: Vec<Bind> = listener.binds().collect();
        let reason = match failing {
            Some(failing) => binds.iter().find_map(|bind| failing.get(bind)).cloned(),
            None => Some(format!("not bound within {} s", PATIENCE.as_secs())),
        };
        let mut refused = self.refused.lock();
        let Some(reason) = reason else {
            refused.remove(&listener.key);
            return None;
        };
        refused.insert(listener.key.clone(), Waiting { binds, asked: false });
        Some(Rejection { name: name_of(&listener.key), reason, held: true })
    }

    /// Asks for refused listeners again when they are bound, so that they are acknowledged, for ever.
    pub(super) async fn mend(self, demands: mpsc::Sender<Demand>) {
        let mut watch = self.progress.watch();
        loop {
            tokio::select! { _ = watch.next() => {}, () = tokio::time::sleep(LOOK) => {} }
            for name in self.bound_by_now() {
                // The subscription to all stays: that to this one makes the server send it once more.
                for demand in [Demand::Subscribe(name.clone()), Demand::Unsubscribe(name)] {
                    if demands.send(demand).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Those that were refused and are bound by now, each once.
    fn bound_by_now(&self) -> Vec<ResourceName> {
        let mut refused = self.refused.lock();
        if refused.is_empty() {
            return Vec::new();
        }
        let failing = self.progress.failing();
        let bound = refused.iter_mut().filter(|(_, it)| !it.asked && !it.binds.iter().any(|b| failing.contains_key(b)));
        let named = bound.map(|(key, waiting)| {
            waiting.asked = true;
            name_of(key)
        });
        named.collect()
    }
}

fn listener(change: &Change) -> Option<&Listener> {
    match change {
        Change::Upsert(Resource::Listener(listener)) => Some(listener),
        _ => None,
    }
}

fn name_of(key: &ListenerKey) -> ResourceName {
    let key = ResourceKey::Listener(key.clone());
    ResourceName::new(TypeUrl::new(wire::type_url(&key)), wire::name(&key))
}

#[cfg(test)]
mod tests {
    use weft_core::gateway::ListenerProtocol;
    use weft_core::ids::{GatewayKey, Port};

    use super::*;

    fn key(name: &str) -> ListenerKey {
        ListenerKey::new(GatewayKey::new("edge", "web"), name)
    }

    fn listener(name: &str, port: u16) -> Change {
        Change::Upsert(Resource::Listener(Arc::new(Listener {
            key: key(name),
            addresses: Vec::new(),
            port: Port::new(port).unwrap(),
            hostname: None,
            protocol: ListenerProtocol::Http,
            kinds: Vec::new(),
            client_validation: None,
            policies: Vec::new(),
            http3: false,
        })))
    }

    fn taken(port: u16) -> Failing {
        Failing::from([(Bind::tcp(None, Port::new(port).unwrap()), format!("{port} is taken"))])
    }

    fn told(rejections: &[Rejection]) -> Vec<(&str, &str, bool)> {
        rejections.iter().map(|it| (&*it.name.name, it.reason.as_str(), it.held)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_cannot_be_bound_is_refused_and_by_its_reason() {
        let progress = Progress::new(1);
        let binding = Binding::new(progress.clone());
        progress.report(0, 7, &taken(80));
        let changes = [listener("a", 80), listener("b", 81), listener("c", 80), Change::Remove(ResourceKey::Mesh)];
        let refused = binding.settle(7, &changes).await;
        assert_eq!(
            told(&refused),
            [("edge/web/a", "80 is taken", true), ("edge/web/c", "80 is taken", true)],
            "both that are at the place"
        );
        assert!(binding.settle(9, &[Change::Remove(ResourceKey::Mesh)]).await.is_empty(), "nothing to wait for");
        let late = binding.settle(8, &[listener("b", 81)]).await;
        assert_eq!(told(&late), [("edge/web/b", "not bound within 10 s", true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_bound_later_is_asked_for_once_and_what_is_gone_never() {
        let progress = Progress::new(1);
        let binding = Binding::new(progress.clone());
        let (demands, mut asked) = mpsc::channel(8);
        tokio::spawn(binding.clone().mend(demands));
        progress.report(0, 1, &taken(80));
        assert_eq!(binding.settle(1, &[listener("a", 80), listener("b", 80)]).await.len(), 2);
        assert!(binding.settle(1, &[Change::Remove(ResourceKey::Listener(key("b")))]).await.is_empty());
        tokio::time::sleep(LOOK * 3).await;
        assert!(asked.try_recv().is_err(), "it is still taken");
        progress.report(0, 1, &Failing::new());
        tokio::time::sleep(LOOK * 3).await;
        let names = std::iter::from_fn(|| asked.try_recv().ok()).map(|demand| match demand {
            Demand::Subscribe(name) => format!("+{}", name.name),
            Demand::Unsubscribe(name) => format!("-{}", name.name),
            Demand::SubscribeAll(type_url) => type_url.to_string(),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["+edge/web/a", "-edge/web/a"]);
    }
}
