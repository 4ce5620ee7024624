//! Sessions and retry budgets.

use super::*;
use crate::traffic::*;

pub(super) fn backend_traffic() -> impl Strategy<Value = BackendTraffic> {
    let retry = (0..=100_u8, duration(), any::<u32>(), duration()).prop_map(
        |(percent, interval, min_retries, min_interval)| RetryConstraint {
            percent,
            interval,
            min_retries,
            min_interval,
        },
    );
    (of(retry), of(session())).prop_map(|(retry, session)| BackendTraffic { retry, session })
}

fn session() -> impl Strategy<Value = SessionPersistence> {
    let cookie = ("[a-zA-Z0-9_.-]{1,8}", any::<bool>())
        .prop_map(|(name, permanent)| SessionCarrier::Cookie { name: CookieName::new(&name).unwrap(), permanent });
    let carrier = prop_oneof![cookie, header_name().prop_map(SessionCarrier::Header)];
    (carrier, of(duration()), any::<[u8; SessionKey::LEN]>()).prop_map(|(carrier, absolute_timeout, key)| {
        SessionPersistence { carrier, absolute_timeout, key: SessionKey::new(key) }
    })
}

pub(super) fn sessions() -> impl Strategy<Value = Sessions> {
    prop_oneof![
        Just(Sessions::None),
        session().prop_map(|it| Sessions::OfRule(Box::new(it))),
        vec(of(session()), 1..3).prop_map(Sessions::OfBackends),
    ]
}
