//! Namespaces and sockets in them, with real packets on loopback devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use support::{sh, with_namespaces};
use weft_sys::sock::{self, Connect, Keepalive, Listen};
use weft_sys::{Netns, SeqPacket, os_error};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time") })
}

fn netns_with_lo() -> Netns {
    let netns = Netns::create().unwrap();
    netns.run(|| sh("ip link set lo up")).unwrap();
    netns
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn run_enters_and_comes_back_also_from_a_panic() {
    with_namespaces("run_enters_and_comes_back_also_from_a_panic", || {
        let home = Netns::current().unwrap();
        let pod = Netns::create().unwrap();
        let other = Netns::create().unwrap();
        assert_ne!(home, pod);
        assert_ne!(pod, other);

        let inside = pod.run(|| (Netns::current().unwrap(), other.run(|| Netns::current().unwrap()).unwrap()));
        assert_eq!(inside.unwrap(), (pod.clone(), other.clone()));
        assert_eq!(Netns::current().unwrap(), home);

        let panicked = std::panic::catch_unwind(|| pod.run(|| panic!("inside {:?}", Netns::current().unwrap())));
        assert!(panicked.is_err());
        assert_eq!(Netns::current().unwrap(), home, "a panic must not leave the thread in the pod");
    });
}

#[test]
fn only_namespaces_are_taken() {
    with_namespaces("only_namespaces_are_taken", || {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Netns::from_fd(file.into()).unwrap_err().kind(), ErrorKind::InvalidInput);

        let missing = Netns::open("/nonexistent/netns".as_ref()).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert_eq!(os_error(&missing), Some(libc::ENOENT));
        assert!(missing.to_string().contains("/nonexistent/netns"), "{missing}");

        // A namespace, but not one of networks: the kernel refuses the entry and nothing runs.
        let uts = Netns::open("/proc/self/ns/uts".as_ref()).unwrap();
        assert!(uts.run(|| panic!("must not run")).is_err());
    });
}

#[test]
fn a_descriptor_that_travelled_is_the_same_namespace() {
    with_namespaces("a_descriptor_that_travelled_is_the_same_namespace", || {
        let pod = netns_with_lo();
        block_on(async {
            let (a, b) = SeqPacket::pair().unwrap();
            a.send(b"here", &[pod.as_fd()]).await.unwrap();
            let got = b.recv(1).await.unwrap().unwrap();
            assert_eq!(got.bytes, b"here");
            let received = Netns::from_fd(got.fds.into_iter().next().unwrap()).unwrap();
            assert_eq!(received, pod);
            assert_eq!(received.id().to_string(), pod.id().to_string());
        });
    });
}

#[test]
fn sockets_live_in_their_namespace_v4_and_v6() {
    with_namespaces("sockets_live_in_their_namespace_v4_and_v6", || {
        let pod = netns_with_lo();
        let any_v6 = sock::listen(Some(&pod), &Listen::new(addr("[::]:0"))).unwrap();
        let port = any_v6.local_addr().unwrap().port();
        // IPv6 listeners take IPv6 only, so the same port is free for IPv4.
        let mut v4 = Listen::new(SocketAddr::new([0, 0, 0, 0].into(), port));
        v4.mark = Some(0x574);
        v4.transparent = true;
        let any_v4 = sock::listen(Some(&pod), &v4).unwrap();
        assert_eq!(sock::mark(&any_v4).unwrap(), 0x574);

        for (listener, host) in [(any_v4, "127.0.0.1"), (any_v6, "::1")] {
            let to = SocketAddr::new(host.parse().unwrap(), port);
            assert!(std::net::TcpStream::connect(to).is_err(), "the listener is not in our own namespace");
            let options = Connect { mark: Some(0x574), ..Connect::default() };
            block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let stream = sock::connect(Some(&pod), &options, to).await.unwrap();
                assert_eq!(sock::mark(&stream).unwrap(), 0x574);
                assert!(stream.nodelay().unwrap());
                let (accepted, from) = listener.accept().await.unwrap();
                assert_eq!(from, stream.local_addr().unwrap());
                assert_eq!(accepted.local_addr().unwrap(), to);
            });
        }
    });
}

#[test]
fn original_destination_of_a_redirected_connection() {
    with_namespaces("original_destination_of_a_redirected_connection", || {
        let pod = netns_with_lo();
        pod.run(|| {
            sh("ip address add 10.0.0.1/32 dev lo; ip address add fd00::1/128 dev lo nodad
                nft 'table inet t { chain c { type nat hook output priority -100; tcp dport 80 redirect to :15001; }; }'")
        })
        .unwrap();
        for (bind, dial) in [("0.0.0.0:15001", "10.0.0.1:80"), ("[::]:15001", "[fd00::1]:80")] {
            let listener = sock::listen(Some(&pod), &Listen::new(addr(bind))).unwrap();
            block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let _stream = sock::connect(Some(&pod), &Connect::default(), addr(dial)).await.unwrap();
                let (accepted, _) = listener.accept().await.unwrap();
                assert_eq!(sock::original_dst(&accepted).unwrap(), addr(dial));
            });
        }
    });
}

#[test]
fn a_borrowed_source_needs_transparent_and_shares_ports() {
    with_namespaces("a_borrowed_source_needs_transparent_and_shares_ports", || {
        let pod = netns_with_lo();
        for (to, source) in [("127.0.0.1:80", "192.0.2.7:0"), ("[::1]:80", "[2001:db8::7]:0")] {
            let mut options = Connect { source: Some(addr(source)), ..Connect::default() };
            let refused = sock::prepare(Some(&pod), &options, addr(to)).unwrap_err();
            assert_eq!(os_error(&refused), Some(libc::EADDRNOTAVAIL), "{refused}");
            options.transparent = true;
            let socket = sock::prepare(Some(&pod), &options, addr(to)).unwrap();
            let bound = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(bound.ip(), addr(source).ip());
            assert_eq!(bound.port(), 0, "the port is chosen at connect, for the whole tuple");
        }
        let mixed = Connect { source: Some(addr("[::1]:0")), ..Connect::default() };
        let refused = sock::prepare(Some(&pod), &mixed, addr("127.0.0.1:80")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_namespace_without_ipv6_is_told_apart() {
    with_namespaces("a_namespace_without_ipv6_is_told_apart", || {
        let pod = netns_with_lo();
        pod.run(|| sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")).unwrap();
        let missing = sock::listen(Some(&pod), &Listen::new(addr("[::1]:0"))).unwrap_err();
        assert!(sock::is_family_missing(&missing), "{missing}");

        let taken = sock::listen(Some(&pod), &Listen::new(addr("127.0.0.1:0"))).unwrap();
        let again = sock::listen(Some(&pod), &Listen::new(taken.local_addr().unwrap())).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
        assert!(!sock::is_family_missing(&again));
    });
}

#[test]
fn keepalive_and_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let keepalive = Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), retries: 3 };
    sock::set_keepalive(&server, Some(keepalive)).unwrap();
    let seen = socket2::SockRef::from(&server);
    assert!(seen.keepalive().unwrap());
    assert_eq!(seen.tcp_keepalive_time().unwrap(), keepalive.idle);
    assert_eq!(seen.tcp_keepalive_interval().unwrap(), keepalive.interval);
    assert_eq!(seen.tcp_keepalive_retries().unwrap(), keepalive.retries);
    sock::set_keepalive(&server, None).unwrap();
    assert!(!seen.keepalive().unwrap());

    client.write_all(b"x").unwrap();
    sock::reset_on_close(&server).unwrap();
    drop(server);
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
