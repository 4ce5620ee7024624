//! A DNS client for the addresses of hosts: bounded, over UDP with TCP for what doesn't fit (RFC 1035, 7766).
//!
//! The message codec is hickory's. Names are asked for as they are: no search domains.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often all servers are asked in turn.
const ROUNDS: usize = 2;
/// Largest UDP answer that is asked for (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;
/// Most addresses of a host that are used, of each family.
const MOST_ADDRESSES: usize = 32;

/// The addresses of a host, and for how long they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Both families.
    pub(crate) addresses: Vec<IpAddr>,
    /// The lowest of all records that led there, as it came.
    pub(crate) ttl: Duration,
}

/// Why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There is no such host, or it has no addresses, says who knows.
    NoSuchHost,
    /// Nobody could say.
    Unanswered(String),
}

/// A client of some servers, which are asked in this order.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    servers: Vec<SocketAddr>,
}

impl Dns {
    #[cfg(test)]
    pub(crate) const fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// The servers that a `resolv.conf` names; one on this machine if it names none, as resolv.conf(5) has it.
    pub(crate) fn of_resolv_conf(text: &str) -> Self {
        let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
        let mut servers: Vec<_> = text.lines().filter_map(server).map(|ip| SocketAddr::new(ip, 53)).collect();
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        Self { servers }
    }

    /// The addresses of a host, of both families.
    pub(crate) async fn resolve(&self, host: &str) -> Result<Answer, Failure> {
        let (v4, v6) = tokio::join!(self.ask(host, RecordType::A), self.ask(host, RecordType::AAAA));
        merge(v4, v6)
    }

    async fn ask(&self, host: &str, kind: RecordType) -> Result<Answer, Failure> {
        let name = Name::from_ascii(format!("{host}.")).map_err(|error| Failure::Unanswered(error.to_string()))?;
        let mut last = "no server is known".to_owned();
        for server in std::iter::repeat_n(&self.servers, ROUNDS).flatten() {
            match timeout(PATIENCE, exchange(*server, &name, kind)).await {
                Ok(Ok(reply)) => match read(&reply, kind) {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::NoSuchHost) => return Err(Failure::NoSuchHost),
                    Err(Failure::Unanswered(why)) => last = format!("{server}: {why}"),
                },
                Ok(Err(error)) => last = format!("{server}: {error}"),
                Err(_elapsed) => last = format!("{server}: no answer within {} s", PATIENCE.as_secs()),
            }
        }
        Err(Failure::Unanswered(last))
    }
}

/// What both families come to: one that nobody could tell of costs the other nothing.
fn merge(v4: Result<Answer, Failure>, v6: Result<Answer, Failure>) -> Result<Answer, Failure> {
    match (v4, v6) {
        (Ok(v4), Ok(v6)) => {
            let addresses = v4.addresses.into_iter().chain(v6.addresses).collect();
            Ok(Answer { addresses, ttl: v4.ttl.min(v6.ttl) })
        }
        (Ok(answer), Err(_)) | (Err(_), Ok(answer)) => Ok(answer),
        (Err(Failure::Unanswered(why)), _) | (_, Err(Failure::Unanswered(why))) => Err(Failure::Unanswered(why)),
        (Err(Failure::NoSuchHost), Err(Failure::NoSuchHost)) => Err(Failure::NoSuchHost),
    }
}

async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut query = Message::query();
    query.metadata.id = fastrand::u16(..);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    query.edns = Some(edns);
    let bytes = query.to_vec().map_err(io::Error::other)?;
    let reply = over_udp(server, &bytes, &query).await?;
    if reply.metadata.truncation { over_tcp(server, &bytes, &query).await } else { Ok(reply) }
}

async fn over_udp(server: SocketAddr, bytes: &[u8], query: &Message) -> io::Result<Message> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    // A socket of its own, connected: a fresh random port, and answers from nobody else.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What isn't the answer is somebody's guess: the answer may still come.
        if let Some(reply) = answers(buffer.get(..length).unwrap_or_default(), query) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, bytes: &[u8], query: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(bytes.len()).map_err(io::Error::other)?).await?;
    stream.write_all(bytes).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    answers(&reply, query).ok_or_else(|| io::Error::other("not an answer to what was asked"))
}

/// A reply to this very query.
fn answers(bytes: &[u8], query: &Message) -> Option<Message> {
    let reply = Message::from_vec(bytes).ok()?;
    let is_reply = reply.metadata.message_type == MessageType::Response && reply.metadata.id == query.metadata.id;
    let same = |(asked, told): (&Query, &Query)| {
        asked.name() == told.name() && asked.query_type() == told.query_type() && told.query_class() == DNSClass::IN
    };
    let is_of_query = reply.queries.len() == 1 && query.queries.iter().zip(&reply.queries).all(same);
    (is_reply && is_of_query).then_some(reply)
}

/// The addresses in a reply. A resolver that is asked to recurse gives the whole chain of aliases with them.
fn read(reply: &Message, kind: RecordType) -> Result<Answer, Failure> {
    match reply.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Err(Failure::NoSuchHost),
        other => return Err(Failure::Unanswered(format!("answered {other}"))),
    }
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    for record in &reply.answers {
        let address = match &record.data {
            RData::A(a) if kind == RecordType::A => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) if kind == RecordType::AAAA => Some(IpAddr::V6(aaaa.0)),
            RData::CNAME(_) => None,
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    addresses.truncate(MOST_ADDRESSES);
    if addresses.is_empty() {
        return Err(Failure::NoSuchHost);
    }
    Ok(Answer { addresses, ttl: Duration::from_secs(u64::from(ttl)) })
}

/// The IPv4 addresses in a reply, if it is one to the query with this id for those of a host.
pub(super) fn addresses_in(reply: &[u8], host: &str, id: u16) -> Option<Vec<IpAddr>> {
    let mut query = Message::query();
    query.metadata.id = id;
    query.add_query(Query::query(Name::from_ascii(host).ok()?, RecordType::A));
    read(&answers(reply, &query)?, RecordType::A).ok().map(|answer| answer.addresses)
}

#[cfg(test)]
#[path = "tests/dns.rs"]
pub(super) mod tests;
