//! What the client holds and wants, and the requests that say so. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use weft_api::envoy::config::core::v3::Node;
use weft_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use weft_api::google::rpc::Status;

use super::{Demand, Rejection};
use crate::{Encoded, ResourceName, TypeUrl, Update, Version, WILDCARD};

/// Bytes of reasons quoted in one NACK, which all that are refused share; of each at least so many. Names are never left out
/// for them: the server tells people what it reads there, and takes for accepted what isn't named.
const QUOTED: usize = 64 << 10;
const QUOTED_EACH: usize = 64;
/// What stands for the rest of a reason.
const CUT: &str = "...";
/// Bytes of a NACK, which a server has to take in: what is refused beyond that is only counted. Far more than a response has
/// that is refused in every part.
const MAX_NACK: usize = 16 << 20;
/// A version that no server gives.
const UNKNOWN: &str = "unknown";
/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;

/// The client's books.
#[derive(Debug)]
pub(super) struct Held {
    types: BTreeMap<TypeUrl, OfType>,
    /// Those that it wants all of, in the order in which it wants to be told of what came at once.
    order: Vec<TypeUrl>,
}

#[derive(Debug, Default)]
struct OfType {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    versions: HashMap<Arc<str>, HeldVersion>,
    answered: bool,
}

/// The version of what is held, small: there is one for each resource of a cluster.
#[derive(Debug)]
enum HeldVersion {
    /// None that a server knows.
    Unknown,
    /// As our servers give them.
    Hash(Version),
    /// Of another form.
    Text(Box<str>),
}

impl HeldVersion {
    fn new(text: String) -> Self {
        match Version::parse(&text) {
            Some(version) if version.to_string() == text => Self::Hash(version),
            _ => Self::Text(text.into()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Unknown => UNKNOWN.to_owned(),
            Self::Hash(version) => version.to_string(),
            Self::Text(text) => text.to_string(),
        }
    }
}

impl Held {
    pub(super) fn new(types: &[TypeUrl]) -> Self {
        let wild = |url: &TypeUrl| (url.clone(), OfType { wildcard: true, ..OfType::default() });
        Self { types: types.iter().map(wild).collect(), order: types.to_vec() }
    }

    /// Books what the caller has from before, of versions that nobody knows any more: the server sends what there is, and
    /// says what is gone.
    pub(super) fn hold(&mut self, names: impl IntoIterator<Item = ResourceName>) {
        for name in names {
            if let Some(of_type) = self.types.get_mut(&name.type_url) {
                of_type.versions.insert(name.name, HeldVersion::Unknown);
            }
        }
    }

    /// The first requests of a stream: subscriptions and what is held already.
    pub(super) fn initial_requests(&self, node: &Node) -> Vec<DeltaDiscoveryRequest> {
        let request = |(url, of_type): (&TypeUrl, &OfType)| {
            let wildcard = of_type.wildcard.then(|| WILDCARD.to_owned());
            let names = of_type.names.iter().map(|name| name.to_string());
            let versions = of_type.versions.iter().map(|(name, version)| (name.to_string(), version.text()));
            DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: url.as_str().to_owned(),
                resource_names_subscribe: wildcard.into_iter().chain(names).collect(),
                initial_resource_versions: versions.collect(),
                ..DeltaDiscoveryRequest::default()
            }
        };
        let first = self.order.iter().filter_map(|url| self.types.get_key_value(url));
        let others = self.types.iter().filter(|(url, _)| !self.order.contains(url));
        first.chain(others).map(request).collect()
    }

    /// Books a demand and makes the request for it.
    pub(super) fn demand(&mut self, demand: &Demand) -> DeltaDiscoveryRequest {
        let (Demand::SubscribeAll(type_url)
        | Demand::Subscribe(ResourceName { type_url, .. })
        | Demand::Unsubscribe(ResourceName { type_url, .. })) = demand;
        let of_type = self.types.entry(type_url.clone()).or_insert_with(|| OfType {
            // A type only ever asked for on demand needs no first answer to be in sync.
            answered: true,
            ..OfType::default()
        });
        let mut request =
            DeltaDiscoveryRequest { type_url: type_url.as_str().to_owned(), ..DeltaDiscoveryRequest::default() };
        match demand {
            Demand::SubscribeAll(_) => {
                of_type.wildcard = true;
                request.resource_names_subscribe.push(WILDCARD.to_owned());
            }
            Demand::Subscribe(name) => {
                of_type.names.insert(Arc::clone(&name.name));
                request.resource_names_subscribe.push(name.name.to_string());
            }
            Demand::Unsubscribe(name) => {
                of_type.names.remove(&name.name);
                if !of_type.wildcard {
                    of_type.versions.remove(&name.name);
                }
                request.resource_names_unsubscribe.push(name.name.to_string());
            }
        }
        request
    }

    /// Books what was applied; a rejected resource isn't held, or in no version that the server knows, so that the next
    /// stream brings it again.
    pub(super) fn applied(&mut self, versions: Vec<(ResourceName, Option<String>)>, rejections: &[Rejection]) {
        for (name, version) in versions {
            let Some(of_type) = self.types.get_mut(&name.type_url) else { continue };
            let rejection = rejections.iter().find(|rejection| rejection.name == name);
            match (version, rejection) {
                (Some(version), None) => of_type.versions.insert(name.name, HeldVersion::new(version)),
                (Some(_), Some(rejection)) if rejection.held => {
                    of_type.versions.insert(name.name, HeldVersion::Unknown)
                }
                _ => of_type.versions.remove(&name.name),
            };
        }
    }

    pub(super) fn answered(&mut self, type_url: &TypeUrl) {
        if let Some(of_type) = self.types.get_mut(type_url) {
            of_type.answered = true;
        }
    }

    pub(super) fn all_answered(&self) -> bool {
        self.types.values().all(|of_type| of_type.answered)
    }
}

/// What the server owes to one stream. What it answered to an earlier one says nothing of this one.
#[derive(Debug)]
pub(super) struct Owed {
    /// Types of which there has been no answer, or not all of it.
    types: BTreeSet<TypeUrl>,
    /// When the last response was dealt with; or the stream began.
    since: Instant,
}

impl Owed {
    /// The answers to the first requests of a stream.
    pub(super) fn to(requests: &[DeltaDiscoveryRequest]) -> Self {
        let asking = requests.iter().filter(|request| !request.resource_names_subscribe.is_empty());
        Self { types: asking.map(|request| TypeUrl::new(&request.type_url)).collect(), since: Instant::now() }
    }

    /// Books that a response was dealt with, after which more of its type follows or not.
    pub(super) fn heard(&mut self, type_url: TypeUrl, more: bool) {
        match more {
            true => self.types.insert(type_url),
            false => self.types.remove(&type_url),
        };
        self.since = Instant::now();
    }

    /// One of the types that are owed, and since when nothing has come at all; `None` if everything was answered.
    pub(super) fn waiting(&self) -> Option<(&TypeUrl, Instant)> {
        self.types.first().map(|type_url| (type_url, self.since))
    }
}

/// What [`updates`] makes of a response: the updates, the version of each (`None` when removed), and the resources
/// that are not even resources.
pub(super) type Opened = (Vec<Update>, Vec<(ResourceName, Option<String>)>, Vec<Rejection>);

/// Opens a response.
pub(super) fn updates(response: DeltaDiscoveryResponse) -> Opened {
    let type_url = TypeUrl::new(&response.type_url);
    let (mut updates, mut versions, mut rejections) = (Vec::new(), Vec::new(), Vec::new());
    for resource in response.resources {
        let name = ResourceName::new(type_url.clone(), &resource.name);
        match resource.resource {
            Some(body) if body.type_url == type_url.as_str() => {
                updates.push(Update::Set(Encoded { name: name.clone(), body: Bytes::from(body.value) }));
                versions.push((name, Some(resource.version)));
            }
            Some(body) => {
                let reason = format!("the body is a {}, not a {type_url}", body.type_url);
                rejections.push(Rejection::new(name, reason));
            }
            None => rejections.push(Rejection::new(name, "the body is missing")),
        }
    }
    for name in response.removed_resources {
        let name = ResourceName::new(type_url.clone(), name);
        updates.push(Update::Remove(name.clone()));
        versions.push((name, None));
    }
    (updates, versions, rejections)
}

/// The error of a NACK; none if nothing was rejected.
pub(super) fn error_detail(rejections: &[Rejection]) -> Option<Status> {
    if rejections.is_empty() {
        return None;
    }
    let quoted = quoted_of_each(rejections);
    let (mut message, mut told) = (String::new(), 0);
    for rejection in rejections {
        let separator = if told == 0 { "" } else { "; " };
        let reason = cut(&rejection.reason, quoted);
        let dots = if reason.len() < rejection.reason.len() { CUT } else { "" };
        let part = format!("{separator}{}: {reason}{dots}", rejection.name.name);
        if message.len() + part.len() > MAX_NACK {
            message.push_str(&format!("; and {} more", rejections.len() - told));
            break;
        }
        message.push_str(&part);
        told += 1;
    }
    Some(Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

/// How many bytes of each reason are told: what short ones leave of their share is the long ones'.
fn quoted_of_each(rejections: &[Rejection]) -> usize {
    let mut lengths: Vec<usize> = rejections.iter().map(|rejection| rejection.reason.len()).collect();
    lengths.sort_unstable();
    let mut left = QUOTED;
    for (n, length) in lengths.iter().enumerate() {
        let share = left / (lengths.len() - n);
        if *length > share {
            return share.max(QUOTED_EACH);
        }
        left -= length;
    }
    QUOTED
}

/// The start of a text, whole characters only.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_but_held_is_asked_about_again_and_what_is_not_taken_is_not() {
        let url = TypeUrl::new("t");
        let mut held = Held::new(std::slice::from_ref(&url));
        let name = |text: &str| ResourceName::new(url.clone(), text);
        let versions = ["taken", "refused", "held"].map(|text| (name(text), Some("1".to_owned())));
        let waiting = Rejection { held: true, ..Rejection::new(name("held"), "in use") };
        held.applied(versions.to_vec(), &[Rejection::new(name("refused"), "odd"), waiting]);
        let requests = held.initial_requests(&Node::default());
        let mut told: Vec<_> = requests[0].initial_resource_versions.clone().into_iter().collect();
        told.sort();
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(told, [pair("held", UNKNOWN), pair("taken", "1")]);
        held.applied(vec![(name("held"), None)], &[]);
        assert_eq!(held.initial_requests(&Node::default())[0].initial_resource_versions.len(), 1, "it is gone");
    }

    #[test]
    fn a_type_asked_for_on_demand_is_asked_for_in_each_stream_after() {
        let (url, later) = (TypeUrl::new("t"), TypeUrl::new("later"));
        let mut held = Held::new(std::slice::from_ref(&url));
        held.answered(&url);
        let asked = held.demand(&Demand::SubscribeAll(later.clone()));
        assert_eq!((asked.type_url.as_str(), asked.resource_names_subscribe), ("later", vec![WILDCARD.to_owned()]));
        assert!(held.all_answered(), "nobody waits for it");
        // One of it by name, and no more: the rest stays.
        let name = ResourceName::new(later, "a");
        held.applied(vec![(name.clone(), Some("1".to_owned()))], &[]);
        held.demand(&Demand::Subscribe(name.clone()));
        held.demand(&Demand::Unsubscribe(name));
        let requests = held.initial_requests(&Node::default());
        let told: Vec<_> =
            requests.iter().map(|it| (it.type_url.as_str(), it.resource_names_subscribe.len())).collect();
        assert_eq!(told, [("t", 1), ("later", 1)]);
        assert_eq!(requests[1].resource_names_subscribe, [WILDCARD]);
        assert_eq!(requests[1].initial_resource_versions.len(), 1, "what it has of it is told");
    }

    #[test]
    fn versions_are_told_as_the_server_gave_them() {
        let url = TypeUrl::new("t");
        let given = ["00000000000000ff", "ff", "00000000000000FF", "+0000000000000ff", "", "v1", "1a2b3c4d5e6f7081"];
        let mut held = Held::new(std::slice::from_ref(&url));
        let versions = given.map(|text| (ResourceName::new(url.clone(), text), Some(text.to_owned())));
        held.applied(versions.to_vec(), &[]);
        let told = held.initial_requests(&Node::default()).remove(0).initial_resource_versions;
        assert_eq!(told.len(), given.len());
        assert!(told.iter().all(|(name, version)| name == version), "{told:?}");
    }

    fn told(rejections: &[(&str, String)]) -> String {
        let name = |text: &str| ResourceName::new(TypeUrl::new("t"), text);
        let all: Vec<_> = rejections.iter().map(|(of, why)| Rejection::new(name(of), why.as_str())).collect();
        error_detail(&all).unwrap().message
    }

    #[test]
    fn whatever_is_refused_is_named_and_long_reasons_are_cut() {
        assert_eq!(error_detail(&[]), None);
        assert_eq!(told(&[("a", "odd".into()), ("b", "too; long".into())]), "a: odd; b: too; long");
        // One that is longer than everything may be, in front of others.
        let text = told(&[("a", "x".repeat(1 << 20)), ("b", "odd".into()), ("c", "y".repeat(1 << 20))]);
        let (a, rest) = text.split_once("; b: odd; c: ").unwrap();
        assert!(a.starts_with("a: xxx") && a.ends_with("x...") && rest.ends_with("y..."));
        assert!((QUOTED - 100..QUOTED + 100).contains(&text.len()), "{}", text.len());
        // Bytes are counted, characters are whole.
        assert!(told(&[("a", format!("x{}", "\u{e9}".repeat(QUOTED)))]).ends_with("\u{e9}..."));
        // Very many: the shares are small, and nobody is left out.
        let names: Vec<String> = (0..5_000).map(|n| format!("HTTPRoute/shop/{n}")).collect();
        let text = told(&names.iter().map(|name| (name.as_str(), "z".repeat(1_000))).collect::<Vec<_>>());
        let parts: Vec<_> = text.split("; ").collect();
        assert_eq!(parts.len(), names.len());
        let whole = |(part, name): (&&str, &String)| **part == format!("{name}: {}...", "z".repeat(QUOTED_EACH));
        assert!(parts.iter().zip(&names).all(whole), "{}", parts[0]);
    }
}
