//! DNS for the pods of a standalone mesh: cluster names from the snapshot, everything else forwarded as it came.
//!
//! The message codec is hickory's; the socket loops are ours, because a query that is not for the cluster is passed
//! on byte for byte, whatever its type.

mod answer;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use weft_core::snapshot::Snapshot;

pub use self::answer::{Answer, Target, Wanted, answer};

/// Life of an answer, seconds: short, as endpoints of headless Services move.
const TTL: u32 = 5;
/// Queries under way at once; more are dropped, and their clients ask again.
const MAX_QUERIES: usize = 1024;
/// How long one upstream resolver is waited for.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a TCP client may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Largest UDP answer we send, whatever the client says it takes (DNS flag day 2020).
const MAX_UDP_ANSWER: usize = 1232;

/// Gives the latest snapshot.
pub type Current = Box<dyn Fn() -> Arc<Snapshot> + Send + Sync>;

/// The resolver.
pub struct Resolver {
    snapshot: Current,
    upstreams: Vec<SocketAddr>,
    slots: Arc<Semaphore>,
}

impl Resolver {
    /// A resolver that reads cluster names from `snapshot` and forwards the rest to `upstreams`, in this order.
    pub fn new(snapshot: Current, upstreams: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self { snapshot, upstreams, slots: Arc::new(Semaphore::new(MAX_QUERIES)) })
    }

    /// Answers on a UDP socket until it fails.
    ///
    /// # Errors
    /// The socket's.
    pub async fn serve_udp(self: Arc<Self>, socket: UdpSocket) -> std::io::Result<()> {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await?;
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { continue };
            let query = buffer.get(..length).unwrap_or_default().to_vec();
            let (resolver, socket) = (Arc::clone(&self), Arc::clone(&socket));
            tokio::spawn(async move {
                let _slot = slot;
                if let Some(reply) = resolver.reply(&query, Transport::Udp).await {
                    // A client that went away needs no answer.
                    let _ = socket.send_to(&reply, client).await;
                }
            });
        }
    }

    /// Answers on a TCP listener until it fails.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else { continue };
            let resolver = Arc::clone(&self);
            tokio::spawn(async move {
                let _slot = slot;
                // A broken client ends its own connection only.
                let _ = resolver.converse(stream).await;
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
            let mut query = vec![0; usize::from(length)];
            tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
            let Some(reply) = self.reply(&query, Transport::Tcp).await else { return Ok(()) };
            let Ok(length) = u16::try_from(reply.len()) else { return Ok(()) };
            stream.write_u16(length).await?;
            stream.write_all(&reply).await?;
        }
    }

    /// The reply to a query; none for what isn't even a query.
    async fn reply(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(bytes).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.queries.clone_from(&query.queries);
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(u16::try_from(MAX_UDP_ANSWER).unwrap_or(u16::MAX));
            reply.edns = Some(edns);
        }
        match (query.metadata.op_code, query.queries.as_slice()) {
            (OpCode::Query, [question]) if question.query_class() == DNSClass::IN => {
                let found = answer(&(self.snapshot)(), &plain(question), wanted(question.query_type()));
                if found == Answer::NotOurs {
                    return Some(self.forward(bytes, transport).await.unwrap_or_else(|| failure(&query)));
                }
                fill(&mut reply, question, found);
            }
            (OpCode::Query, [_]) => reply.metadata.response_code = ResponseCode::Refused,
            (OpCode::Query, _) => reply.metadata.response_code = ResponseCode::FormErr,
            _ => reply.metadata.response_code = ResponseCode::NotImp,
        }
        let encoded = reply.to_vec().ok()?;
        let limit = usize::from(query.max_payload()).clamp(512, MAX_UDP_ANSWER);
        if transport == Transport::Udp && encoded.len() > limit {
            return reply.truncate().to_vec().ok();
        }
        Some(encoded)
    }

    /// Asks the upstream resolvers in turn.
    async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        for upstream in &self.upstreams {
            let exchange = async {
                match transport {
                    Transport::Udp => forward_udp(*upstream, query).await,
                    Transport::Tcp => forward_tcp(*upstream, query).await,
                }
            };
            if let Ok(Ok(reply)) = tokio::time::timeout(UPSTREAM_TIMEOUT, exchange).await {
                return Some(reply);
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// The resolvers that a `resolv.conf` names.
pub fn upstreams_of(resolv_conf: &str) -> Vec<SocketAddr> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    resolv_conf.lines().filter_map(server).map(|ip| SocketAddr::new(ip, 53)).collect()
}

async fn forward_udp(upstream: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    // A socket of its own, connected: a fresh random port, and answers from nobody else.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let reply = buffer.get(..length).unwrap_or_default();
        if reply.get(..2) == query.get(..2) {
            return Ok(reply.to_vec());
        }
    }
}

async fn forward_tcp(upstream: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.write_u16(u16::try_from(query.len()).map_err(std::io::Error::other)?).await?;
    stream.write_all(query).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

fn failure(query: &Message) -> Vec<u8> {
    let mut reply = Message::error_msg(query.metadata.id, query.metadata.op_code, ResponseCode::ServFail);
    reply.queries.clone_from(&query.queries);
    // An empty error always encodes; nothing at all makes the client ask again.
    reply.to_vec().unwrap_or_default()
}

fn plain(question: &Query) -> String {
    question.name().to_ascii().trim_end_matches('.').to_owned()
}

fn wanted(record: RecordType) -> Wanted {
    match record {
        RecordType::A => Wanted::Ipv4,
        RecordType::AAAA => Wanted::Ipv6,
        RecordType::SRV => Wanted::Service,
        _ => Wanted::Other,
    }
}

fn fill(reply: &mut Message, question: &Query, found: Answer) {
    reply.metadata.authoritative = true;
    let mut add = |data| {
        reply.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
    };
    match found {
        Answer::NoSuchName => reply.metadata.response_code = ResponseCode::NXDomain,
        Answer::Addresses(addresses) => addresses.into_iter().for_each(|ip| match ip {
            IpAddr::V4(ip) => add(RData::A(A(ip))),
            IpAddr::V6(ip) => add(RData::AAAA(AAAA(ip))),
        }),
        Answer::Alias(target) => {
            if let Ok(target) = Name::from_ascii(format!("{target}.")) {
                add(RData::CNAME(CNAME(target)));
            }
        }
        Answer::Services(targets) => {
            for target in targets {
                if let Ok(host) = Name::from_ascii(format!("{}.", target.host)) {
                    add(RData::SRV(SRV::new(0, 100, target.port.get(), host)));
                }
            }
        }
        // Forwarded before it comes to this.
        Answer::NotOurs => reply.metadata.response_code = ResponseCode::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.metadata.id = 4711;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let query = query.to_vec().unwrap();
        let reply = tokio::time::timeout(Duration::from_secs(10), forward_udp(server, &query)).await;
        Message::from_vec(&reply.unwrap().unwrap()).unwrap()
    }

    async fn resolver(upstreams: Vec<SocketAddr>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(Resolver::new(Box::new(Arc::<Snapshot>::default), upstreams).serve_udp(socket));
        address
    }

    #[tokio::test]
    async fn an_unknown_cluster_name_is_nxdomain_and_garbage_is_no_query() {
        let server = resolver(Vec::new()).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"\xff\x00garbage", server).await.unwrap();
        let reply = ask(server, "cart.shop.svc.cluster.local.", RecordType::A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert!(reply.metadata.authoritative);
    }

    #[tokio::test]
    async fn other_names_are_forwarded_and_fail_when_nobody_answers() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // The upstream knows no example.com either, but its refusal is passed on as it came.
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, client) = upstream.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut reply = Message::response(query.metadata.id, OpCode::Query);
            reply.queries = query.queries;
            reply.metadata.response_code = ResponseCode::NotAuth;
            upstream.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        });
        let reply = ask(resolver(vec![closed, address]).await, "example.com.", RecordType::TXT).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NotAuth);
        let reply = ask(resolver(vec![closed]).await, "example.com.", RecordType::A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn resolvers_are_read_from_resolv_conf() {
        let text = "search x\nnameserver 192.0.2.1\n# nameserver 192.0.2.9\nnameserver 2001:db8::1\nnameserver bad\n";
        let expected: Vec<SocketAddr> = vec!["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(upstreams_of(text), expected);
    }
}
