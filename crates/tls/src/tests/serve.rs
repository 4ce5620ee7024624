//! Who waits for whom at the door, on real sockets: peers of one address after another, from 127.0.0.1 on.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::pki::*;
use crate::*;

/// Less than the silent ones have for their handshakes.
const SOON: Duration = Duration::from_secs(5);

struct World {
    address: SocketAddr,
    client: ControlClient,
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl World {
    async fn new(total: usize, per_address: usize) -> Self {
        let pki = Pki::new();
        let trust = TrustStore::new(pki.bundle());
        let (store, identity) = store_of(&trust, pki.svid(&id("controller")));
        let expected = ExpectedServer::Account { namespace: "shop".into(), service_account: "controller".into() };
        let client = ControlClient::new(ServerTrust::Bundle(trust), expected, Clock::system()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = ControlServer::for_identity(&store, &identity).unwrap();
        let accepted = incoming(listener, server, HandshakeLimits { total, per_address });
        Self { address, client, accepted }
    }

    /// A connection from 127.0.0.`from`, on which nothing is said.
    async fn silent(&self, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Whether an honest peer at 127.0.0.`from` gets in soon.
    async fn gets_in(&mut self, from: u8) -> bool {
        let tcp = self.silent(from).await;
        let honest = async {
            let (dialled, accepted) = tokio::join!(self.client.connect(tcp), self.accepted.recv());
            dialled.is_ok() && accepted.is_some_and(|(_, peer)| peer.ip() == Ipv4Addr::new(127, 0, 0, from))
        };
        timeout(SOON, honest).await.unwrap_or(false)
    }
}

/// Whether the server closes a connection soon. One that it hasn't closed by then is left alone.
async fn is_closed(tcp: &mut TcpStream, within: Duration) -> bool {
    timeout(within, tcp.read_u8()).await.is_ok_and(|read| read.is_err())
}

#[tokio::test]
async fn one_address_keeps_nobody_else_out_and_its_surplus_is_closed_at_once() {
    let mut world = World::new(8, 3).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(world.silent(1).await);
    }
    for (n, tcp) in silent.iter_mut().enumerate().skip(3) {
        assert!(is_closed(tcp, SOON).await, "{n}");
    }
    assert!(!is_closed(&mut silent[0], Duration::from_millis(100)).await, "as many as one address may have");
    assert!(world.gets_in(2).await);
    drop(silent);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.gets_in(1).await, "those that are gone count no more");
}

#[tokio::test]
async fn when_all_is_taken_the_address_with_most_makes_room_by_its_oldest() {
    let mut world = World::new(4, 3).await;
    let mut silent = Vec::new();
    for from in [1, 2, 2, 2] {
        silent.push(world.silent(from).await);
    }
    assert!(world.gets_in(3).await);
    for (n, closed) in [(0, false), (1, true), (2, false), (3, false)] {
        assert_eq!(is_closed(&mut silent[n], Duration::from_millis(200)).await, closed, "{n}");
    }
}

#[tokio::test]
async fn when_all_is_taken_evenly_the_next_waits_for_its_turn() {
    let mut world = World::new(2, 2).await;
    let mut silent = Vec::new();
    for from in [1, 2] {
        silent.push(world.silent(from).await);
    }
    let first = silent.remove(0);
    let leave = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(first);
    };
    let (got_in, ()) = tokio::join!(world.gets_in(3), leave);
    assert!(got_in);
    assert!(!is_closed(&mut silent[0], Duration::from_millis(100)).await, "it cost nobody a place");
}
