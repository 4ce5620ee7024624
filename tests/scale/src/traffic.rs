//! Applications behind a Gateway, clients in front of it, and what these are answered.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::ifaddrs::getifaddrs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The end of the head of a request or answer.
const END: &[u8] = b"\r\n\r\n";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address of this machine that isn't the loopback device's, which no endpoint may have.
pub fn own_address() -> anyhow::Result<IpAddr> {
    let v4 = |address: nix::ifaddrs::InterfaceAddress| Some(address.address?.as_sockaddr_in()?.ip());
    let mut all = getifaddrs()?.filter_map(v4);
    all.find(|ip| !ip.is_loopback()).map(IpAddr::V4).context("no address but loopback")
}

/// An application that answers everything with 200, until the returned task is aborted.
pub async fn application(ip: IpAddr) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((ip, 0)).await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream));
        }
    });
    Ok((address, serving))
}

/// Requests without a body, one after the other.
async fn answer_all(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    loop {
        if let Some(end) = head.windows(END.len()).position(|window| window == END) {
            head.drain(..end + END.len());
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        } else if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The header that routes under measurement set.
    pub mark: Option<String>,
}

/// A client with one connection, which is made anew when it has ended.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Asks for `/`. An error isn't an answer: a connection that was refused or reset, or none for long.
    pub async fn get(&mut self, host: &str) -> anyhow::Result<Answer> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(host)).await;
        let answer = asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in {PATIENCE:?}")));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn ask(&mut self, host: &str) -> anyhow::Result<Answer> {
        let stream = match &mut self.stream {
            Some(open) => open,
            none => none.insert(TcpStream::connect(self.address).await?),
        };
        stream.set_nodelay(true)?;
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(END.len()).position(|window| window == END) {
                break end;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                bail!("closed before an answer");
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let answer = Answer {
            status: head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?,
            mark: header(&head, "x-edit").map(str::to_owned),
        };
        let length = header(&head, "content-length").map_or(Ok(0), str::parse::<usize>)?;
        while bytes.len() < end + END.len() + length {
            if stream.read_buf(&mut bytes).await? == 0 {
                bail!("closed within an answer");
            }
        }
        if header(&head, "connection").is_some_and(|text| text.eq_ignore_ascii_case("close")) {
            self.stream = None;
        }
        Ok(answer)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let named = |line: &'a str| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name));
    head.lines().find_map(named).map(|(_, value)| value.trim())
}

/// How often each kind of answer was given; errors count as what they say.
pub type Counts = BTreeMap<String, usize>;

/// What was seen of a host while somebody waited for a certain answer.
#[derive(Debug)]
pub struct Seen {
    /// When that was given first.
    pub at: Instant,
    /// All answers until then, and some after it.
    pub answers: Counts,
}

/// Asks for a host again and again until an answer is the one that is waited for, and then a few times more.
pub async fn watch(
    address: SocketAddr,
    host: String,
    wanted: impl Fn(&Answer) -> bool + Send,
    patience: Duration,
) -> anyhow::Result<Seen> {
    /// How often it asks when it has the answer: one that comes and goes shows.
    const MORE: usize = 20;
    let (began, mut client, mut answers) = (Instant::now(), Client::new(address), Counts::new());
    let at = loop {
        let answer = client.get(&host).await;
        *answers.entry(word(&answer)).or_default() += 1;
        if answer.is_ok_and(|answer| wanted(&answer)) {
            break Instant::now();
        }
        anyhow::ensure!(began.elapsed() < patience, "{host} in {patience:?}: {answers:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    for _ in 0..MORE {
        let answer = client.get(&host).await;
        // What was there must stay.
        let gone = answer.as_ref().is_ok_and(|answer| !wanted(answer));
        let word = if gone { format!("{} after the right one", word(&answer)) } else { word(&answer) };
        *answers.entry(word).or_default() += 1;
    }
    Ok(Seen { at, answers })
}

fn word(answer: &anyhow::Result<Answer>) -> String {
    match answer {
        Ok(answer) => answer.status.to_string(),
        Err(error) => format!("{error:#}"),
    }
}

/// Requests at a steady rate over a few connections, until it is told to stop.
pub struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    clients: Vec<JoinHandle<Counts>>,
}

impl Load {
    /// Begins with so many requests per second and client.
    pub fn start(address: SocketAddr, host: &str, clients: usize, per_second: u32) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let one = |_| {
            let (host, stopped) = (host.to_owned(), stopped.clone());
            tokio::spawn(async move {
                let (mut client, mut counts) = (Client::new(address), Counts::new());
                let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
                while !*stopped.borrow() {
                    tick.tick().await;
                    *counts.entry(word(&client.get(&host).await)).or_default() += 1;
                }
                counts
            })
        };
        Self { stop, clients: (0..clients).map(one).collect() }
    }

    /// Ends it; all answers.
    pub async fn end(self) -> anyhow::Result<Counts> {
        // Those that have ended already don't listen.
        let _ = self.stop.send(true);
        let mut all = Counts::new();
        for client in self.clients {
            client.await?.into_iter().for_each(|(word, count)| *all.entry(word).or_default() += count);
        }
        Ok(all)
    }
}

/// How many answers there were besides those of the given statuses.
pub fn others(counts: &Counts, good: &[&str]) -> usize {
    counts.iter().filter(|(word, _)| !good.contains(&word.as_str())).map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_that_comes_and_goes_is_seen() {
        // 404 twice, 200 twice, and 503 from then on.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            for number in 0.. {
                if stream.read(&mut buffer).await.unwrap_or_default() == 0 {
                    break;
                }
                let status = ["404", "404", "200", "200"].get(number).unwrap_or(&"503");
                let answer = format!("HTTP/1.1 {status} X\r\nX-Edit: 7\r\ncontent-length: 2\r\n\r\nno");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let wanted = |answer: &Answer| answer.status == 200 && answer.mark.as_deref() == Some("7");
        let seen = watch(address, "a.example".to_owned(), wanted, Duration::from_secs(5)).await.unwrap();
        let expected = [("200".to_owned(), 2), ("404".to_owned(), 2), ("503 after the right one".to_owned(), 19)];
        assert_eq!(seen.answers, expected.into());
        assert_eq!(others(&seen.answers, &["200", "404"]), 19);
    }

    #[tokio::test]
    async fn a_load_counts_what_it_is_answered() {
        let (address, serving) = application("127.0.0.1".parse().unwrap()).await.unwrap();
        let load = Load::start(address, "a.example", 2, 100);
        tokio::time::sleep(Duration::from_millis(100)).await;
        serving.abort();
        let counts = load.end().await.unwrap();
        assert!(counts["200"] >= 4 && others(&counts, &["200"]) == 0, "{counts:?}");
    }
}
