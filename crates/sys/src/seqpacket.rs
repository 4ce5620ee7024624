//! Messages with file descriptors over `SOCK_SEQPACKET` unix sockets (`unix(7)`).
//!
//! Boundaries are kept by the kernel, so one prost message is one packet and there is no framing to get wrong. A packet
//! that doesn't fit the receiver's limits is refused whole: its descriptors are closed, never half used.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::unix::AsyncFd;

use crate::ErrorContext;

/// The most bytes of one message. Below the default socket buffer (208 KiB), so that a send never fails for its size.
pub const MAX_BYTES: usize = 128 * 1024;
/// The most descriptors of one message (`SCM_MAX_FD` of the kernel).
pub const MAX_FDS: usize = 253;
/// Connections that may wait for [`SeqPacketListener::accept`].
const BACKLOG: i32 = 64;

/// One packet: bytes and the descriptors that came with it.
#[derive(Debug, Default)]
pub struct Message {
    /// The payload, never empty.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order they were sent, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// A connected socket. Both directions take `&self`: one task may send while another receives.
#[derive(Debug)]
pub struct SeqPacket {
    fd: AsyncFd<OwnedFd>,
}

/// Who is at the other end, as the kernel recorded it when the connection was made (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id in our pid namespace; 0 when the peer is not visible from it.
    pub pid: i32,
    /// Effective user id in our user namespace.
    pub uid: u32,
}

fn seqpacket_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Hands a descriptor to tokio's reactor.
#[allow(unsafe_code)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(io::Error::other("a unix socket needs a tokio runtime"));
    }
    // SAFETY: `register` asks that the value always answers with the same open descriptor while it is registered.
    // An `OwnedFd` does: it owns the descriptor, closes it only on drop, and `AsyncFd` deregisters before it drops it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

impl SeqPacket {
    /// Connects to the listener at `path`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When nobody listens there (`NotFound`, `ConnectionRefused`) or its backlog is full (`WouldBlock`).
    pub fn connect(path: &Path) -> io::Result<Self> {
        let connected = seqpacket_socket().and_then(|fd| {
            net::connect(&fd, &SocketAddrUnix::new(path)?)?;
            Self::from_fd(fd)
        });
        connected.context(|| format!("connect to {}", path.display()))
    }

    /// Two connected ends. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::from_fd(a)?, Self::from_fd(b)?))
    }

    /// Wraps a connected `SOCK_SEQPACKET` socket, for example an inherited one; makes it non-blocking.
    ///
    /// # Errors
    /// When the descriptor can't be polled.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: register(fd)? })
    }

    /// Sends one message; waits for room. Cancel-safe: either the whole message was queued or nothing.
    ///
    /// # Errors
    /// `InvalidInput` for an empty message or one above [`MAX_BYTES`] or [`MAX_FDS`]; `BrokenPipe` when the peer is gone.
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MAX_BYTES || fds.len() > MAX_FDS {
            let what = format!("message of {} bytes and {} descriptors is outside the limits", bytes.len(), fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        loop {
            let mut ready = self.fd.writable().await?;
            match ready.try_io(|fd| send_now(fd.get_ref(), bytes, fds)) {
                Ok(sent) => return sent.context(|| "send on a unix socket"),
                Err(_would_block) => {}
            }
        }
    }

    /// Receives one message with at most `max_fds` descriptors; `None` when the peer closed. Cancel-safe.
    ///
    /// # Errors
    /// `InvalidData` for a message above [`MAX_BYTES`], `max_fds` or [`MAX_FDS`]; its descriptors are closed.
    pub async fn recv(&self, max_fds: usize) -> io::Result<Option<Message>> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| recv_now(fd.get_ref(), max_fds)) {
                Ok(received) => return received.context(|| "receive on a unix socket"),
                Err(_would_block) => {}
            }
        }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// When the kernel doesn't say.
    pub fn peer(&self) -> io::Result<PeerCred> {
        let cred = getsockopt(self.fd.get_ref(), PeerCredentials).context(|| "SO_PEERCRED")?;
        Ok(PeerCred { pid: cred.pid(), uid: cred.uid() })
    }
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

fn send_now(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptors don't fit their buffer"));
    }
    let sent = net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent != bytes.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "the kernel cut a packet"));
    }
    Ok(())
}

fn recv_now(socket: &OwnedFd, max_fds: usize) -> io::Result<Option<Message>> {
    let max_fds = max_fds.min(MAX_FDS);
    let mut bytes = vec![0; MAX_BYTES];
    // Room for one more than allowed, so that "too many" is seen even if the kernel pads.
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(max_fds.saturating_add(1)))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || fds.len() > max_fds {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message above the limits; refused"));
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(got.bytes);
    bytes.shrink_to_fit();
    Ok(Some(Message { bytes, fds }))
}

/// A listening socket in the file system; the file is removed on drop.
#[derive(Debug)]
pub struct SeqPacketListener {
    fd: AsyncFd<OwnedFd>,
    path: PathBuf,
    /// Device and inode of our socket file: a successor may have put its own in its place.
    file: (u64, u64),
}

impl SeqPacketListener {
    /// Listens at `path` with file mode `mode`, in place of a socket that a former process left there. Needs a tokio
    /// runtime.
    ///
    /// The socket is made under a temporary name and renamed, so that at every moment a client finds either the old
    /// listener or the new one, with its final mode.
    ///
    /// # Errors
    /// `AlreadyExists` when there is something that isn't a socket at `path`; otherwise what the kernel says.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        Self::prepare(path, mode)?.publish()
    }

    /// All of [`Self::bind`] that needs room in the file system: nobody finds the socket before it is published.
    ///
    /// # Errors
    /// See [`Self::bind`].
    pub fn prepare(path: &Path, mode: u32) -> io::Result<PreparedListener> {
        Self::prepare_inner(path, mode).context(|| format!("listen on {}", path.display()))
    }

    fn prepare_inner(path: &Path, mode: u32) -> io::Result<PreparedListener> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
            }
            _ => {}
        }
        // Not by the process id alone: processes in two containers may have the same.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}-{:x}", std::process::id(), random()));
        let temporary = PathBuf::from(temporary);
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let fd = seqpacket_socket()?;
        net::bind(&fd, &SocketAddrUnix::new(&temporary)?)?;
        let prepared = PreparedListener { fd: Some(fd), temporary, path: path.to_owned() };
        std::fs::set_permissions(&prepared.temporary, std::fs::Permissions::from_mode(mode))?;
        prepared.fd.iter().try_for_each(|fd| net::listen(fd, BACKLOG))?;
        Ok(prepared)
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// When the process is out of descriptors or memory: wait, then call again.
    pub async fn accept(&self) -> io::Result<SeqPacket> {
        loop {
            let mut ready = self.fd.readable().await?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match ready.try_io(|fd| Ok(net::accept_with(fd.get_ref(), flags)?)) {
                Ok(accepted) => return SeqPacket::from_fd(accepted.context(|| "accept on a unix socket")?),
                Err(_would_block) => {}
            }
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SeqPacketListener {
    fn drop(&mut self) {
        if file_id(&self.path).ok() == Some(self.file) {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}

/// A listener under a temporary name, which goes with the value unless it is published.
#[derive(Debug)]
#[must_use = "nobody finds it before it is published"]
pub struct PreparedListener {
    /// None once it is published.
    fd: Option<OwnedFd>,
    temporary: PathBuf,
    path: PathBuf,
}

impl PreparedListener {
    /// Puts the socket in its place, where a former one may be. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says; a former socket is still in its place then.
    pub fn publish(mut self) -> io::Result<SeqPacketListener> {
        let placed = self.place();
        placed.context(|| format!("listen on {}", self.path.display()))
    }

    fn place(&mut self) -> io::Result<SeqPacketListener> {
        let Some(fd) = self.fd.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        let file = file_id(&self.temporary)?;
        let fd = register(fd)?;
        std::fs::rename(&self.temporary, &self.path)?;
        Ok(SeqPacketListener { fd, path: self.path.clone(), file })
    }
}

impl Drop for PreparedListener {
    fn drop(&mut self) {
        // Gone if it was published.
        let _gone_already = std::fs::remove_file(&self.temporary);
    }
}

/// A number that another process doesn't have.
fn random() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    (RandomState::new().hash_one(0) & 0xffff) as u16
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::lstat(path)?;
    Ok((stat.st_dev, stat.st_ino))
}
