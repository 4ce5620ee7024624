//! How far Gateways are served, by pods of their own or by the proxy of this machine; and what has to be made for the pods of each.

use std::cell::OnceCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_core::gateway::{label_value, object_name};
use weft_core::ids::{GatewayKey, ListenerKey};

use super::Index;
use crate::object::{
    CONTROLLER_NAME, GatewayAddress, GatewayParameters, GatewayParametersSpec, GatewayServiceType, Kind, Object,
    ObjectRef,
};
use crate::translate::Problem;
use crate::translate::gateway::{
    GatewayPlan, GatewayView, InCluster, Place, Unmade, WENT_BY, WentBy, parameters_of_class,
};

/// The label of a Gateway's objects that names it (GEP-1762).
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// Gateways of which a pod, or this machine's proxy, has the listeners as they are, with the ones that none has bound, and why.
pub type Bound = BTreeMap<GatewayKey, BTreeMap<ListenerKey, String>>;

/// The Gateways that each address has been given to, in the order of their names: found out when it is asked for the first time.
#[derive(Debug, Default)]
pub(super) struct Holders(OnceCell<HashMap<IpAddr, Vec<GatewayKey>>>);

/// What is known of whoever serves Gateways.
#[derive(Debug, Default)]
pub(super) struct Provisioned {
    /// Who is listened for.
    bound: Bound,
    /// Objects of Gateways that can't be made.
    unmade: BTreeMap<GatewayKey, Unmade>,
    /// Gateways whose objects would have the names of an older Gateway's, and that one.
    clashes: BTreeMap<GatewayKey, GatewayKey>,
    /// Goes up whenever a plan may be another.
    revision: u64,
}

impl Index {
    /// Whether Gateways are served by pods of their own.
    pub(super) fn in_cluster(&self) -> bool {
        self.config.gateways.as_ref().is_some_and(|settings| settings.place == Place::Cluster)
    }

    /// Gateways that are served by pods of their own, with their classes. No two of them have objects of the same name.
    pub fn gateways(&self) -> impl Iterator<Item = (GatewayKey, String)> {
        self.distinct_gateways().map(|view| (view.key.clone(), view.class.clone()))
    }

    /// What each of them needs.
    pub fn gateway_plans(&self) -> impl Iterator<Item = GatewayPlan> {
        self.distinct_gateways().map(GatewayView::plan)
    }

    /// The ServiceAccounts whose pods are Gateways' own, by the Gateway: those that are there and are the Gateway's. With one of
    /// the name that somebody else has made nobody is taken for the Gateway.
    pub fn gateway_accounts(&self) -> impl Iterator<Item = (GatewayKey, String)> {
        self.distinct_gateways().filter_map(|view| {
            self.account_of(&view.key, &view.uid, &view.class)?;
            Some((view.key.clone(), object_name(view.key.name.as_str(), &view.class)))
        })
    }

    /// The ServiceAccount of a Gateway, if it is there and the Gateway's own.
    fn account_of(&self, key: &GatewayKey, uid: &str, class: &str) -> Option<&ObjectMeta> {
        let name = object_name(key.name.as_str(), class);
        let reference = ObjectRef::new(Kind::ServiceAccount, key.namespace.clone(), name.as_str());
        Some(self.objects.get(&reference)?.meta()).filter(|account| is_owned_by(account, uid))
    }

    /// A ServiceAccount has come, gone or another owner.
    pub(super) fn account_changed(&mut self, account: &ObjectRef) {
        if !self.in_cluster() {
            return;
        }
        self.gateways.provisioned.revision += 1;
        // It may remember what nobody here has seen.
        let asks = |view: &&GatewayView| {
            view.went_by.is_none()
                && view.key.namespace == account.namespace
                && object_name(view.key.name.as_str(), &view.class) == account.name.as_str()
        };
        let keys: Vec<_> = self.gateways.views().filter(asks).map(|view| view.key.clone()).collect();
        self.dirty.gateways.extend(keys);
    }

    /// What this incarnation of a Gateway went by when its parameters were last in force: as it was seen here, or else as its
    /// ServiceAccount remembers it.
    pub(super) fn went_by(&self, key: &GatewayKey, uid: &str, class: &str) -> Option<WentBy> {
        let before = self.gateways.view(key).filter(|before| before.uid == uid && before.refused.is_none());
        let seen = before.and_then(|before| before.went_by.clone());
        seen.or_else(|| {
            let account = self.account_of(key, uid, class).filter(|_| self.in_cluster())?;
            WentBy::from_json(account.annotations.as_ref()?.get(WENT_BY)?)
        })
    }

    fn distinct_gateways(&self) -> impl Iterator<Item = &GatewayView> {
        self.gateways.views().filter(|view| !self.gateways.provisioned.clashes.contains_key(&view.key))
    }

    /// Notes that plans may be others, and finds Gateways whose names and classes come to the same name, as `a` of class
    /// `b-c` and `a-b` of class `c` do. The older one has it: else somebody could take its place by a Gateway of such a name.
    pub(super) fn note_plans(&mut self) {
        let mut views: Vec<_> = self.gateways.views().collect();
        views.sort_by_key(|view| (view.created, &view.key));
        let (mut taken, mut clashes) = (HashMap::new(), BTreeMap::new());
        for view in views {
            let name = object_name(view.key.name.as_str(), &view.class);
            match taken.entry((&view.key.namespace, name)) {
                Entry::Vacant(place) => drop(place.insert(&view.key)),
                Entry::Occupied(holder) => drop(clashes.insert(view.key.clone(), (*holder.get()).clone())),
            }
        }
        let before = std::mem::replace(&mut self.gateways.provisioned.clashes, clashes);
        let differs = differing(&before, &self.gateways.provisioned.clashes);
        self.gateways.stale.extend(differs);
        self.gateways.provisioned.revision += 1;
    }

    /// Gateways of classes that are there and another controller's.
    pub fn foreign_gateways(&self) -> impl Iterator<Item = GatewayKey> {
        self.of_kind(Kind::Gateway).filter_map(|(reference, object)| {
            let Object::Gateway(gateway) = object else { return None };
            let class = ObjectRef::new(Kind::GatewayClass, "", gateway.spec.gateway_class_name.as_str());
            let Object::GatewayClass(class) = self.objects.get(&class)? else { return None };
            let is_foreign = class.spec.controller_name != CONTROLLER_NAME;
            is_foreign.then(|| GatewayKey::new(reference.namespace.clone(), reference.name.clone()))
        })
    }

    /// Goes up whenever [`Index::gateway_plans`] or [`Index::gateway_accounts`] may say something else.
    pub const fn gateways_revision(&self) -> u64 {
        self.gateways.provisioned.revision
    }

    /// Says of which Gateways a pod, or without a cluster the proxy of this machine, has the listeners as they are now, each
    /// with the listeners that none of these has bound, and why; of all others none has. Takes effect with the next
    /// [`Index::commit`].
    pub fn set_bound(&mut self, bound: Bound) {
        let before = std::mem::replace(&mut self.gateways.provisioned.bound, bound);
        let changed = differing(&before, &self.gateways.provisioned.bound);
        self.gateways.stale.extend(changed);
    }

    /// The listeners of a Gateway that nobody has bound, and why; `None` if nobody has them as they are now.
    pub(super) fn unbound(&self, key: &GatewayKey) -> Option<BTreeMap<ListenerKey, String>> {
        self.gateways.provisioned.bound.get(key).cloned()
    }

    /// Says of which Gateways objects can't be made, and why. Takes effect with the next [`Index::commit`].
    pub fn set_unprovisioned(&mut self, unmade: BTreeMap<GatewayKey, Unmade>) {
        let before = std::mem::replace(&mut self.gateways.provisioned.unmade, unmade);
        let changed = differing(&before, &self.gateways.provisioned.unmade);
        self.gateways.stale.extend(changed);
    }

    /// `GatewayParameters` by namespace and name.
    pub(super) fn gateway_parameters(&self, namespace: &str, name: &str) -> Option<&GatewayParameters> {
        match self.objects.get(&ObjectRef::new(Kind::GatewayParameters, namespace, name)) {
            Some(Object::GatewayParameters(parameters)) => Some(parameters),
            _ => None,
        }
    }

    /// What a GatewayClass says of its Gateways' parameters; nothing if there is no such class.
    ///
    /// # Errors
    /// It refers to another kind, or to nothing.
    pub fn class_parameters(&self, class: &str) -> Result<GatewayParametersSpec, Problem> {
        match self.objects.get(&ObjectRef::new(Kind::GatewayClass, "", class)) {
            Some(Object::GatewayClass(class)) => {
                parameters_of_class(class, |namespace, name| self.gateway_parameters(namespace, name))
            }
            _ => Ok(GatewayParametersSpec::default()),
        }
    }

    /// A Service of a Gateway has changed, perhaps its addresses.
    pub(super) fn gateway_service_changed(&mut self, service: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        if !self.in_cluster() {
            return;
        }
        let label = |object: Option<&Object>| object?.meta().labels.as_ref()?.get(GATEWAY_NAME_LABEL).cloned();
        let names = [label(old), label(new)];
        if names.iter().all(Option::is_none) {
            return;
        }
        let is_of = |view: &&GatewayView| {
            view.key.namespace == service.namespace && names.contains(&Some(label_value(view.key.name.as_str())))
        };
        // Whoever asks for an address that another one gets, or loses, says so.
        let [before, now] = [old, new].map(given_to);
        let moved: BTreeSet<_> = before.symmetric_difference(&now).copied().collect();
        let asks = |view: &&GatewayView| view.requested.iter().any(|ip| moved.contains(ip));
        let views = self.gateways.views().filter(|view| is_of(view) || asks(view));
        let keys: Vec<_> = views.map(|view| view.key.clone()).collect();
        self.gateways.stale.extend(keys);
    }

    /// What a Gateway's own Services have been given.
    fn addresses_given(&self, view: &GatewayView) -> BTreeSet<GatewayAddress> {
        let label = label_value(view.key.name.as_str());
        let mut addresses = BTreeSet::new();
        for (name, _) in view.services() {
            let reference = ObjectRef::new(Kind::Service, view.key.namespace.clone(), name.as_str());
            let Some(Object::Service(service)) = self.objects.get(&reference) else { continue };
            // Somebody else's Service may have the name, and that of a Gateway that had it before may still be there.
            let labels = service.metadata.labels.as_ref();
            let has_label = labels.and_then(|labels| labels.get(GATEWAY_NAME_LABEL)) == Some(&label);
            if has_label && is_owned_by(&service.metadata, &view.uid) {
                addresses.extend(addresses_of(service));
            }
        }
        addresses
    }

    /// The Gateway besides `view` that an address has been given to.
    fn holder_of(&self, ip: IpAddr, view: &GatewayView, holders: &Holders) -> Option<GatewayKey> {
        let all = holders.0.get_or_init(|| self.holders());
        all.get(&ip)?.iter().find(|holder| **holder != view.key).cloned()
    }

    fn holders(&self) -> HashMap<IpAddr, Vec<GatewayKey>> {
        let mut holders: HashMap<_, Vec<_>> = HashMap::new();
        for view in self.distinct_gateways() {
            for address in self.addresses_given(view) {
                if let GatewayAddress::Ip(ip) = address {
                    holders.entry(ip).or_default().push(view.key.clone());
                }
            }
        }
        holders
    }

    /// How far a Gateway is served by its pods. `holders` are the same for all Gateways that are looked at without a change in
    /// between.
    pub(super) fn in_pods(&self, view: &GatewayView, holders: &Holders) -> InCluster {
        let known = &self.gateways.provisioned;
        if let Some(holder) = known.clashes.get(&view.key) {
            let why = format!("its objects would have the names of those of Gateway {holder}; give it another name");
            return InCluster { unmade: Some(Unmade { why, serves: false }), ..InCluster::default() };
        }
        let mut found = InCluster {
            addresses: self.addresses_given(view).into_iter().collect(),
            elsewhere: BTreeMap::new(),
            unbound: self.unbound(&view.key),
            unmade: known.unmade.get(&view.key).cloned(),
        };
        let missing = found.missing(&view.requested);
        found.elsewhere = missing.filter_map(|ip| Some((*ip, self.holder_of(*ip, view, holders)?))).collect();
        found
    }
}

/// The Gateways of which something else is known than before.
fn differing<T: PartialEq>(before: &BTreeMap<GatewayKey, T>, now: &BTreeMap<GatewayKey, T>) -> BTreeSet<GatewayKey> {
    before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key)).cloned().collect()
}

/// Whether an object belongs to this incarnation of a Gateway.
fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.kind == Kind::Gateway.as_str() && owner.uid == uid)
}

/// The addresses that clients reach a Service at.
fn given_to(service: Option<&Object>) -> BTreeSet<IpAddr> {
    let Some(Object::Service(service)) = service else { return BTreeSet::new() };
    let ip = |address| if let GatewayAddress::Ip(ip) = address { Some(ip) } else { None };
    addresses_of(service).into_iter().filter_map(ip).collect()
}

/// Where clients reach a Service: what its load balancer has given, or for other types its addresses in the cluster.
fn addresses_of(service: &Service) -> Vec<GatewayAddress> {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some(GatewayServiceType::LoadBalancer.as_str()) {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
        return ingress.iter().filter_map(given).collect();
    }
    let ips = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    ips.iter().filter_map(|ip| ip.parse().ok()).map(GatewayAddress::Ip).collect()
}

fn given(ingress: &LoadBalancerIngress) -> Option<GatewayAddress> {
    let ip = ingress.ip.as_deref().and_then(|ip| ip.parse().ok()).map(GatewayAddress::Ip);
    let name = || ingress.hostname.clone().filter(|name| !name.is_empty()).map(GatewayAddress::Hostname);
    ip.or_else(name)
}
