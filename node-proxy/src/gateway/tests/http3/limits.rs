//! What a client may cost by what it doesn't do: answers it gives up or doesn't take, silence, and handshakes it never ends.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::raw::{answer, closed, connection, get, has_status, say, slow_connection};
use super::*;

/// The way of one client's datagrams to a place and back. Nothing passes when it is dropped.
struct Way {
    at: SocketAddr,
    /// What was sent home, and how much of it was a Retry.
    seen: Arc<(AtomicU32, AtomicU32)>,
    /// What is sent home arrives.
    comes_home: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Way {
    async fn to(port: u16) -> Self {
        let (near, far) = (socket().await, socket().await);
        far.connect(at(port)).await.unwrap();
        let at = near.local_addr().unwrap();
        let (seen, comes_home) = (Arc::new((AtomicU32::new(0), AtomicU32::new(0))), Arc::new(AtomicBool::new(true)));
        let (noted, open) = (Arc::clone(&seen), Arc::clone(&comes_home));
        let task = tokio::spawn(async move {
            let (mut out, mut home) = ([0; 2048], [0; 2048]);
            let mut client = None;
            loop {
                tokio::select! {
                    got = near.recv_from(&mut out) => {
                        let Ok((length, from)) = got else { continue };
                        client = Some(from);
                        let _ = far.send(&out[..length]).await;
                    }
                    got = far.recv(&mut home) => {
                        let Ok(length) = got else { continue };
                        // RFC 9000, section 17.2.5.
                        noted.1.fetch_add(u32::from(home[0] & 0xf0 == 0xf0), Ordering::SeqCst);
                        noted.0.fetch_add(1, Ordering::SeqCst);
                        if let Some(client) = client.filter(|_| open.load(Ordering::SeqCst)) {
                            let _ = near.send_to(&home[..length], client).await;
                        }
                    }
                }
            }
        });
        Self { at, seen, comes_home, task }
    }

    fn retries(&self) -> u32 {
        self.seen.1.load(Ordering::SeqCst)
    }

    /// Waits until something was sent home.
    async fn is_answered(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.seen.0.load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < end, "no answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// A client that begins a handshake and never hears of it, as one whose address is another's.
async fn begin(world: &World) -> (Way, JoinHandle<()>) {
    let way = Way::to(world.port).await;
    way.comes_home.store(false, Ordering::SeqCst);
    let (to, trust) = (way.at, world.trust.clone());
    let attempt = tokio::spawn(async move { drop(connect_quic(to, "a.com", &trust, b"h3").await) });
    way.is_answered().await;
    (way, attempt)
}

#[test]
fn answers_that_have_begun_may_be_given_up_as_often_as_one_likes() {
    let world = world();
    on_sockets(async {
        let connection = slow_connection(&world).await;
        for _ in 0..150 {
            let (mut send, mut receive) = say(&connection, &get("/bytes?n=1000000")).await;
            send.finish().unwrap();
            receive.read_exact(&mut [0; 5]).await.unwrap();
            receive.stop(0x10c_u32.into()).unwrap();
        }
        let (mut send, mut receive) = say(&connection, &get("/bytes?n=10")).await;
        send.finish().unwrap();
        assert!(has_status(&answer(&mut receive).await.unwrap(), "200"));
    });
}

#[test]
fn an_answer_that_nobody_takes_ends_and_no_other() {
    let settings = HttpSettings { http3_stall_timeout: Duration::from_secs(1), ..HttpSettings::default() };
    let world = world_with(settings, Limits::default(), 1000);
    on_sockets(async {
        let connection = slow_connection(&world).await;
        let (mut send, mut receive) = say(&connection, &get("/bytes?n=1000000")).await;
        send.finish().unwrap();
        let reset = tokio::time::timeout(Duration::from_secs(20), receive.received_reset()).await;
        let code = reset.expect("it is waited for").unwrap();
        assert_eq!(code.map(u64::from), Some(0x10c));
        let (mut send, mut receive) = say(&connection, &get("/bytes?n=100000")).await;
        send.finish().unwrap();
        assert!(answer(&mut receive).await.unwrap().len() > 100_000, "who takes its answer gets it");
    });
}

#[test]
fn a_connection_without_requests_ends_and_one_that_waits_for_an_answer_does_not() {
    let settings = HttpSettings { http3_idle_timeout: Duration::from_secs(2), ..HttpSettings::default() };
    let world = world_with(settings, Limits::default(), 1000);
    on_sockets(async {
        let mut client = world.client().await;
        assert_eq!(client.get("https://a.com/?delay=3000").await.unwrap().status, 200);
        assert_eq!(client.get("https://a.com/").await.unwrap().status, 200, "it wasn't idle");
        closed(&client.quic, "idle", 0x100).await;
        // Nor is one waited for that never asks anything.
        closed(&connection(&world).await, "silent", 0x100).await;
    });
}

#[test]
fn who_is_gone_without_a_word_is_let_go_and_who_is_only_quiet_is_not() {
    let limits = Limits { quic_silence: Duration::from_secs(2), ..Limits::default() };
    // There is room for one.
    let world = world_with(HttpSettings::default(), limits, 1);
    on_sockets(async {
        let way = Way::to(world.port).await;
        let first = async {
            loop {
                // Refused while an attempt that was given up has the place.
                if let Ok(client) = Client::open(way.at, "a.com", &world.trust).await {
                    return client;
                }
            }
        };
        let mut client = tokio::time::timeout(Duration::from_secs(20), first).await.expect("nobody has the place");
        assert_eq!(client.get("https://a.com/").await.unwrap().status, 200);
        let next = async || connect_quic(at(world.port), "a.com", &world.trust, b"h3").await;
        // For longer than a silence is waited for.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(matches!(next().await, Err(quinn::ConnectionError::ConnectionClosed(_))), "the place is taken");
        assert_eq!(client.get("https://a.com/").await.unwrap().status, 200, "it is there");
        drop(way);
        let let_go = async { while next().await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(20), let_go).await.expect("it is waited for");
    });
}

#[test]
fn in_a_crowd_a_client_shows_where_it_is_and_who_does_not_takes_nobodys_place() {
    // So few that 64 handshakes may be under way, of which an eighth is a crowd.
    let world = world_with(HttpSettings::default(), Limits::default(), 100);
    on_sockets(async {
        // Its handshake is over for certain.
        assert_eq!(world.client().await.get("https://a.com/").await.unwrap().status, 200);
        let mut crowd = Vec::new();
        for number in 0..8 {
            crowd.push(begin(&world).await);
            assert_eq!(crowd[number].0.retries(), 0, "{number} are no crowd");
        }
        // More than one address may begin.
        for _ in 0..20 {
            crowd.push(begin(&world).await);
        }
        assert!(crowd[8..].iter().all(|(way, _)| way.retries() > 0), "it costs no more than a word");
        let way = Way::to(world.port).await;
        let mut client = Client::open(way.at, "a.com", &world.trust).await.unwrap();
        assert!(way.retries() > 0);
        assert_eq!(client.get("https://a.com/").await.unwrap().status, 200);
        crowd.iter().for_each(|(_, attempt)| attempt.abort());
    });
}
