//! A saturating load of HTTP/3, by quinn and h3: the load generators of distributions don't speak it.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, Bytes};
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::pki_types::CertificateDer;
use quinn::rustls::{ClientConfig, RootCertStore, crypto, version};
use tokio::task::LocalSet;

use crate::load::{Rate, pinned};
use crate::programs::Front;
use crate::termination::HOST;

/// Connections, and streams of each.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 16;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// Sends GETs for 1 KiB from a core, as fast as they are answered. `authority` is that of the certificate, DER.
///
/// # Errors
/// When a connection can't be made.
pub fn load(front: &Front, authority: &[u8], core: usize, time: Duration) -> Result<Rate> {
    let authority = CertificateDer::from(authority.to_vec());
    pinned(front, core, |runtime| {
        let local = LocalSet::new();
        local.block_on(runtime, async {
            let endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let mut senders = Vec::new();
            for _ in 0..CONNECTIONS {
                senders.push(connect(&endpoint, front.addr, authority.clone()).await?);
            }
            let (requests, failures) = (Rc::<Cell<u64>>::default(), Rc::<Cell<u64>>::default());
            let (began, mut streams) = (Instant::now(), Vec::new());
            for sender in senders.iter().flat_map(|sender| std::iter::repeat_n(sender, STREAMS)) {
                let (mut sender, requests, failures) = (sender.clone(), Rc::clone(&requests), Rc::clone(&failures));
                streams.push(tokio::task::spawn_local(async move {
                    while began.elapsed() < time {
                        let counter = match tokio::time::timeout(PATIENCE, get(&mut sender)).await {
                            Ok(Ok(())) => &requests,
                            _ => &failures,
                        };
                        counter.set(counter.get() + 1);
                    }
                }));
            }
            for stream in streams {
                stream.await?;
            }
            let per_second = requests.get() as f64 / began.elapsed().as_secs_f64();
            Ok(Rate { per_second, requests: requests.get(), failures: failures.get() })
        })
    })
}

async fn connect(endpoint: &quinn::Endpoint, to: SocketAddr, authority: CertificateDer<'static>) -> Result<Sender> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    let connecting = endpoint.connect_with(config, to, HOST)?;
    let connection = tokio::time::timeout(PATIENCE, connecting).await.context("nobody speaks QUIC there")??;
    let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
    tokio::task::spawn_local(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    Ok(sender)
}

async fn get(sender: &mut Sender) -> Result<()> {
    let mut stream = sender.send_request(Request::get(format!("https://{HOST}/1k")).body(())?).await?;
    stream.finish().await?;
    let head = stream.recv_response().await?;
    let mut length = 0;
    while let Some(data) = stream.recv_data().await? {
        length += data.remaining();
    }
    ensure!(head.status() == 200 && length == 1024, "{} with {length} bytes", head.status());
    Ok(())
}
