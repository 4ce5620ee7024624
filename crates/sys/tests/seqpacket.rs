//! Messages and descriptors over unix sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use weft_sys::seqpacket::{MAX_BYTES, MAX_FDS};
use weft_sys::{SeqPacket, SeqPacketListener, os_error};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// How many descriptors of this process refer to `path` (other tests run beside this one).
fn descriptors_of(path: &std::path::Path) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter(|fd| std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path)).count()
}

#[tokio::test]
async fn boundaries_and_descriptors_arrive_in_order() {
    let (a, b) = SeqPacket::pair().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"inside").unwrap();
    a.send(b"one", &[]).await.unwrap();
    a.send(b"two", &[file.as_fd(), a.as_fd()]).await.unwrap();
    assert_eq!(soon(b.recv(0)).await.unwrap().unwrap().bytes, b"one");
    let two = soon(b.recv(2)).await.unwrap().unwrap();
    assert_eq!((two.bytes.as_slice(), two.fds.len()), (b"two".as_slice(), 2));

    let flags = rustix::io::fcntl_getfd(&two.fds[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "descriptors must not leak into children");
    let mut same = std::fs::File::from(two.fds.into_iter().next().unwrap());
    let mut text = String::new();
    same.seek(SeekFrom::Start(0)).unwrap();
    same.read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside");

    drop(a);
    assert!(soon(b.recv(0)).await.unwrap().is_none(), "a closed peer is the end, not an error");
    assert_eq!(b.send(b"x", &[]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn the_largest_message_passes_and_a_larger_one_is_refused() {
    let (a, b) = SeqPacket::pair().unwrap();
    let largest = vec![7; MAX_BYTES];
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds = vec![null.as_fd(); MAX_FDS];
    let (sent, got) = tokio::join!(a.send(&largest, &fds), soon(b.recv(MAX_FDS)));
    sent.unwrap();
    let got = got.unwrap().unwrap();
    assert_eq!((got.bytes.len(), got.fds.len()), (MAX_BYTES, MAX_FDS));

    for bad in [vec![], vec![0; MAX_BYTES + 1]] {
        assert_eq!(a.send(&bad, &[]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    // A sender that doesn't keep the limit is refused by the receiver.
    rustix::io::write(&a, &vec![0; MAX_BYTES + 1]).unwrap();
    assert_eq!(soon(b.recv(0)).await.unwrap_err().kind(), ErrorKind::InvalidData);
    a.send(b"next", &[]).await.unwrap();
    assert_eq!(soon(b.recv(0)).await.unwrap().unwrap().bytes, b"next", "the socket is still good");
}

#[tokio::test]
async fn too_many_descriptors_are_refused_and_closed() {
    let (a, b) = SeqPacket::pair().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for (sent, allowed) in [(1, 0), (2, 1), (9, 1), (5, 3)] {
        a.send(b"x", &vec![file.as_fd(); sent]).await.unwrap();
        assert_eq!(soon(b.recv(allowed)).await.unwrap_err().kind(), ErrorKind::InvalidData, "{sent} of {allowed}");
    }
    assert_eq!(descriptors_of(file.path()), 1, "refused descriptors are closed");
}

#[tokio::test]
async fn send_waits_for_room() {
    let (a, b) = SeqPacket::pair().unwrap();
    let chunk = vec![1; MAX_BYTES];
    let count = 40;
    let send = async {
        for _ in 0..count {
            a.send(&chunk, &[]).await.unwrap();
        }
    };
    let receive = async {
        for _ in 0..count {
            assert_eq!(b.recv(0).await.unwrap().unwrap().bytes.len(), MAX_BYTES);
        }
    };
    soon(async { tokio::join!(send, receive) }).await;
}

#[tokio::test]
async fn a_listener_takes_over_from_a_former_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    assert_eq!(os_error(&SeqPacket::connect(&path).unwrap_err()), Some(libc::ENOENT));

    let old = SeqPacketListener::bind(&path, 0o600).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let new = SeqPacketListener::bind(&path, 0o660).unwrap();
    let client = SeqPacket::connect(&path).unwrap();
    let server = soon(new.accept()).await.unwrap();
    assert_eq!(server.peer().unwrap().pid, i32::try_from(std::process::id()).unwrap());
    client.send(b"hello", &[]).await.unwrap();
    assert_eq!(soon(server.recv(0)).await.unwrap().unwrap().bytes, b"hello");

    drop(old);
    assert!(path.exists(), "the old listener leaves the new one's file alone");
    drop(new);
    assert!(!path.exists(), "a listener removes its own file");

    std::fs::write(&path, "precious").unwrap();
    assert_eq!(SeqPacketListener::bind(&path, 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_prepared_listener_changes_nothing_until_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover");
    let old = SeqPacketListener::bind(&path, 0o600).unwrap();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();

    let given_up = SeqPacketListener::prepare(&path, 0o600).unwrap();
    assert_eq!(files(), 2);
    drop(given_up);
    assert_eq!(files(), 1, "what isn't published leaves nothing");
    let prepared = SeqPacketListener::prepare(&path, 0o600).unwrap();
    let _client = SeqPacket::connect(&path).unwrap();
    soon(old.accept()).await.expect("the old one is still in its place");

    let new = prepared.publish().unwrap();
    assert_eq!(files(), 1);
    let _client = SeqPacket::connect(&path).unwrap();
    soon(new.accept()).await.unwrap();
    drop(old);
    assert!(path.exists(), "the old listener leaves the new one's file alone");
    drop(new);
    assert_eq!(files(), 0);
}
