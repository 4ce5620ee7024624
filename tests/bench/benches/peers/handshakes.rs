//! New TLS connections, one request on each: whole handshakes, and resumed sessions.
//!
//! The client is ours (`weft_tls::BackendClient`), because it says of each connection which of the two it was. It offers
//! X25519MLKEM768 and X25519: who knows the first takes it and pays for it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use weft_core::gateway::{BackendTls, BackendTrust};
use weft_core::ids::{Port, ServiceKey, ServicePortKey};
use weft_tls::BackendClient;

use crate::load::{Rate, pinned};
use crate::programs::Front;
use crate::termination::HOST;

/// Connections at once. Each of their clients has sessions of its own, which nobody else uses up.
const AT_ONCE: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of the session of the connection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// It is forgotten: every handshake is a whole one.
    Forgotten,
    /// It is resumed.
    Resumed,
}

/// Opens connections as fast as they are answered. A connection of the other kind than asked for is a failure, except
/// each client's first.
///
/// # Errors
/// When the authority of the front can't be read.
pub fn connections(front: &Front, sessions: Sessions, core: usize, time: Duration) -> Result<Rate> {
    let pem = std::fs::read(front.authority.as_ref().context("no TLS there")?)?;
    pinned(front, core, |runtime| {
        let (requests, failures) = (Rc::<Cell<u64>>::default(), Rc::<Cell<u64>>::default());
        let began = Instant::now();
        let local = LocalSet::new();
        for _ in 0..AT_ONCE {
            let (requests, failures) = (Rc::clone(&requests), Rc::clone(&failures));
            let mut client = client(&pem)?;
            let (pem, address) = (pem.clone(), front.addr);
            local.spawn_local(async move {
                let mut first = true;
                while began.elapsed() < time {
                    if sessions == Sessions::Forgotten {
                        client = self::client(&pem).expect("it was good before");
                    }
                    let whole = first || sessions == Sessions::Forgotten;
                    match tokio::time::timeout(PATIENCE, one(&client, address)).await {
                        Ok(Ok(Kind { resumed })) if resumed != whole => requests.set(requests.get() + 1),
                        _ => failures.set(failures.get() + 1),
                    }
                    first = false;
                }
            });
        }
        runtime.block_on(local);
        let per_second = requests.get() as f64 / began.elapsed().as_secs_f64();
        Ok(Rate { per_second, requests: requests.get(), failures: failures.get() })
    })
}

/// Whether a front answers as the backend does.
///
/// # Errors
/// Why it doesn't.
pub async fn answers(address: SocketAddr, authority: &Path) -> Result<()> {
    one(&client(&std::fs::read(authority)?)?, address).await.map(drop)
}

/// What a connection was.
struct Kind {
    resumed: bool,
}

fn client(pem: &[u8]) -> Result<BackendClient> {
    let port = ServicePortKey { service: ServiceKey::new("bench", "web"), port: Port::new(443).context("no port")? };
    let trust = BackendTrust::Bundle(pem.to_vec());
    let policy = BackendTls { port, hostname: HOST.to_owned(), subject_alt_names: Vec::new(), trust };
    Ok(BackendClient::new(&policy, None, &[b"http/1.1"])?)
}

/// One request on a connection of its own.
async fn one(client: &BackendClient, address: SocketAddr) -> Result<Kind> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = client.connect(stream).await?;
    // The type behind it is one of a library that only `weft-tls` uses.
    let resumed = format!("{:?}", stream.get_ref().1.handshake_kind()).contains("Resumed");
    stream.write_all(format!("GET /1k HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let (mut answer, mut buffer) = (Vec::with_capacity(2048), [0; 2048]);
    loop {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| answer.len() >= head + 4 + 1024) {
            break;
        }
        match stream.read(&mut buffer).await? {
            0 => bail!("the answer ends early: {}", String::from_utf8_lossy(&answer)),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(Kind { resumed })
}
