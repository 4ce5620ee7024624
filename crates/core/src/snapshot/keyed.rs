//! What the maps of a snapshot find their values by: keys that are part of them.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::{AddressOwner, Frontend, GatewayListener};
use crate::gateway::{GatewayRule, Listener};
use crate::ids::{GatewayRuleKey, ListenerKey, RuleKey, ServiceKey, ServicePortKey, WorkloadUid};
use crate::route::RouteRule;
use crate::service::{EndpointSlice, Service, SliceKey};
use crate::sharded::Keyed;
use crate::workload::Workload;

macro_rules! keyed {
    ($($value:ty, $key:ty: |$it:ident| $of:expr;)+) => {$(
        impl Keyed for Arc<$value> {
            type Key = $key;

            fn hash_key(&self, state: &mut impl Hasher) {
                let $it = self;
                $of.hash(state);
            }

            fn has_key(&self, key: &$key) -> bool {
                let $it = self;
                *$of == *key
            }
        }
    )+};
}

keyed! {
    Workload, WorkloadUid: |it| &it.uid;
    Service, ServiceKey: |it| &it.key;
    EndpointSlice, SliceKey: |it| &it.key;
    RouteRule, RuleKey: |it| it.key();
    Frontend, ServicePortKey: |it| &it.key;
    Listener, ListenerKey: |it| &it.key;
    GatewayListener, ListenerKey: |it| &it.listener.key;
}

/// Its key is in two parts.
impl Keyed for Arc<GatewayRule> {
    type Key = GatewayRuleKey;

    fn hash_key(&self, state: &mut impl Hasher) {
        // As it is derived for the key.
        self.gateway.hash(state);
        self.rule.key().hash(state);
    }

    fn has_key(&self, key: &GatewayRuleKey) -> bool {
        self.gateway == key.gateway && *self.rule.key() == key.rule
    }
}

/// Its key is its owner's.
impl Keyed for AddressOwner {
    type Key = IpAddr;

    fn hash_key(&self, state: &mut impl Hasher) {
        // There always is one: what owns it is never edited.
        if let Some(address) = self.address() {
            address.hash(state);
        }
    }

    fn has_key(&self, key: &IpAddr) -> bool {
        self.address() == Some(key)
    }
}

impl AddressOwner {
    fn address(&self) -> Option<&IpAddr> {
        match self {
            Self::Service(service, at) => service.addresses.get(usize::from(*at)),
            Self::Workload(workload, at) => workload.addresses.get(usize::from(*at)),
        }
    }
}
