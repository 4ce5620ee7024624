//! The roots that a process starts with, kept on disk, so that it starts again after the mesh has changed them.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use weft_core::identity::TrustDomain;
use weft_tls::{TrustBundle, TrustStore};

use super::settings::ControlSettings;

/// The roots of the file.
pub(super) fn open(settings: &ControlSettings) -> anyhow::Result<TrustStore> {
    let path = &settings.trust_bundle;
    let pem = std::fs::read(path).with_context(|| format!("--trust-bundle {}", path.display()))?;
    let bundle = TrustBundle::from_pem(settings.trust_domain.clone(), &pem)
        .with_context(|| format!("--trust-bundle {}", path.display()))?;
    TrustStore::with_domains(bundle, settings.trust_domains()).context("--trust-domain-alias")
}

/// Writes the roots of a trust domain to a file whenever they change, until the store is gone or the file turns out not
/// to be ours to write.
pub async fn keep_trust(path: PathBuf, domain: TrustDomain, trust: TrustStore) {
    let mut changes = trust.subscribe();
    loop {
        if changes.changed().await.is_err() {
            return;
        }
        let pem = trust.current().bundle.to_pem(&domain);
        let file = path.clone();
        let written = tokio::task::spawn_blocking(move || replace(&file, pem.as_bytes())).await;
        match written {
            Ok(Ok(())) => tracing::info!(file = %path.display(), "roots saved"),
            Ok(Err(error)) if is_read_only(&error) => return,
            Ok(Err(error)) => tracing::warn!(file = %path.display(), "roots can't be saved: {error}"),
            Err(error) => tracing::error!("roots can't be saved: {error}"),
        }
    }
}

/// A mounted ConfigMap: whoever mounted it keeps it up to date.
fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn replace(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut new = path.to_owned().into_os_string();
    // Several processes may keep the same file.
    new.push(format!(".{}.new", std::process::id()));
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}
