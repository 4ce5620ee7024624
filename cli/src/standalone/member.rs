//! A node that joins: proves itself once with a one-time token, and with its own from then on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use weft_api::weft::node::v1::nodes_client::NodesClient;
use weft_api::weft::node::v1::{JoinReply, JoinRequest};
use weft_control::channel;
use weft_core::identity::TrustDomain;
use weft_core::ids::NodeName;
use weft_core::snapshot::Snapshot;
use weft_node_proxy::process::{Account, Control, ControlSettings};
use weft_node_proxy::store::{SavedFile, Store};
use weft_tls::{CertificateDer, Clock, ControlClient, ExpectedServer, RootHash, ServerTrust, TrustBundle, TrustStore};

use super::PRIMARY;
use super::files::Credentials;
use super::node::Home;
use super::settings::Args;

/// Between two attempts to reach a primary that doesn't answer.
const PAUSE: Duration = Duration::from_secs(1);

/// The primary, whatever its trust domain.
pub fn expected_primary() -> ExpectedServer {
    ExpectedServer::Account { namespace: PRIMARY.0.into(), service_account: PRIMARY.1.into() }
}

/// Joins if this node hasn't yet, and follows the configuration for this node's own resolver.
pub async fn start(args: &Arc<Args>, primary: String, stop: &CancellationToken) -> anyhow::Result<Home> {
    let node = args.node_name()?;
    let credentials = Credentials::below(&args.state);
    if !credentials.token.exists() {
        join(args, &primary, &node, &credentials, stop).await?;
    }
    let text = std::fs::read_to_string(&credentials.trust_domain).context("the trust domain of the mesh")?;
    let joined: TrustDomain = text.trim().parse().context("the trust domain of the mesh")?;
    let domains = args.trust_domains(joined);
    let trust_domain = domains.own().clone();
    credentials.write_trust_domain(trust_domain.as_str()).context("the trust domain of the mesh")?;
    let pem = std::fs::read(&credentials.roots).context("the roots of the mesh")?;
    let bundle = TrustBundle::from_pem(trust_domain.clone(), &pem).context("the roots of the mesh")?;
    let trust = TrustStore::with_domains(bundle, domains).context("the roots of the mesh")?;
    let snapshot: super::node::Current = Arc::new(Arc::<Snapshot>::default);
    let mut home = Home { node, primary, credentials, trust, snapshot, trust_domain };
    let store = follow(&home, &args.state.join("config"))?;
    home.snapshot = Arc::new(move || store.load_full());
    Ok(home)
}

async fn join(
    args: &Args,
    primary: &str,
    node: &NodeName,
    credentials: &Credentials,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (Some(token), Some(root_hash)) = (&args.token, args.root_hash) else {
        bail!("this node has not joined yet: give it --token and --root-hash, which the primary prints");
    };
    let tls = ControlClient::new(ServerTrust::PinnedRoot(root_hash), expected_primary(), Clock::system())?;
    let mut client = NodesClient::new(channel(primary.to_owned(), tls));
    let reply = loop {
        let request = JoinRequest { token: token.clone(), node: node.to_string() };
        match client.join(request).await {
            Ok(reply) => break reply.into_inner(),
            // What another attempt can mend. Anything else is an answer.
            Err(status) if status.code() == Code::Unavailable => {
                tracing::warn!(primary, "the primary can't be reached yet: {}", status.message());
            }
            Err(status) => bail!("{primary} refuses this node: {}", status.message()),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => bail!("stopped before {primary} could be reached"),
        }
    };
    let pem = pinned_roots(&reply, root_hash)?;
    credentials.write(&reply.node_token, &pem, &reply.trust_domain).context("this node's credentials")?;
    tracing::info!(primary, trust_domain = reply.trust_domain, "joined");
    Ok(())
}

/// The roots that came, if the pinned one is among them.
fn pinned_roots(reply: &JoinReply, pinned: RootHash) -> anyhow::Result<String> {
    let domain: TrustDomain = reply.trust_domain.parse().context("the primary's trust domain")?;
    let roots: Vec<_> = reply.roots.iter().cloned().map(CertificateDer::from).collect();
    if !roots.iter().any(|root| RootHash::of(root) == pinned) {
        bail!("the primary's roots do not include the one given as --root-hash");
    }
    Ok(TrustBundle::new(domain.clone(), roots).context("the primary's roots")?.to_pem(&domain))
}

/// Follows roots and configuration for what this process itself answers; its proxy has a conversation of its own.
fn follow(home: &Home, saved: &std::path::Path) -> anyhow::Result<Arc<Store>> {
    let account = || Account { namespace: PRIMARY.0.into(), service_account: PRIMARY.1.into() };
    let settings = ControlSettings {
        control: home.primary.clone(),
        control_account: account(),
        ca: None,
        ca_account: account(),
        token_file: home.credentials.token.clone(),
        trust_bundle: home.credentials.roots.clone(),
        trust_domain: home.trust_domain.clone(),
        trust_domain_aliases: home.trust.domains().aliases().to_vec(),
        zone: None,
    };
    // What the proxy has saved: names are answered while the primary is away.
    let snapshot = SavedFile::new(saved).read().ok().flatten().unwrap_or_default();
    let store = Arc::new(Store::new(snapshot));
    Control::start(&home.node, &settings, home.trust.clone(), &store)?;
    Ok(store)
}
