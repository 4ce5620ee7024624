use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use tokio::net::TcpListener;

use super::*;

/// What a server says to a question; `None`: nothing at all.
type Script = dyn Fn(&Message, bool) -> Option<Message> + Send + Sync;

/// A server on loopback, over UDP and TCP.
pub(in crate::external) async fn server(script: Arc<Script>) -> SocketAddr {
    // A port that is free for one may be taken for the other.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let of_tcp = Arc::clone(&script);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, from)) = udp.recv_from(&mut buffer).await else { return };
            if let Some(reply) = script(&Message::from_vec(&buffer[..length]).unwrap(), false) {
                udp.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = tcp.accept().await else { return };
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            if let Some(reply) = of_tcp(&Message::from_vec(&query).unwrap(), true) {
                let bytes = reply.to_vec().unwrap();
                stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    address
}

fn reply(query: &Message, answers: Vec<Record>) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.queries.clone_from(&query.queries);
    reply.answers = answers;
    reply
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// A server that knows these addresses for every name; an alias leads to them.
pub(in crate::external) fn knows(addresses: &[&str], ttl: u32) -> Arc<Script> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Arc::new(move |query, _| {
        let asked = &query.queries[0];
        let mut answers =
            vec![Record::from_rdata(asked.name().clone(), ttl, RData::CNAME(CNAME(name("real.example.com."))))];
        answers.extend(addresses.iter().filter_map(|ip| match (ip, asked.query_type()) {
            (IpAddr::V4(v4), RecordType::A) => {
                Some(Record::from_rdata(name("real.example.com."), 600, RData::A(A(*v4))))
            }
            (IpAddr::V6(v6), RecordType::AAAA) => {
                Some(Record::from_rdata(name("real.example.com."), 600, RData::AAAA(AAAA(*v6))))
            }
            _ => None,
        }));
        Some(reply(query, answers))
    })
}

pub(in crate::external) fn says(code: ResponseCode) -> Arc<Script> {
    Arc::new(move |query, _| {
        let mut reply = reply(query, Vec::new());
        reply.metadata.response_code = code;
        Some(reply)
    })
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[tokio::test]
async fn both_families_are_found_behind_aliases_for_the_shortest_time() {
    let dns = Dns::new(vec![server(knows(&["192.0.2.1", "192.0.2.2", "2001:db8::1"], 60)).await]);
    let found = dns.resolve("api.example.com").await.unwrap();
    assert_eq!(found.addresses, ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
    assert_eq!(found.ttl, Duration::from_secs(60), "the alias changes before the addresses do");
}

#[tokio::test]
async fn a_host_with_one_family_is_a_host_and_one_without_is_none() {
    let dns = Dns::new(vec![server(knows(&["192.0.2.1"], 60)).await]);
    assert_eq!(dns.resolve("api.example.com").await.unwrap().addresses, ips(&["192.0.2.1"]));
    for script in [knows(&[], 60), says(ResponseCode::NXDomain)] {
        let dns = Dns::new(vec![server(script).await]);
        assert_eq!(dns.resolve("api.example.com").await, Err(Failure::NoSuchHost));
    }
}

#[tokio::test]
async fn a_server_that_cannot_say_is_passed_over() {
    let failing = server(says(ResponseCode::ServFail)).await;
    let dns = Dns::new(vec![failing, server(knows(&["192.0.2.1"], 60)).await]);
    assert_eq!(dns.resolve("api.example.com").await.unwrap().addresses, ips(&["192.0.2.1"]));
    let Err(Failure::Unanswered(why)) = Dns::new(vec![failing]).resolve("api.example.com").await else { panic!() };
    assert!(why.contains(&failing.to_string()), "{why}");
    assert!(matches!(Dns::new(Vec::new()).resolve("a.com").await, Err(Failure::Unanswered(_))));
}

#[tokio::test]
async fn what_does_not_fit_is_asked_for_over_tcp() {
    let whole = knows(&["192.0.2.1", "192.0.2.2"], 60);
    let script = move |query: &Message, tcp: bool| {
        let mut reply = whole(query, tcp)?;
        if !tcp {
            reply.answers.truncate(2);
            reply.metadata.truncation = true;
        }
        Some(reply)
    };
    let dns = Dns::new(vec![server(Arc::new(script)).await]);
    assert_eq!(dns.resolve("api.example.com").await.unwrap().addresses, ips(&["192.0.2.1", "192.0.2.2"]));
}

/// Somebody who doesn't see the question can only guess.
#[tokio::test]
async fn an_answer_to_something_else_is_none() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let script = move |query: &Message, _: bool| {
        let mut reply = knows(&["192.0.2.66"], 60)(query, false)?;
        match count.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => reply.metadata.id = reply.metadata.id.wrapping_add(1),
            _ => reply.queries = vec![Query::query(name("other.example.com."), query.queries[0].query_type())],
        }
        Some(reply)
    };
    let server = server(Arc::new(script)).await;
    let (record, host) = (RecordType::A, name("api.example.com."));
    for _ in 0..2 {
        let waited = timeout(Duration::from_millis(300), exchange(server, &host, record)).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn servers_are_those_of_the_machine() {
    let servers = |text: &str| Dns::of_resolv_conf(text).servers;
    let text = "search a.b\nnameserver 10.96.0.10\nnameserver fd00::a\nnameserver odd\noptions ndots:5\n";
    assert_eq!(servers(text), ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
    assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
}
