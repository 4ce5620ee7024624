//! A client of HTTP/3 made of quinn and h3.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use quinn::rustls::{ClientConfig, RootCertStore, crypto};
use tokio::io::{AsyncRead, AsyncWrite};
use weft_core::gateway::{BackendTls, BackendTrust};
use weft_testkit::clients::Reply;

use super::service_port;

/// Whom a client trusts, and who it is.
#[derive(Clone)]
pub(super) struct Trust {
    anchor: CertificateDer<'static>,
    pem: String,
    own: Option<Arc<(CertificateDer<'static>, Vec<u8>)>>,
}

impl Trust {
    pub(super) fn new(certificate: &rcgen::Certificate) -> Self {
        Self { anchor: certificate.der().clone(), pem: certificate.pem(), own: None }
    }

    pub(super) fn with(self, own: Arc<(CertificateDer<'static>, Vec<u8>)>) -> Self {
        Self { own: Some(own), ..self }
    }

    pub(super) fn policy(&self, service: &str, hostname: &str) -> BackendTls {
        BackendTls {
            port: service_port(service),
            hostname: hostname.into(),
            subject_alt_names: Vec::new(),
            trust: BackendTrust::Bundle(self.pem.clone().into_bytes()),
        }
    }
}

/// A certificate of a client with its key, and whom one has to trust to take it, as PEM.
pub(super) fn pair(name: &str) -> (Arc<(CertificateDer<'static>, Vec<u8>)>, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let own = Arc::new((made.cert.der().clone(), made.signing_key.serialize_der()));
    (own, made.cert.pem().into_bytes())
}

/// A connection of QUIC, after its handshake.
pub(super) async fn connect_quic(
    to: SocketAddr,
    name: &str,
    trust: &Trust,
    alpn: &[u8],
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    connect_with(to, name, trust, alpn, quinn::TransportConfig::default()).await
}

/// The same with parameters of its own.
pub(super) async fn connect_with(
    to: SocketAddr,
    name: &str,
    trust: &Trust,
    alpn: &[u8],
    transport: quinn::TransportConfig,
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let mut roots = RootCertStore::empty();
    roots.add(trust.anchor.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&quinn::rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match &trust.own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.1.clone()));
            builder.with_client_auth_cert(vec![own.0.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(SocketAddr::new([127, 0, 0, 1].into(), 0)).unwrap();
    let connection = endpoint.connect_with(config, to, name).unwrap().await?;
    Ok((endpoint, connection))
}

/// A client, several requests at once by its clones.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) quic: quinn::Connection,
    sender: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    _endpoint: quinn::Endpoint,
}

impl Client {
    /// Waits until somebody listens.
    pub(super) async fn open(to: SocketAddr, name: &str, trust: &Trust) -> anyhow::Result<Self> {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let (endpoint, quic) = loop {
            let attempt = connect_quic(to, name, trust, b"h3");
            match tokio::time::timeout(std::time::Duration::from_secs(1), attempt).await {
                Ok(connected) => break connected?,
                // Nobody there yet: the system may tell a UDP client nothing.
                Err(_) => anyhow::ensure!(std::time::Instant::now() < end, "nobody listens at {to}"),
            }
        };
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self { quic, sender, _endpoint: endpoint })
    }

    pub(super) async fn get(&mut self, uri: &str) -> anyhow::Result<Reply> {
        self.send(Request::get(uri).body(())?, &[], None).await
    }

    /// Sends a request with a body, and gives its whole answer.
    pub(super) async fn send(
        &mut self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> anyhow::Result<Reply> {
        let (mut send, mut receive) = self.sender.send_request(request).await?.split();
        let said = async {
            for part in body.chunks(100_000) {
                send.send_data(Bytes::copy_from_slice(part)).await?;
            }
            if let Some(trailers) = trailers {
                send.send_trailers(trailers).await?;
            }
            send.finish().await
        };
        let heard = async {
            let head = receive.recv_response().await?;
            let mut body = Vec::new();
            while let Some(mut data) = receive.recv_data().await? {
                body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            let trailers = receive.recv_trailers().await?;
            let (status, headers) = (head.status(), head.headers().clone());
            anyhow::Ok(Reply { status, headers, body: body.into(), trailers })
        };
        let (said, heard) = tokio::join!(said, heard);
        said.context("while sending")?;
        heard
    }
}

/// A call of gRPC, with one message.
pub(super) fn grpc(origin: &str, message: &[u8]) -> (Request<()>, Vec<u8>) {
    let request = Request::post(format!("{origin}/weft.Echo/Echo"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    (request.body(()).unwrap(), grpc_frame(message))
}

/// A message as gRPC frames it.
pub(super) fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// Asks in another version of HTTP, in TLS that was begun.
pub(super) async fn over_tls<IO>(io: IO, version: Version, host: &str) -> Response<Bytes>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(io);
    let request = |uri: String| Request::get(uri).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let response = if version == Version::HTTP_2 {
        let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(driver);
        sender.send_request(request(format!("https://{host}/"))).await.unwrap()
    } else {
        let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(driver);
        sender.send_request(request("/".to_owned())).await.unwrap()
    };
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}
