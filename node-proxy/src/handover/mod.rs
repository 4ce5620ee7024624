//! Replacing the process: the successor gets the listening sockets, the pods and the keys; the predecessor serves its
//! established connections to their end.
//!
//! ```text
//!   successor                                   predecessor
//!     connect, TakeOver  ------------------------->
//!     <--- Pod + netns and sockets, ..., Certificate, ..., Complete
//!     opens its pods on the sockets it was given
//!     Taken  -------------------------------------> stops accepting, drains
//! ```
//!
//! Invariants: a socket is never closed in between, so that no connection is refused and none is lost from its queue;
//! if the successor fails before `Taken`, nothing has changed; keys go through memory only, to a process of the same
//! user. Gateways' sockets are not among these: each process has its own at the same ports, the successor's from before it
//! takes over. Both may be in containers of their own: nothing but the socket's file is shared, and neither knows the other's
//! process id.

mod message;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use weft_api::weft::proxy::v1 as wire;
use weft_sys::{Message, SeqPacket, SeqPacketListener};
use weft_tls::{CertStore, Svid};

use crate::inpod::{Announcement, Listener, Manager, Served};

use self::message::{certificate, parse_pod, pod};

/// The version of the conversation.
const PROTOCOL: u32 = 1;
/// Descriptors with one message: the namespace, and both families of each role.
const MAX_FDS: usize = 16;
/// How long the other process may take for one step. Opening hundreds of pods is one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a process that was replaced looks whether anybody serves.
const LOOK: Duration = Duration::from_secs(2);
/// How many looks in vain in a row mean that nobody does: a process that is starting takes as long.
const LOOKS: u32 = 3;

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The conversation broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other process took too long.
    #[error("the other process did not go on within {PATIENCE:?}")]
    Timeout,
    /// The other process closed the conversation.
    #[error("the other process ended the conversation")]
    Closed,
    /// It closed it before it said anything.
    #[error("the other process said nothing")]
    Absent,
    /// A message can't be read.
    #[error("a message that can't be read: {0}")]
    Message(&'static str),
    /// The other process speaks another version.
    #[error("the successor speaks version {0} of the conversation, this process {PROTOCOL}")]
    Protocol(u32),
    /// The other process belongs to another user.
    #[error("refused: the other process has user id {0}")]
    User(u32),
}

/// What a predecessor gave.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Pods with their listening sockets.
    pub pods: Vec<(Announcement, Vec<Listener>)>,
    /// Certificates with keys.
    pub certificates: Vec<Svid>,
}

/// An inheritance that is not taken yet: the predecessor still accepts.
#[derive(Debug)]
pub struct Pending {
    link: SeqPacket,
    /// What was given.
    pub inheritance: Inheritance,
}

impl Pending {
    /// Tells the predecessor that we accept on everything it gave.
    ///
    /// # Errors
    /// When it is gone: then it doesn't accept any more either.
    pub async fn taken(self) -> Result<(), HandoverError> {
        send(&self.link, &to_predecessor(wire::to_predecessor::Kind::Taken(wire::Taken {})), &[]).await
    }
}

/// Asks the process that runs at `path` for everything; `None` if there is none.
///
/// # Errors
/// See [`HandoverError`]: the process that runs goes on, and nothing can be started beside it.
pub async fn take_over(path: &Path, version: &str) -> Result<Option<Pending>, HandoverError> {
    let link = match SeqPacket::connect(path) {
        Ok(link) => link,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    same_user(&link)?;
    let hello = wire::TakeOver { protocol: PROTOCOL, version: version.to_owned(), network: network() };
    send(&link, &to_predecessor(wire::to_predecessor::Kind::TakeOver(hello)), &[]).await?;
    let mut inheritance = Inheritance::default();
    loop {
        let Message { bytes, fds } = receive(&link).await?;
        let message = wire::ToSuccessor::decode(bytes.as_slice());
        match message.ok().and_then(|message| message.kind) {
            Some(wire::to_successor::Kind::Pod(pod)) => inheritance.pods.push(parse_pod(pod, fds)?),
            Some(wire::to_successor::Kind::Certificate(wire)) => match certificate(wire) {
                Ok(svid) => inheritance.certificates.push(svid),
                // It will be issued anew.
                Err(error) => tracing::warn!("a certificate of the predecessor can't be used: {error}"),
            },
            Some(wire::to_successor::Kind::Complete(_)) => return Ok(Some(Pending { link, inheritance })),
            None => return Err(HandoverError::Message("unknown kind")),
        }
    }
}

/// A successor that has taken everything.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The version of its build.
    pub version: String,
    /// Whether it shares our network namespace, and so needs our ports.
    pub shares_our_network: bool,
}

/// Waits at `listener` for a successor and gives it everything. Returns when the successor has taken it: stop
/// accepting then. A successor that fails on the way changes nothing.
pub async fn give_up_to_successor(listener: &SeqPacketListener, manager: &Manager, certificates: &CertStore) -> Taken {
    loop {
        let link = match listener.accept().await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!("handover: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match give(&link, manager, certificates).await {
            Ok(taken) => {
                tracing::info!(version = taken.version, "a successor has taken over");
                return taken;
            }
            // Somebody looked whether we are here.
            Err(HandoverError::Absent) => {}
            Err(error) => tracing::warn!("a successor has not taken over: {error}"),
        }
    }
}

/// Whether a process runs at `path` that gives itself up to a successor.
pub fn is_served(path: &Path) -> bool {
    SeqPacket::connect(path).is_ok()
}

/// Returns when nobody has been serving at `path` for a few seconds: the successor has gone and nobody took over from it.
pub async fn nobody_serves(path: &Path) {
    let mut in_vain = 0;
    while in_vain < LOOKS {
        tokio::time::sleep(LOOK).await;
        in_vain = if is_served(path) { 0 } else { in_vain + 1 };
    }
}

async fn give(link: &SeqPacket, manager: &Manager, certificates: &CertStore) -> Result<Taken, HandoverError> {
    same_user(link)?;
    let hello = match from_successor(link).await {
        Ok(wire::to_predecessor::Kind::TakeOver(hello)) => hello,
        Ok(wire::to_predecessor::Kind::Taken(_)) => return Err(HandoverError::Message("expected TakeOver")),
        Err(HandoverError::Closed) => return Err(HandoverError::Absent),
        Err(error) => return Err(error),
    };
    if hello.protocol != PROTOCOL {
        return Err(HandoverError::Protocol(hello.protocol));
    }
    for Served { pod: served, listeners } in manager.served()? {
        let Some(netns) = served.net.netns() else { continue };
        let message = pod(&served, &listeners);
        let sockets = listeners.iter().map(|(_, listener)| listener.as_fd());
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(netns.as_fd()).chain(sockets).collect();
        send(link, &to_successor(wire::to_successor::Kind::Pod(message)), &fds).await?;
        if let Ok(svid) = certificates.current(&served.identity) {
            give_certificate(link, &svid).await?;
        }
    }
    send(link, &to_successor(wire::to_successor::Kind::Complete(wire::Complete {})), &[]).await?;
    match from_successor(link).await? {
        wire::to_predecessor::Kind::Taken(_) => Ok(Taken {
            shares_our_network: hello.network.is_empty() || hello.network == network(),
            version: hello.version,
        }),
        wire::to_predecessor::Kind::TakeOver(_) => Err(HandoverError::Message("expected Taken")),
    }
}

async fn give_certificate(link: &SeqPacket, svid: &Arc<Svid>) -> Result<(), HandoverError> {
    let parts = svid.to_parts();
    let message = wire::Certificate {
        chain: parts.chain.iter().map(|certificate| certificate.to_vec()).collect(),
        key: parts.key_pkcs8.to_vec(),
    };
    send(link, &to_successor(wire::to_successor::Kind::Certificate(message)), &[]).await
}

/// Only root and our own user may have our sockets and keys. The file's mode says so too.
fn same_user(link: &SeqPacket) -> Result<(), HandoverError> {
    let (theirs, ours) = (link.peer()?.uid, nix::unistd::geteuid().as_raw());
    if theirs == ours { Ok(()) } else { Err(HandoverError::User(theirs)) }
}

/// Our own network namespace; empty if there is no telling.
fn network() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let namespace = std::fs::metadata("/proc/self/ns/net");
    namespace.map(|it| format!("{}:{}", it.dev(), it.ino())).unwrap_or_default()
}

fn to_predecessor(kind: wire::to_predecessor::Kind) -> Vec<u8> {
    wire::ToPredecessor { kind: Some(kind) }.encode_to_vec()
}

fn to_successor(kind: wire::to_successor::Kind) -> Vec<u8> {
    wire::ToSuccessor { kind: Some(kind) }.encode_to_vec()
}

async fn send(link: &SeqPacket, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
    tokio::time::timeout(PATIENCE, link.send(bytes, fds)).await.map_err(|_| HandoverError::Timeout)??;
    Ok(())
}

async fn receive(link: &SeqPacket) -> Result<Message, HandoverError> {
    let received = tokio::time::timeout(PATIENCE, link.recv(MAX_FDS)).await.map_err(|_| HandoverError::Timeout)?;
    received?.ok_or(HandoverError::Closed)
}

async fn from_successor(link: &SeqPacket) -> Result<wire::to_predecessor::Kind, HandoverError> {
    let Message { bytes, .. } = receive(link).await?;
    let message = wire::ToPredecessor::decode(bytes.as_slice());
    message.ok().and_then(|message| message.kind).ok_or(HandoverError::Message("unknown kind"))
}
