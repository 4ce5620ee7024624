mod authority;
mod rotation;
mod service;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weft_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use weft_tls::{Clock, KeyRequest};

use crate::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn id(service_account: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", service_account)
}

fn settings() -> AuthoritySettings {
    AuthoritySettings::new(TrustDomain::default())
}

fn open(dir: &Path) -> Arc<Authority> {
    open_at(dir, Clock::system())
}

fn open_at(dir: &Path, clock: Clock) -> Arc<Authority> {
    Arc::new(Authority::open(dir, settings(), clock).unwrap())
}

fn csr(identity: &SpiffeId) -> Vec<u8> {
    KeyRequest::generate(identity).unwrap().csr().to_vec()
}

fn virtual_clock() -> Clock {
    Clock::following_tokio(SystemTime::now())
}
