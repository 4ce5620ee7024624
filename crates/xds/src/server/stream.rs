//! One client's stream: what it asked for, what it holds, what it must be told next. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use prost_types::Any;
use tokio::time::Instant;
use weft_api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::Refusal;
use super::publisher::{Changed, Sequence, State};
use crate::{MORE, TypeUrl, Version, WILDCARD};

/// Most resources and bytes in one response: a large state arrives in pieces that can be applied one by one. After a restart
/// of the controller all clients come at once, and each piece is in memory three times until it is sent: as a message,
/// encoded, and encrypted.
const MAX_RESOURCES: usize = 1_000;
const MAX_BYTES: usize = 128 << 10;
/// Types a client may ask for, and names of all of them together that are kept in mind of it: what it asks for by name, and
/// what it has until it is told of it. More is an attack or a mistake.
pub(super) const MAX_TYPES: usize = 32;
const MAX_NAMES: usize = 400_000;

/// What a request meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Only subscriptions changed.
    Subscription,
    /// A response was applied; of what was in it, these had been refused before.
    Ack(TypeUrl, Vec<Arc<str>>),
    /// A response was applied in part or not at all.
    Nack(Nack),
    /// An answer to a response that isn't the latest.
    Stale,
    /// Too many types or names.
    TooMuch,
}

/// What a client says of a response that it didn't take whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nack {
    pub(super) type_url: TypeUrl,
    /// The client's words.
    pub(super) reason: String,
    /// The resources that the words name.
    pub(super) refused: Vec<Refusal>,
    /// What had been refused before and is taken now.
    pub(super) mended: Vec<Arc<str>>,
}

/// A client that has everything as of a time so long ago that nobody knows what is gone since. It knows what it has: a new
/// stream begins with that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FellBehind;

/// The state of one stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    types: BTreeMap<TypeUrl, TypeState>,
    /// Types in the order in which the client asked for them first: the one in which it is told of what came at once.
    order: Vec<TypeUrl>,
    nonces: u64,
    seen: Sequence,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: HashSet<Arc<str>>,
    held: Held,
    outstanding: Option<Outstanding>,
    /// What the client refuses, of what it was sent.
    refused: HashSet<Arc<str>>,
    /// Names that may have to be sent.
    dirty: BTreeSet<Arc<str>>,
    /// A subscription is answered even if there is nothing to say, so that the client knows.
    owes_answer: bool,
}

/// What a client has of a type, as far as we know.
#[derive(Debug)]
enum Held {
    /// So much; `None` for a version that isn't one of ours.
    Some(HashMap<Arc<str>, Option<Version>>),
    /// Everything, as it was published up to where the stream has looked. This is how a stream is nearly always, and
    /// it takes no memory: a copy of all names for each of hundreds of clients would be most of a controller's.
    All,
}

impl Default for Held {
    fn default() -> Self {
        Self::Some(HashMap::new())
    }
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Self::Some(held) => held.len(),
            Self::All => 0,
        }
    }

    /// Whether it has this very version. Of what it has all of, only what changed is asked about.
    fn has(&self, name: &str, version: Version) -> bool {
        matches!(self, Self::Some(held) if held.get(name) == Some(&Some(version)))
    }

    fn set(&mut self, name: &Arc<str>, version: Option<Version>) {
        if let Self::Some(held) = self {
            held.insert(Arc::clone(name), version);
        }
    }

    /// Whether it had it, or may have had.
    fn remove(&mut self, name: &str) -> bool {
        match self {
            Self::Some(held) => held.remove(name).is_some(),
            Self::All => true,
        }
    }
}

/// A response that waits for its ACK.
#[derive(Debug)]
struct Outstanding {
    nonce: String,
    since: Instant,
    names: Vec<Arc<str>>,
}

impl Stream {
    /// Whether the client has asked for something of a type.
    pub(super) fn has(&self, type_url: &str) -> bool {
        self.types.contains_key(type_url)
    }

    /// Takes a request in.
    pub(super) fn on_request(&mut self, request: &DeltaDiscoveryRequest, state: &State) -> Heard {
        let type_url = TypeUrl::new(&request.type_url);
        if !self.types.contains_key(&type_url) && self.types.len() >= MAX_TYPES {
            return Heard::TooMuch;
        }
        if !self.types.contains_key(&type_url) {
            self.order.push(type_url.clone());
        }
        let known = self.types.entry(type_url.clone()).or_default();
        known.take_held(request);
        known.subscribe(request, &type_url, state);
        if self.types.values().map(TypeState::names_in_mind).sum::<usize>() > MAX_NAMES {
            return Heard::TooMuch;
        }
        let Some(known) = self.types.get_mut(&type_url) else { return Heard::Stale };
        if request.response_nonce.is_empty() {
            return Heard::Subscription;
        }
        let Some(answered) = known.outstanding.take_if(|it| it.nonce == request.response_nonce) else {
            return Heard::Stale;
        };
        let reason = request.error_detail.as_ref().map(|error| error.message.clone());
        let refused = reason.as_deref().map(|words| named_in(words, &answered.names)).unwrap_or_default();
        let mended = known.note_answer(&answered.names, &refused);
        match reason {
            Some(reason) => Heard::Nack(Nack { type_url, reason, refused, mended }),
            None => Heard::Ack(type_url, mended),
        }
    }

    /// Notes what changed since the last time.
    ///
    /// # Errors
    /// [`FellBehind`]: end the stream.
    pub(super) fn catch_up(&mut self, state: &State) -> Result<(), FellBehind> {
        match state.changed_since(self.seen) {
            Changed::Names(names) => {
                for name in names {
                    if let Some(known) = self.types.get_mut(&name.type_url)
                        && (known.wildcard || known.names.contains(&name.name))
                    {
                        known.dirty.insert(name.name);
                    }
                }
            }
            Changed::Everything => {
                for (type_url, known) in &mut self.types {
                    if matches!(known.held, Held::All) {
                        return Err(FellBehind);
                    }
                    known.mark_all(type_url, state);
                }
            }
        }
        self.seen = state.sequence();
        Ok(())
    }

    /// Up to where the client has everything that it asked for; `None` while something is under way, and before it has asked
    /// for anything.
    pub(super) fn synced(&self) -> Option<Sequence> {
        let idle = |t: &TypeState| t.dirty.is_empty() && t.outstanding.is_none() && !t.owes_answer;
        (!self.types.is_empty() && self.types.values().all(idle)).then_some(self.seen)
    }

    /// The type of the response that has waited longest for its answer, and since when.
    pub(super) fn oldest_unanswered(&self) -> Option<(&TypeUrl, Instant)> {
        let waits = self.types.iter().filter_map(|(url, known)| Some((url, known.outstanding.as_ref()?.since)));
        waits.min_by_key(|(_, since)| *since)
    }

    /// The next response that may be sent, if any; only after [`Stream::catch_up`] with the same state. `restricted` is
    /// `None` for a type of which the client may see everything, else what tells whether it may see one resource.
    ///
    /// As long as a type has more to tell than the client has answered, no type after it is told: what a later one refers to
    /// may be in the rest.
    pub(super) fn next_response<F: Fn(&TypeUrl, &str) -> bool>(
        &mut self,
        state: &State,
        restricted: impl Fn(&TypeUrl) -> Option<F>,
    ) -> Option<DeltaDiscoveryResponse> {
        for type_url in &self.order {
            let Some(known) = self.types.get_mut(type_url) else { continue };
            let has_more = !known.dirty.is_empty() || known.owes_answer;
            if !has_more {
                continue;
            }
            if known.outstanding.is_some() {
                return None;
            }
            let may_see = restricted(type_url);
            let (resources, removed_resources, names) = known
                .take_dirty(type_url, state, |name| may_see.as_ref().is_none_or(|may_see| may_see(type_url, name)));
            if may_see.is_none() && known.wildcard && known.dirty.is_empty() {
                known.held = Held::All;
            }
            if names.is_empty() && !known.owes_answer {
                continue;
            }
            // After a part comes the end, even if there turns out to be nothing more to say.
            known.owes_answer = !known.dirty.is_empty();
            self.nonces += 1;
            let nonce = self.nonces.to_string();
            known.outstanding = Some(Outstanding { nonce: nonce.clone(), since: Instant::now(), names });
            let more = if known.dirty.is_empty() { "" } else { MORE };
            return Some(DeltaDiscoveryResponse {
                system_version_info: format!("{}{more}", state.sequence().0),
                resources,
                type_url: type_url.as_str().to_owned(),
                nonce,
                removed_resources,
            });
        }
        None
    }
}

impl TypeState {
    fn names_in_mind(&self) -> usize {
        self.names.len() + self.held.len()
    }

    fn take_held(&mut self, request: &DeltaDiscoveryRequest) {
        for (name, version) in &request.initial_resource_versions {
            let name: Arc<str> = Arc::from(name.as_str());
            self.dirty.insert(Arc::clone(&name));
            self.held.set(&name, Version::parse(version));
        }
    }

    fn subscribe(&mut self, request: &DeltaDiscoveryRequest, type_url: &TypeUrl, state: &State) {
        for name in &request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                self.keep_named();
            } else if self.names.remove(name.as_str()) && !self.wildcard {
                // The client forgets it by itself.
                self.held.remove(name.as_str());
                self.dirty.remove(name.as_str());
            }
        }
        for name in &request.resource_names_subscribe {
            self.owes_answer = true;
            if name == WILDCARD {
                self.wildcard = true;
                self.mark_all(type_url, state);
            } else {
                let name: Arc<str> = Arc::from(name.as_str());
                // Who asks for one by name is sent it, even if it was before, unless it says that it has it.
                if !request.initial_resource_versions.contains_key(&*name) {
                    self.held.set(&name, None);
                }
                self.dirty.insert(Arc::clone(&name));
                self.names.insert(name);
            }
        }
    }

    /// Of what it has, only what it asked for by name is kept in mind.
    fn keep_named(&mut self) {
        match &mut self.held {
            Held::Some(held) => held.retain(|held, _| self.names.contains(held)),
            // In the version of when the stream looked last, which may be an older one by now.
            Held::All => self.held = Held::Some(self.names.iter().map(|name| (Arc::clone(name), None)).collect()),
        }
    }

    /// Everything it could hold or want must be compared.
    fn mark_all(&mut self, type_url: &TypeUrl, state: &State) {
        if let Held::Some(held) = &self.held {
            self.dirty.extend(held.keys().cloned());
        }
        self.dirty.extend(self.names.iter().cloned());
        if self.wildcard {
            self.dirty.extend(state.names(type_url).cloned());
        }
    }

    /// Takes names off the dirty set until a response is full, and tells what of them the client lacks.
    fn take_dirty(
        &mut self,
        type_url: &TypeUrl,
        state: &State,
        may_see: impl Fn(&str) -> bool,
    ) -> (Vec<Resource>, Vec<String>, Vec<Arc<str>>) {
        let (mut resources, mut removed, mut names, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        while resources.len() + removed.len() < MAX_RESOURCES && bytes < MAX_BYTES {
            let Some(name) = self.dirty.pop_first() else { break };
            let wanted = self.wildcard || self.names.contains(&name);
            let entry = state.get(type_url, &name).filter(|_| wanted && may_see(&name));
            match entry {
                Some(entry) if self.held.has(&name, entry.version) => {}
                Some(entry) => {
                    bytes += entry.body.len();
                    let body = Any { type_url: type_url.as_str().to_owned(), value: entry.body.to_vec() };
                    let version = entry.version.to_string();
                    resources.push(Resource { version, resource: Some(body), name: name.to_string() });
                    names.push(Arc::clone(&name));
                    self.held.set(&name, Some(entry.version));
                }
                // A name asked for that doesn't exist is said to be absent, too.
                None if self.held.remove(&name) || self.names.contains(&name) => {
                    removed.push(name.to_string());
                    names.push(name);
                }
                None => {}
            }
        }
        (resources, removed, names)
    }

    /// Books an answer to a response with these names; returns what was refused before and isn't any more.
    fn note_answer(&mut self, names: &[Arc<str>], refused: &[Refusal]) -> Vec<Arc<str>> {
        if self.refused.is_empty() && refused.is_empty() {
            return Vec::new();
        }
        let now: HashSet<&str> = refused.iter().map(|it| &*it.name).collect();
        let mended = names.iter().filter(|name| !now.contains(&***name) && self.refused.remove(*name)).cloned();
        let mended = mended.collect();
        self.refused.extend(refused.iter().map(|it| Arc::clone(&it.name)));
        mended
    }
}

/// The resources that a NACK names: `name: reason; name: reason`, of those that were in the response. A reason may have
/// anything in it, names of others too, but not in that form.
fn named_in(words: &str, names: &[Arc<str>]) -> Vec<Refusal> {
    let known: HashMap<&str, &Arc<str>> = names.iter().map(|name| (&**name, name)).collect();
    let mut found: Vec<Refusal> = Vec::new();
    for part in words.split("; ") {
        match part.split_once(": ").and_then(|(name, reason)| Some((*known.get(name)?, reason))) {
            Some((name, reason)) => found.push(Refusal { name: Arc::clone(name), reason: reason.to_owned() }),
            // The reason before went on.
            None => found.iter_mut().rev().take(1).for_each(|last| {
                last.reason.push_str("; ");
                last.reason.push_str(part);
            }),
        }
    }
    found
}

#[cfg(test)]
mod tests;
