//! Ethernet, IP, TCP, UDP and TLS records, as far as a test needs them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The content type of a TLS record (RFC 8446 section 5.1). In TLS 1.3 everything encrypted is `ApplicationData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordType {
    /// 20
    ChangeCipherSpec,
    /// 21
    Alert,
    /// 22
    Handshake,
    /// 23
    ApplicationData,
}

/// One direction of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Flow {
    transport: Transport,
    from: SocketAddr,
    to: SocketAddr,
    packets: usize,
    opened: bool,
    bytes: Vec<u8>,
}

/// What one packet says.
#[derive(Debug, PartialEq, Eq)]
struct Segment<'a> {
    transport: Transport,
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    syn: bool,
    ack: bool,
    payload: &'a [u8],
}

/// A flow whose payload isn't in order yet.
struct Pieces<'a> {
    flow: Flow,
    /// The first sequence number.
    start: u32,
    /// Payloads by their distance from it.
    pieces: BTreeMap<u32, &'a [u8]>,
}

impl Flow {
    /// TCP or UDP.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The sender.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// The receiver.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Whether a connection was opened in this direction.
    pub fn opened(&self) -> bool {
        self.opened
    }

    /// The payload, in order, without retransmissions; what was missed is left out.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The TLS records from the start of the flow, with the length of each; none if it isn't TLS. A record cut off at the
    /// end of the capture is left out.
    pub fn tls_records(&self) -> Vec<(RecordType, usize)> {
        let mut records = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some((record, after)) = tls_record(rest) {
            records.push(record);
            rest = after;
        }
        records
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, from, to, packets, bytes, .. } = self;
        write!(f, "{transport:?} {from} -> {to}: {packets} packets, {} bytes", bytes.len())?;
        let mut types: BTreeMap<_, usize> = BTreeMap::new();
        self.tls_records().iter().for_each(|(t, _)| *types.entry(*t).or_default() += 1);
        match (types.is_empty(), bytes.is_empty()) {
            (false, _) => write!(f, ", TLS {types:?}"),
            (true, false) => write!(f, ", {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)])),
            (true, true) => Ok(()),
        }
    }
}

fn tls_record(bytes: &[u8]) -> Option<((RecordType, usize), &[u8])> {
    let [kind, 3, _, high, low, rest @ ..] = bytes else { return None };
    let kind = match kind {
        20 => RecordType::ChangeCipherSpec,
        21 => RecordType::Alert,
        22 => RecordType::Handshake,
        23 => RecordType::ApplicationData,
        _ => return None,
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    Some(((kind, len), rest.get(len..)?))
}

/// Whether `needle` is in `hay`.
pub(super) fn find(hay: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return true };
    let mut starts = hay.iter().enumerate().filter(|(_, b)| *b == first);
    starts.any(|(at, _)| hay[at + 1..].starts_with(rest))
}

/// All flows, in the order of their first packet.
pub(super) fn flows(packets: &[Vec<u8>]) -> Vec<Flow> {
    let mut flows: Vec<Pieces<'_>> = Vec::new();
    let mut index = BTreeMap::new();
    for segment in packets.iter().filter_map(|p| segment(p)) {
        let Segment { transport, from, to, seq, .. } = segment;
        // A reused pair of ports is a new connection.
        let fresh = segment.syn && index.get(&(transport, from, to)).is_some_and(|i: &usize| flows[*i].start != seq);
        if fresh || !index.contains_key(&(transport, from, to)) {
            index.insert((transport, from, to), flows.len());
            let flow = Flow { transport, from, to, packets: 0, opened: false, bytes: Vec::new() };
            flows.push(Pieces { flow, start: seq, pieces: BTreeMap::new() });
        }
        let Pieces { flow, start, pieces } = &mut flows[index[&(transport, from, to)]];
        flow.packets += 1;
        flow.opened |= segment.syn && !segment.ack;
        match transport {
            Transport::Udp => flow.bytes.extend_from_slice(segment.payload),
            Transport::Tcp if !segment.payload.is_empty() => {
                let offset = seq.wrapping_sub(*start);
                let known = pieces.entry(offset).or_default();
                if known.len() < segment.payload.len() {
                    *known = segment.payload;
                }
            }
            Transport::Tcp => {}
        }
    }
    flows.into_iter().map(assemble).collect()
}

fn assemble(Pieces { mut flow, pieces, .. }: Pieces<'_>) -> Flow {
    let mut next = 0_u64;
    for (offset, piece) in pieces {
        let offset = u64::from(offset);
        let known = next.saturating_sub(offset).min(piece.len() as u64) as usize;
        flow.bytes.extend_from_slice(&piece[known..]);
        next = next.max(offset + piece.len() as u64);
    }
    flow
}

fn segment(packet: &[u8]) -> Option<Segment<'_>> {
    let ethertype = u16::from_be_bytes(packet.get(12..14)?.try_into().ok()?);
    let ip = packet.get(14..)?;
    let (protocol, from, to, rest) = match ethertype {
        0x0800 => {
            let header = usize::from(ip.first()? & 0xf) * 4;
            // With segmentation offload the length may be 0 ("see the packet").
            let total = match usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?)) {
                0 => ip.len(),
                total => total.min(ip.len()),
            };
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
            (*ip.get(9)?, address(12)?, address(16)?, ip.get(header..total)?)
        }
        0x86dd => {
            let total = match usize::from(u16::from_be_bytes(ip.get(4..6)?.try_into().ok()?)) {
                0 => ip.len(),
                len => (40 + len).min(ip.len()),
            };
            let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
            (*ip.get(6)?, address(8)?, address(24)?, ip.get(40..total)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
    match protocol {
        6 => {
            let flags = *rest.get(13)?;
            let (syn, ack) = (flags & 2 != 0, flags & 0x10 != 0);
            let seq = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
            // SYN takes one number, so that the first byte of the payload is at 1 from it.
            let payload = rest.get(usize::from(rest.get(12)? >> 4) * 4..)?;
            Some(Segment { transport: Transport::Tcp, from, to, seq, syn, ack, payload })
        }
        17 => {
            let payload = rest.get(8..)?;
            Some(Segment { transport: Transport::Udp, from, to, seq: 0, syn: false, ack: false, payload })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 and TCP with nothing but what is read here.
    fn tcp(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut p = vec![0; 12];
        p.extend([0x08, 0x00, 0x45, 0]);
        p.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
        p.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        p.extend([0x10, 0x00, 0x00, 0x50]);
        p.extend(seq.to_be_bytes());
        p.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        p.extend(payload);
        // Ethernet pads short frames; the padding is no payload.
        p.resize(p.len().max(60), 0);
        p
    }

    #[test]
    fn a_stream_is_put_together_across_a_wrapping_sequence_number() {
        let start = u32::MAX - 2;
        let packets = [
            tcp(start, 2, b""),
            tcp(start.wrapping_add(5), 0x10, b"t needle"),
            tcp(start.wrapping_add(1), 0x10, b"split"),
            tcp(start.wrapping_add(4), 0x10, b"it needle"),
        ];
        let [flow] = flows(&packets).try_into().unwrap();
        assert_eq!(String::from_utf8_lossy(flow.bytes()), "split needle");
        assert!(flow.opened());
        let packets = Packets { packets: packets.to_vec() };
        assert!(packets.contains(b"split needle") && !packets.contains(b"split  needle"));
    }

    use super::super::Packets;

    #[test]
    fn tls_records_are_counted_and_a_cut_one_is_not() {
        let mut bytes = vec![22, 3, 1, 0, 2, 9, 9, 23, 3, 3, 0, 1, 7];
        bytes.extend([23, 3, 3, 0, 9, 1]);
        let [flow] = flows(&[tcp(1, 2, b""), tcp(2, 0x10, &bytes)]).try_into().unwrap();
        assert_eq!(flow.tls_records(), [(RecordType::Handshake, 2), (RecordType::ApplicationData, 1)]);
        let [flow] = flows(&[tcp(1, 2, b""), tcp(2, 0x10, b"GET / HTTP/1.1")]).try_into().unwrap();
        assert_eq!(flow.tls_records(), []);
    }

    #[test]
    fn needles_are_found_at_both_ends() {
        assert!(find(b"abcab", b"ab") && find(b"abcab", b"cab") && find(b"x", b""));
        assert!(!find(b"abcab", b"cabx") && !find(b"", b"a"));
    }
}
