//! Whom to ask: the proxies of a mesh, each by its admin server on its loopback. In a cluster they are reached by
//! port-forward, on a node without Kubernetes straight.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;

use crate::cluster::{Session, Target, proxies};

/// What a node without Kubernetes keeps, where it is one.
const HERE: &str = "/run/weft/config";
/// The admin address of a proxy that was given no other.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Proxies that are asked at the same time.
const AT_ONCE: usize = 16;
/// The largest page that is read, in bytes.
const LARGEST: usize = 256 << 20;
/// All but the unreserved characters of RFC 3986, section 2.3.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which proxies to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Whom {
    /// The admin address of a proxy to ask; may be repeated. Left out: 127.0.0.1:15000 on a node of a mesh without
    /// Kubernetes, else all proxies of the cluster
    #[arg(long = "admin", value_name = "ADDRESS")]
    pub admin: Vec<SocketAddr>,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `node n1`, `gateway edge/public-weft-…`, or its address.
    pub name: String,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Here(SocketAddr),
    Pod { namespace: String, pod: String },
}

/// Those that can be asked.
pub struct Proxies {
    all: Vec<Proxy>,
    session: Option<Session>,
}

/// What was read of the proxies.
#[derive(Debug, Default)]
pub struct Answers {
    /// The pages, by the proxies' names.
    pub pages: Vec<(String, Bytes)>,
    /// Who gave no page, and why.
    pub unread: Vec<String>,
}

impl Proxies {
    /// Finds them.
    ///
    /// # Errors
    /// Where a cluster can't be asked, or has no proxy.
    pub async fn of(target: &Target, from: &Whom) -> anyhow::Result<Self> {
        if !from.admin.is_empty() || (!target.is_given() && Path::new(HERE).exists()) {
            return Ok(Self::here(from));
        }
        let session = target.session().await?;
        let found = proxies(&session).await?;
        let all: Vec<_> =
            found.into_iter().map(|(name, namespace, pod)| Proxy { name, way: Way::Pod { namespace, pod } }).collect();
        if all.is_empty() {
            bail!("there is no node proxy in namespace {}", session.mesh);
        }
        Ok(Self { all, session: Some(session) })
    }

    /// Those that are named, else that of this node.
    pub fn here(from: &Whom) -> Self {
        let named: &[SocketAddr] = if from.admin.is_empty() { &[ADMIN] } else { &from.admin };
        let here = |address: &SocketAddr| Proxy { name: address.to_string(), way: Way::Here(*address) };
        Self { all: named.iter().map(here).collect(), session: None }
    }

    /// The cluster that they are in, if it is one.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// A page of each.
    pub async fn read(&self, page: &str) -> Answers {
        let mut answers = Answers::default();
        let take = |name: &str, answer| match answer {
            Ok(page) => answers.pages.push((name.to_owned(), page)),
            Err(error) => answers.unread.push(format!("{name}: {error:#}")),
        };
        self.each(page, take).await;
        answers
    }

    /// Hands a page of each over, as soon as it and those before it are there: no more than a few are held at a time.
    pub async fn each(&self, page: &str, mut take: impl FnMut(&str, anyhow::Result<Bytes>)) {
        let asked = futures::stream::iter(self.all.iter()).map(|proxy| async move {
            let answer = tokio::time::timeout(PATIENCE, self.page(proxy, page)).await;
            let answer = answer.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()));
            (&proxy.name, answer)
        });
        let mut asked = asked.buffered(AT_ONCE).boxed_local();
        while let Some((name, answer)) = asked.next().await {
            take(name, answer);
        }
    }

    /// A page of the first that answers.
    ///
    /// # Errors
    /// None does; what the last one said.
    pub async fn first(&self, page: &str) -> anyhow::Result<Bytes> {
        let mut last = anyhow::anyhow!("there is no proxy to ask");
        for proxy in &self.all {
            match tokio::time::timeout(PATIENCE, self.page(proxy, page)).await {
                Ok(Ok(page)) => return Ok(page),
                Ok(Err(error)) => last = error.context(proxy.name.clone()),
                Err(_) => last = anyhow::anyhow!("{}: no answer within {} s", proxy.name, PATIENCE.as_secs()),
            }
        }
        Err(last)
    }

    async fn page(&self, proxy: &Proxy, page: &str) -> anyhow::Result<Bytes> {
        match (&proxy.way, &self.session) {
            (Way::Here(address), _) => get(*address, page).await,
            (Way::Pod { namespace, pod }, Some(session)) => {
                crate::cluster::page_of(session, namespace, pod, page).await
            }
            (Way::Pod { .. }, None) => bail!("no cluster to ask"),
        }
    }
}

async fn get(address: SocketAddr, page: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("{address}: is the proxy running?"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get(page).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
    driver.abort();
    if !status.is_success() {
        bail!("it answers {status}; is it an older version?");
    }
    Ok(body.to_bytes())
}

/// The text of an id in a query: what isn't plain is encoded (RFC 3986, section 2.1).
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NOT_PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Configurations of a large mesh don't fit into memory all at once.
    #[tokio::test]
    async fn pages_are_handed_over_before_all_are_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = Whom { admin: vec![listener.local_addr().unwrap(); 2 * AT_ONCE] };
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&asked);
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npage").await.unwrap();
                });
            }
        });
        let mut seen = Vec::new();
        let take = |_: &str, page: anyhow::Result<Bytes>| {
            assert_eq!(page.unwrap(), "page");
            seen.push(asked.load(Ordering::SeqCst));
        };
        Proxies::here(&here).each("/metrics", take).await;
        server.abort();
        assert_eq!((seen.len(), asked.load(Ordering::SeqCst)), (2 * AT_ONCE, 2 * AT_ONCE));
        assert!(seen[0] <= AT_ONCE, "{seen:?}");
    }

    #[test]
    fn an_id_is_encoded_for_a_query() {
        assert_eq!(encoded("a-1_2.3~"), "a-1_2.3~");
        assert_eq!(encoded("a&b=ü%"), "a%26b%3D%C3%BC%25");
    }
}
