//! The pods that there are, as a watch tells them: only so much of each that a token's claims can be held against it.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

use crate::Reviewed;

/// Half of a SHA-256: a hundred thousand pods take a few megabytes, however long their names are.
type Hash = [u8; 16];

/// How long after it should have ended a pod that is still there counts: as long as to the API server.
const ENDING: Duration = Duration::from_secs(60);

/// A pod that is bound to a node, by what a token of it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// Which incarnation of it.
    pub uid: &'a str,
    /// Its ServiceAccount.
    pub service_account: &'a str,
    /// Its node.
    pub node: &'a str,
    /// When it is to have ended, if it is ending.
    pub ends: Option<SystemTime>,
}

impl Seat<'_> {
    fn key(&self) -> Hash {
        hash(&[self.namespace, self.pod])
    }

    fn value(&self) -> Hash {
        hash(&[self.uid, self.service_account, self.node])
    }
}

/// What is kept of a pod, and until when it counts, in seconds since 1970.
#[derive(Clone, Copy)]
struct Kept {
    value: Hash,
    until: u64,
}

impl Kept {
    fn of(seat: &Seat<'_>) -> Self {
        let until = seat.ends.map(|ends| seconds(ends).saturating_add(ENDING.as_secs()));
        Self { value: seat.value(), until: until.unwrap_or(u64::MAX) }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Fed by whoever watches pods; asked about tokens while the API server can't be.
#[derive(Default)]
pub struct KnownPods(RwLock<HashMap<Hash, Kept>>);

impl KnownPods {
    /// A pod that is new, or has changed.
    pub fn see(&self, seat: &Seat<'_>) {
        self.0.write().insert(seat.key(), Kept::of(seat));
    }

    /// A pod that is gone, or isn't bound.
    pub fn forget(&self, namespace: &str, pod: &str) {
        self.0.write().remove(&hash(&[namespace, pod]));
    }

    /// All pods that there are; others are gone.
    pub fn replace<'a>(&self, all: impl Iterator<Item = Seat<'a>>) {
        let all = all.map(|seat| (seat.key(), Kept::of(&seat))).collect();
        *self.0.write() = all;
    }

    /// Whether the pod of a token is there: that very one, under that ServiceAccount, on that node, and not one that should have
    /// ended a minute before `now`.
    pub fn knows(&self, reviewed: &Reviewed, now: SystemTime) -> bool {
        let Some(node) = &reviewed.node else { return false };
        let seat = Seat {
            namespace: reviewed.namespace.as_str(),
            pod: reviewed.pod.as_str(),
            uid: reviewed.pod_uid.as_str(),
            service_account: reviewed.service_account.as_str(),
            node: node.as_str(),
            ends: None,
        };
        self.0.read().get(&seat.key()).is_some_and(|kept| kept.value == seat.value() && seconds(now) < kept.until)
    }
}

impl fmt::Debug for KnownPods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KnownPods({})", self.0.read().len())
    }
}

fn hash(parts: &[&str]) -> Hash {
    let mut whole = Sha256::new();
    for part in parts {
        // With its length, so that no two lists of parts are one text.
        whole.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        whole.update(part.as_bytes());
    }
    let whole: [u8; 32] = whole.finalize().into();
    whole.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat<'_> = Seat {
        namespace: "weft-system",
        pod: "proxy-1",
        uid: "u-1",
        service_account: "weft-node-proxy",
        node: "a",
        ends: None,
    };

    fn knows(pods: &KnownPods, reviewed: &Reviewed) -> bool {
        pods.knows(reviewed, SystemTime::now())
    }

    fn reviewed(seat: &Seat<'_>) -> Reviewed {
        Reviewed {
            namespace: seat.namespace.into(),
            service_account: seat.service_account.into(),
            pod: seat.pod.into(),
            pod_uid: seat.uid.into(),
            node: Some(seat.node.into()),
        }
    }

    #[test]
    fn a_pod_is_known_by_everything_its_token_says() {
        let pods = KnownPods::default();
        assert!(!knows(&pods, &reviewed(&SEAT)), "nothing is known yet");
        pods.see(&SEAT);
        assert!(knows(&pods, &reviewed(&SEAT)));
        for other in [
            Seat { namespace: "shop", ..SEAT },
            Seat { pod: "proxy-2", ..SEAT },
            Seat { uid: "u-2", ..SEAT },
            Seat { service_account: "default", ..SEAT },
            Seat { node: "b", ..SEAT },
            // The same letters, cut elsewhere.
            Seat { namespace: "weft-systemp", pod: "roxy-1", ..SEAT },
        ] {
            assert!(!knows(&pods, &reviewed(&other)), "{other:?}");
        }
        assert!(!knows(&pods, &Reviewed { node: None, ..reviewed(&SEAT) }), "a token without a node");
    }

    #[test]
    fn what_is_gone_or_made_anew_is_not_known() {
        let pods = KnownPods::default();
        pods.see(&SEAT);
        let anew = Seat { uid: "u-2", ..SEAT };
        pods.see(&anew);
        assert!(!knows(&pods, &reviewed(&SEAT)) && knows(&pods, &reviewed(&anew)));
        let now = SystemTime::now();
        pods.see(&Seat { ends: Some(now), ..anew });
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(pods.knows(&reviewed(&anew), later(58)) && !pods.knows(&reviewed(&anew), later(61)), "it hangs");
        pods.forget(SEAT.namespace, SEAT.pod);
        assert!(!knows(&pods, &reviewed(&anew)));
        pods.see(&anew);
        pods.replace([Seat { pod: "proxy-2", ..SEAT }].into_iter());
        assert!(!knows(&pods, &reviewed(&anew)) && knows(&pods, &reviewed(&Seat { pod: "proxy-2", ..SEAT })));
    }
}
