//! A replica's side of the Secret: takes over what the watch delivers, and as the leader writes what is due.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::watch;
use weft_core::ids::{Name, Namespace};
use weft_kube::Watched;
use weft_kube::kube::Api;
use weft_kube::kube::Client;
use weft_kube::kube::api::PostParams;
use weft_tls::Clock;

use super::decide::{self, Change, Facts, Seen, Source};
use super::secret::{ORDER, SecretFiles, annotation, full_name, with_answer, with_state};
use super::{ClusterSettings, NAME, RootSource, is_race, only, secrets, within};
use crate::authority::{Authority, AuthoritySettings};
use crate::error::AuthorityError;
use crate::external::{CACERTS, Layout, TLS};
use crate::metrics;
use crate::state::{Branch, State};
use crate::store::LOOK;

/// How soon a write that failed is tried again, if nothing happens before.
const AGAIN: Duration = Duration::from_secs(2);

/// The authority, once there is one.
pub(super) type Authorities = watch::Receiver<Option<Arc<Authority>>>;
type Watch = Pin<Box<dyn Stream<Item = Watched<Secret>> + Send>>;
/// The roots that the ConfigMap shows, as PEM, and since when.
pub(super) type Publication = Option<(String, SystemTime)>;

/// Somebody else's certificates.
struct Elsewhere {
    name: Name,
    layout: Layout,
    branch: Option<Branch>,
}

/// What the Secret holds, as the watch showed it last.
enum Held {
    Unknown,
    /// No Secret, or one without a state.
    Nothing(Option<Box<Secret>>),
    State(Box<Secret>, Arc<State>),
}

/// Its task.
pub(super) struct Keeper {
    api: Api<Secret>,
    namespace: Namespace,
    settings: AuthoritySettings,
    clock: Clock,
    held: Held,
    elsewhere: Option<Elsewhere>,
    leader: watch::Receiver<bool>,
    published: watch::Receiver<Publication>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    trouble: watch::Sender<Option<String>>,
}

impl Keeper {
    /// A keeper, the authority that it will have, and what keeps it from having one.
    pub fn new(
        client: &Client,
        settings: &ClusterSettings,
        clock: Clock,
        leader: watch::Receiver<bool>,
        published: watch::Receiver<Publication>,
    ) -> (Self, Authorities, watch::Receiver<Option<String>>) {
        let elsewhere = match &settings.source {
            RootSource::Own => None,
            RootSource::Issuer(name) => Some(Elsewhere { name: name.clone(), layout: TLS, branch: None }),
            RootSource::Cacerts(name) => Some(Elsewhere { name: name.clone(), layout: CACERTS, branch: None }),
        };
        let (authority, has_authority) = watch::channel(None);
        let (trouble, has_trouble) = watch::channel(None);
        let keeper = Self {
            api: secrets(client, &settings.namespace),
            namespace: settings.namespace.clone(),
            settings: settings.authority.clone(),
            clock,
            held: Held::Unknown,
            elsewhere,
            leader,
            published,
            authority,
            trouble,
        };
        (keeper, has_authority, has_trouble)
    }

    /// For ever.
    pub async fn run(mut self) {
        let mut own: Watch = Box::pin(weft_kube::watch(self.api.clone(), only(NAME)));
        let mut theirs: Watch = match &self.elsewhere {
            Some(elsewhere) => Box::pin(weft_kube::watch(self.api.clone(), only(elsewhere.name.as_str()))),
            None => Box::pin(futures::stream::pending()),
        };
        let mut pause = LOOK;
        loop {
            tokio::select! {
                Some(event) = own.next() => self.see(current(event, NAME)),
                Some(event) = theirs.next() => self.read(event),
                Ok(()) = self.leader.changed() => {}
                Ok(()) = self.published.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let leads = *self.leader.borrow_and_update();
            metrics::leader(leads);
            pause = if leads && !self.act().await { AGAIN } else { LOOK };
        }
    }

    /// Takes over what is saved. What cannot be read changes nothing.
    fn see(&mut self, secret: Option<Secret>) {
        let Some(secret) = secret else {
            if self.authority.borrow().is_some() {
                tracing::error!("Secret {}/{NAME} is gone; the leader writes it again from memory", self.namespace);
            }
            self.held = Held::Nothing(None);
            return;
        };
        let loaded = State::load(&SecretFiles(&secret), &self.settings.trust_domains);
        let taken = loaded.and_then(|state| match state {
            Some(state) => self.install(state.clone()).map(|()| Held::State(Box::new(secret), Arc::new(state))),
            None => Ok(Held::Nothing(Some(Box::new(secret)))),
        });
        metrics::bad_secret(NAME, taken.is_err());
        self.held = taken.unwrap_or_else(|error| {
            tracing::error!("{error}; the authority goes on with what it read before");
            self.trouble.send_replace(Some(error.to_string()));
            Held::Unknown
        });
    }

    fn install(&self, state: State) -> Result<(), AuthorityError> {
        let known = self.authority.borrow().clone();
        let authority = match known {
            Some(authority) => {
                authority.install(state)?;
                authority
            }
            None => {
                let authority = Arc::new(Authority::assemble(self.settings.clone(), self.clock, None, state)?);
                self.authority.send_replace(Some(Arc::clone(&authority)));
                authority
            }
        };
        self.trouble.send_replace(None);
        metrics::status(&authority.status()?);
        Ok(())
    }

    /// Reads certificates that are made elsewhere. Bad ones are reported and change nothing.
    fn read(&mut self, event: Watched<Secret>) {
        let Some(elsewhere) = &mut self.elsewhere else { return };
        let name = elsewhere.name.as_str();
        let read = match current(event, name) {
            None => Err(AuthorityError::Material(format!(
                "Secret {}/{name} does not exist: the CA certificates are to come from it",
                self.namespace
            ))),
            Some(secret) => {
                let branch = Branch::external(&SecretFiles(&secret), &elsewhere.layout, &self.settings, &self.clock);
                branch.inspect(|_| tracing::info!("CA certificates read from Secret {}", full_name(&secret)))
            }
        };
        metrics::bad_secret(name, read.is_err());
        match read {
            Ok(branch) => elsewhere.branch = Some(branch),
            Err(error) => {
                tracing::error!("{error}; the authority goes on with what it read before");
                self.trouble.send_replace(Some(error.to_string()));
            }
        }
    }

    /// Writes what is due; whether that went well. What was written takes effect when the watch delivers it.
    async fn act(&self) -> bool {
        let (change, there) = match self.decide() {
            Ok(Some(change)) => change,
            Ok(None) => return true,
            Err(error) => {
                tracing::error!(%error, "the authority's state is stuck");
                return false;
            }
        };
        let Change { state, answer } = change;
        let written = match state {
            Some(state) => with_state(there.as_ref(), &self.namespace, &state),
            None => there.clone().ok_or_else(|| AuthorityError::Material("nothing to write to".to_owned())),
        };
        let secret = match written {
            Ok(secret) => answer.iter().fold(secret, |secret, answer| with_answer(secret, answer)),
            Err(error) => {
                tracing::error!(%error, "the authority's state cannot be written");
                return false;
            }
        };
        let params = PostParams { field_manager: Some(NAME.to_owned()), ..PostParams::default() };
        let done = match there {
            Some(_) => within(self.api.replace(NAME, &params, &secret)).await,
            None => within(self.api.create(&params, &secret)).await,
        };
        match done {
            Ok(_) => tracing::info!(answer, "the authority's state is saved"),
            Err(error) if is_race(&error) => tracing::info!("another replica changed Secret {NAME} first"),
            Err(error) => {
                tracing::error!("Secret {}/{NAME} cannot be written: {error}", self.namespace);
                return false;
            }
        }
        true
    }

    fn decide(&self) -> Result<Option<(Change, Option<Secret>)>, crate::rotate::RotateError> {
        let memory = self.authority.borrow().as_ref().map(|authority| authority.state());
        let (seen, there) = match &self.held {
            Held::Unknown => (Seen::Unknown, None),
            Held::Nothing(secret) => (Seen::Nothing, secret.as_deref()),
            Held::State(secret, state) => (Seen::State(state, annotation(secret, ORDER)), Some(&**secret)),
        };
        let published = match (&seen, &*self.published.borrow()) {
            (Seen::State(state, _), Some((pem, since))) if *pem == state.bundle().to_pem() => Some(*since),
            _ => None,
        };
        let source = self.elsewhere.as_ref().map_or(Source::Own, |e| Source::Elsewhere(e.branch.as_ref()));
        let memory = memory.as_deref();
        let facts = Facts { seen, memory, source, published, settings: &self.settings, clock: &self.clock };
        Ok(decide::next(&facts)?.map(|change| (change, there.cloned())))
    }
}

/// The object of a watch by name, after an event.
fn current(event: Watched<Secret>, name: &str) -> Option<Secret> {
    match event {
        Watched::Restarted(found) => found.into_iter().find(|s| s.metadata.name.as_deref() == Some(name)),
        Watched::Applied(secret) => Some(secret),
        Watched::Deleted(_) => None,
    }
}
