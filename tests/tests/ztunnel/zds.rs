//! The node agent's end of Istio's workload discovery (`zds.proto` of ztunnel): tells ztunnel of one pod and hands over
//! the pod's network namespace.

use std::path::PathBuf;
use std::sync::mpsc;

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use weft_sys::seqpacket::{SeqPacket, SeqPacketListener};
use weft_testkit::{Netns, Task};

/// Version 1 of the protocol.
const V1: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(int32, tag = "1")]
    version: i32,
}

/// Which pod a namespace belongs to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkloadInfo {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's namespace.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// The pod's ServiceAccount.
    #[prost(string, tag = "3")]
    pub service_account: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AddWorkload {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(message, optional, tag = "2")]
    workload_info: Option<WorkloadInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotSent {}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Payload {
    #[prost(message, tag = "1")]
    Add(AddWorkload),
    #[prost(message, tag = "3")]
    SnapshotSent(SnapshotSent),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(oneof = "Payload", tags = "1, 3")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ack {
    #[prost(string, tag = "1")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    ack: Option<Ack>,
}

/// Serves one ztunnel with one pod for as long as the task lives. The receiver hears when ztunnel has taken the pod, or
/// why it didn't.
pub fn serve(pod: &Netns, path: PathBuf, info: WorkloadInfo) -> Result<(Task<()>, mpsc::Receiver<Result<()>>)> {
    let netns = pod.fd().context("a namespace with a name")?.try_clone_to_owned()?;
    let (sender, taken) = mpsc::channel();
    let (bound, ready) = mpsc::channel();
    let task = Netns::here().spawn(async move {
        let conversation = async {
            let listener = SeqPacketListener::bind(&path, 0o600)?;
            // The receiver waits for nothing else.
            let _ = bound.send(());
            let ztunnel = listener.accept().await?;
            converse(&ztunnel, netns, info).await?;
            anyhow::Ok(ztunnel)
        };
        let held = conversation.await;
        let (result, connection) = match held {
            Ok(connection) => (Ok(()), Some(connection)),
            Err(error) => (Err(error), None),
        };
        // Whoever doesn't wait any more has failed already.
        let _ = sender.send(result);
        // A connection that ends would make ztunnel ask again.
        let _connection = connection;
        std::future::pending::<()>().await;
    });
    ready.recv().context("the socket for ztunnel")?;
    Ok((task, taken))
}

async fn converse(ztunnel: &SeqPacket, netns: OwnedFd, info: WorkloadInfo) -> Result<()> {
    let hello = ztunnel.recv(0).await?.context("ztunnel said nothing")?;
    let version = Hello::decode(&*hello.bytes)?.version;
    ensure!(version == V1, "ztunnel speaks version {version}");
    let add = AddWorkload { uid: format!("uid-{}", info.name), workload_info: Some(info) };
    say(ztunnel, Payload::Add(add), Some(netns)).await?;
    say(ztunnel, Payload::SnapshotSent(SnapshotSent {}), None).await
}

async fn say(ztunnel: &SeqPacket, payload: Payload, fd: Option<OwnedFd>) -> Result<()> {
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    ztunnel.send(&Request { payload: Some(payload) }.encode_to_vec(), &fds).await?;
    let answer = ztunnel.recv(0).await?.context("ztunnel closed the connection")?;
    let error = Response::decode(&*answer.bytes)?.ack.context("an answer that is no ack")?.error;
    ensure!(error.is_empty(), "ztunnel refuses: {error}");
    Ok(())
}
