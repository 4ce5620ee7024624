//! QUIC before there are keys: the ClientHello, out of the frames of a client's first datagram.

use std::any::Any;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::crypto::ServerConfig as Crypto;
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionError, ConnectionId, DatagramEvent, Endpoint, ServerConfig, Side};
use weft_tls::{GatewayTls, Inside, KeyPair, QuicChoice, quic_server};

use crate::choice;

/// The longest ClientHello that is taken, and what stands before it.
const MOST: usize = 16 << 10;
const HEAD: usize = 4;
/// What is more of a client than its first flight would be.
const MOST_TRIED: usize = 8 << 10;
const VERSION: u32 = 1;
/// Of the client's choosing.
const CONNECTION: [u8; 8] = *b"original";
/// The least that a first datagram has (RFC 9000, section 14.1).
const PADDED: usize = 1200;
/// Codes of alerts (RFC 9001, section 4.8).
const UNEXPECTED_MESSAGE: u64 = 0x10a;
const UNRECOGNIZED_NAME: u64 = 0x170;

/// Says for each ClientHello who ends TLS, or that nobody does; with what it was asked.
struct Asked {
    serves: bool,
    hellos: Mutex<Vec<Vec<u8>>>,
}

impl QuicChoice for Asked {
    fn choose(&self, client_hello: &[u8]) -> Option<(GatewayTls, Arc<dyn Any + Send + Sync>)> {
        static TLS: OnceLock<GatewayTls> = OnceLock::new();
        self.hellos.lock().unwrap_or_else(PoisonError::into_inner).push(client_hello.to_vec());
        self.serves.then(|| (TLS.get_or_init(tls).clone(), Arc::new(()) as Arc<dyn Any + Send + Sync>))
    }
}

fn tls() -> GatewayTls {
    let Ok(own) = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]) else { panic!("no certificate") };
    let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let Ok(pair) = KeyPair::from_pem(chain.as_bytes(), key.as_bytes()) else { panic!("no key pair") };
    GatewayTls::new(vec![pair], Inside::Http, None).unwrap_or_else(|error| panic!("{error}"))
}

/// What came of a client: for which ClientHellos it was asked who ends TLS, and the code that its connection ends with, if it does.
#[derive(Debug, PartialEq, Eq)]
struct Met {
    asked: Vec<Vec<u8>>,
    ends: Option<u64>,
}

/// Has a server meet a client.
fn meet(serves: bool, client: impl FnOnce(&Arc<dyn Crypto>, &Asked) -> Option<u64>) -> Met {
    let asked = Arc::new(Asked { serves, hellos: Mutex::default() });
    let server = quic_server(Arc::clone(&asked) as Arc<dyn QuicChoice>).unwrap_or_else(|error| panic!("{error}"));
    let ends = client(&server, &asked);
    let hellos = std::mem::take(&mut *asked.hellos.lock().unwrap_or_else(PoisonError::into_inner));
    Met { asked: hellos, ends }
}

/// Bytes of its handshake, in order and in pieces of this size, until it is known who ends TLS.
fn in_order(data: &[u8], piece: usize, serves: bool) -> Met {
    meet(serves, |server, asked| {
        let Ok(parameters) = TransportParameters::read(Side::Client, &mut b"".as_slice()) else {
            panic!("no parameters")
        };
        let mut session = Arc::clone(server).start_session(VERSION, &parameters);
        for piece in data.chunks(piece.max(1)) {
            if let Err(error) = session.read_handshake(piece) {
                return Some(error.code.into());
            }
            if !asked.hellos.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                break;
            }
            assert!(session.write_handshake(&mut Vec::new()).is_none(), "something is said before anybody is chosen");
        }
        None
    })
}

/// The same in CRYPTO frames of one datagram.
fn in_frames(frames: &[(usize, &[u8])], serves: bool) -> Met {
    meet(serves, |server, _| {
        let config = ServerConfig::with_crypto(Arc::clone(server));
        let mut endpoint = Endpoint::new(Arc::default(), Some(Arc::new(config)), false, None);
        let (now, client) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, 4433)));
        let datagram = initial(&**server, frames);
        let event = endpoint.handle(now, client, None, None, datagram, &mut Vec::new());
        let Some(DatagramEvent::NewConnection(incoming)) = event else { panic!("no connection begins") };
        match endpoint.accept(incoming, now, &mut Vec::new(), None).map_err(|error| error.cause) {
            Ok(_) => None,
            Err(ConnectionError::TransportError(error)) => Some(error.code.into()),
            Err(error) => panic!("{error}"),
        }
    })
}

/// An integer of variable length, in four bytes (RFC 9000, section 16).
fn integer(value: usize) -> [u8; 4] {
    (u32::try_from(value).unwrap_or_default() | 0x8000_0000).to_be_bytes()
}

/// A datagram of one Initial packet (RFC 9000, section 17.2.2), protected as clients protect it.
fn initial(server: &dyn Crypto, frames: &[(usize, &[u8])]) -> BytesMut {
    let Ok(keys) = server.initial_keys(VERSION, &ConnectionId::new(&CONNECTION)) else { panic!("no keys") };
    let mut payload = Vec::new();
    for (at, data) in frames {
        payload.push(0x06);
        payload.extend([integer(*at), integer(data.len())].concat());
        payload.extend_from_slice(data);
    }
    payload.resize(payload.len().max(PADDED), 0);
    let (number, tag) = ([0; 4], keys.packet.remote.tag_len());
    // A packet number of four bytes; no connection id of the client's, no token.
    let mut packet = [&[0xc3][..], &VERSION.to_be_bytes(), &[CONNECTION.len() as u8], &CONNECTION, &[0, 0]].concat();
    packet.extend(integer(number.len() + payload.len() + tag));
    let number_at = packet.len();
    packet.extend(number);
    let head = packet.len();
    packet.extend(payload);
    packet.resize(packet.len() + tag, 0);
    keys.packet.remote.encrypt(0, &mut packet, head);
    keys.header.remote.encrypt(number_at, &mut packet);
    BytesMut::from(&packet[..])
}

/// Some frames that together have all bytes, with overlaps and in an order that is chosen.
fn frames(data: &[u8], chosen: usize) -> Vec<(usize, &[u8])> {
    let size = data.len().div_ceil(1 + chosen % 16).max(1);
    let reach = if chosen & 0x10 == 0 { 0 } else { size / 2 + 1 };
    let part = |at: usize| {
        let from = at.saturating_sub(reach);
        (from, data.get(from..data.len().min(at + size + reach)).unwrap_or_default())
    };
    let mut frames: Vec<_> = (0..data.len()).step_by(size).map(part).collect();
    match chosen >> 5 & 3 {
        0 => {}
        1 => frames.reverse(),
        2 => {
            let half = frames.len() / 2;
            frames.rotate_left(half);
        }
        _ => frames = frames.repeat(2),
    }
    frames
}

/// The ClientHello that bytes begin with (RFC 8446, section 4); `None`: it isn't whole.
///
/// # Errors
/// They are something else, or too much.
fn client_hello(data: &[u8]) -> Result<Option<&[u8]>, u64> {
    let Some(([kind, length @ ..], rest)) = data.split_first_chunk::<HEAD>() else { return Ok(None) };
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if *kind == 1 && length <= MOST { Ok(rest.get(..length)) } else { Err(UNEXPECTED_MESSAGE) }
}

/// Who ends TLS is asked once, for the whole ClientHello and nothing behind it, in whatever pieces, order and overlaps it comes; what
/// is none ends the connection, and so does what never becomes whole.
pub(crate) fn hello(data: &[u8]) {
    let (chosen, data) = choice(data);
    if data.len() > MOST_TRIED {
        return;
    }
    let (piece, serves) = (1 + chosen % 64, chosen & 0x80 != 0);
    let all = [(0, data)];
    let met = [
        in_order(data, data.len(), serves),
        in_order(data, piece, serves),
        in_frames(&all, serves),
        in_frames(&frames(data, chosen), serves),
    ];
    let expected = client_hello(data);
    for met in &met {
        match expected {
            Ok(Some(hello)) => assert_eq!(met.asked, [hello], "{met:?}"),
            Ok(None) => assert_eq!(*met, Met { asked: Vec::new(), ends: None }),
            Err(code) => assert_eq!(*met, Met { asked: Vec::new(), ends: Some(code) }),
        }
    }
    let [at_once, in_pieces, in_one, in_many] = met;
    match expected {
        Ok(None) => {
            let endless = [data, &vec![0; HEAD + MOST - data.len()]].concat();
            let end = in_order(&endless, 1 + chosen * 16, serves);
            assert!(end.ends.is_some() || !end.asked.is_empty(), "it is waited for more");
        }
        Ok(Some(_)) if !serves => {
            let ends = [&at_once, &in_pieces, &in_one, &in_many].map(|met| met.ends);
            assert_eq!(ends, [Some(UNRECOGNIZED_NAME); 4]);
        }
        // What is behind it comes too early, which not everybody sees who has got as far.
        Ok(Some(hello)) if hello.len() + HEAD == data.len() => {
            assert_eq!((&at_once, &in_one), (&in_pieces, &in_many));
            assert!(at_once.ends.is_none() || at_once == in_one, "{at_once:?} {in_one:?}");
        }
        Ok(Some(_)) | Err(_) => {}
    }
}
