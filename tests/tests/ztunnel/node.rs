//! A machine that joins the mesh with a node agent that isn't Weft's: it joins, and reports its pod.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use weft_api::weft::node::v1 as wire;
use weft_api::weft::node::v1::nodes_client::NodesClient;
use weft_control::{authorize, channel};
use weft_core::identity::TrustDomain;
use weft_testkit::Task;
use weft_tests::{Invitation, Mesh};
use weft_tls::{CertificateDer, Clock, ControlClient, ExpectedServer, RootHash, ServerTrust, TrustBundle};

/// What a node has once it has joined.
pub struct Joined {
    /// Its bearer token.
    pub token: String,
    /// The mesh's roots, PEM.
    pub roots: String,
    /// Where the primary listens, `host:port`.
    pub primary: String,
    root_hash: RootHash,
}

/// Joins as the machine of this name.
pub fn join(mesh: &Mesh, machine: &str) -> Result<Joined> {
    let Invitation { primary, token, root_hash } = mesh.invite()?;
    let root_hash: RootHash = root_hash.parse()?;
    let reply = mesh.world.node(machine).block_on(async {
        let request = wire::JoinRequest { token, node: machine.to_owned() };
        anyhow::Ok(client(&primary, root_hash)?.join(request).await?.into_inner())
    })?;
    let domain: TrustDomain = reply.trust_domain.parse()?;
    let roots = TrustBundle::new(domain.clone(), reply.roots.into_iter().map(CertificateDer::from))?;
    ensure!(roots.roots(&domain).iter().any(|root| RootHash::of(root) == root_hash), "the pinned root isn't there");
    Ok(Joined { token: reply.node_token, roots: roots.to_pem(&domain), primary, root_hash })
}

fn client(primary: &str, root_hash: RootHash) -> Result<NodesClient<tonic::transport::Channel>> {
    let expected = ExpectedServer::Account { namespace: "weft-system".into(), service_account: "weft-primary".into() };
    let tls = ControlClient::new(ServerTrust::PinnedRoot(root_hash), expected, Clock::system())?;
    Ok(NodesClient::new(channel(primary.to_owned(), tls)))
}

/// Says that a pod is on the machine, for as long as the task lives: a session that ends is a node that is down.
pub fn report(mesh: &Mesh, machine: &str, joined: &Joined, pod: wire::PodAttached) -> Task<Result<()>> {
    let (token, primary, root_hash) = (joined.token.clone(), joined.primary.clone(), joined.root_hash);
    mesh.world.node(machine).spawn(async move {
        let hello = wire::Hello { pods: vec![pod], zone: String::new() };
        let hello = wire::FromNode { message: Some(wire::from_node::Message::Hello(hello)) };
        let mut request = tonic::Request::new(futures::stream::iter([hello]).chain(futures::stream::pending()));
        let source = move || Ok(token.clone());
        authorize(&(Arc::new(source) as _), request.metadata_mut())?;
        let mut answers = client(&primary, root_hash)?.session(request).await?.into_inner();
        while answers.message().await.context("the session")?.is_some() {}
        bail!("the primary ended the session")
    })
}
