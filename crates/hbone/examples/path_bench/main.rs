//! What one core carries: applications on one core, both relays and the tunnel between them on another.
//!
//! `cargo run --profile quick -p weft-hbone --example path_bench -- [mtls|tunnel|plain] [small|bulk] [seconds]`
//!
//! `small` counts requests of 100 bytes with a 1 KiB response on each of 64 connections, `bulk` MB/s of 1 MiB responses on 8.
//! `mtls` is the mesh's path; `tunnel` leaves out TLS, `plain` has two socket-to-socket relays and no HTTP/2: the cost of the
//! hops alone.
//!
//! Two figures: by the clock, and by the CPU time of the proxies' thread. The second is what to compare on a machine that does
//! other things too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark may panic"
)]

mod mtls;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio_util::sync::CancellationToken;
use weft_hbone::relay::{Options, Socket, between};
use weft_hbone::{
    ConnectRequest, Connector, DialError, Handler, OpenRequest, Pool, Responder, ServerLimits, TunnelLimits,
    serve_connection,
};

use mtls::Mtls;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUEST: usize = 100;

fn on_core<F: Future<Output = ()>>(core: usize, work: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || {
        let mut cpus = CpuSet::new();
        cpus.set(core).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, work());
    });
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers every request with as many bytes as its first four say.
async fn backend(listener: TcpListener) {
    let body: &'static [u8] = Box::leak(vec![7_u8; 1 << 20].into_boxed_slice());
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        spawn_local(async move {
            let mut request = [0; REQUEST];
            while socket.read_exact(&mut request).await.is_ok() {
                let len = u32::from_be_bytes(request[..4].try_into().unwrap()) as usize;
                if socket.write_all(&body[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}
type Boxed = Box<dyn Stream>;

struct Loopback {
    target: SocketAddr,
    mode: Mode,
}

impl Connector<()> for Loopback {
    type Io = Boxed;

    async fn connect(&self, _: &()) -> Result<Boxed, DialError> {
        let socket = TcpStream::connect(self.target).await?;
        socket.set_nodelay(true)?;
        let Some(mtls) = &self.mode.mtls else { return Ok(Box::new(socket)) };
        Ok(Box::new(mtls.client.connect(socket, self.target.ip(), &mtls.expected).await.unwrap().0))
    }
}

async fn accepted(mode: Mode, socket: TcpStream) -> Boxed {
    match &mode.mtls {
        None => Box::new(socket),
        Some(mtls) => Box::new(mtls.server.accept(socket).await.unwrap().0),
    }
}

#[derive(Clone)]
struct Mode {
    tunnelled: bool,
    mtls: Option<Mtls>,
}

impl Mode {
    fn named(name: &str) -> Self {
        match name {
            "mtls" => Self { tunnelled: true, mtls: Some(Mtls::new()) },
            "tunnel" => Self { tunnelled: true, mtls: None },
            "plain" => Self { tunnelled: false, mtls: None },
            other => panic!("no such mode: {other}"),
        }
    }
}

/// Publishes the CPU time of its thread, in nanoseconds.
async fn publish_cpu_time(into: Arc<AtomicU64>) {
    loop {
        let used = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        into.store(u64::try_from(used.num_nanoseconds()).unwrap(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Dial;

impl Handler for Dial {
    #[expect(clippy::manual_async_fn, reason = "the future must not borrow the handler")]
    fn handle(&self, request: ConnectRequest, responder: Responder) -> impl Future<Output = ()> + 'static {
        async move {
            let Ok(upstream) = TcpStream::connect(request.authority).await else {
                let _ = responder.refuse(StatusCode::SERVICE_UNAVAILABLE);
                return;
            };
            upstream.set_nodelay(true).unwrap();
            let mut stream = responder.accept().unwrap();
            between(&mut Socket::new(upstream), &mut stream, Options::default()).await;
        }
    }
}

async fn proxies(mode: Mode, front: TcpListener, backend: SocketAddr) {
    let (inner, inner_address) = listen().await;
    let tunnelled = mode.tunnelled;
    let inner_mode = mode.clone();
    spawn_local(async move {
        let handler = Rc::new(Dial);
        loop {
            let (socket, _) = inner.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            if tunnelled {
                let (handler, mode) = (Rc::clone(&handler), inner_mode.clone());
                spawn_local(async move {
                    let io = accepted(mode, socket).await;
                    serve_connection(io, handler, ServerLimits::default(), CancellationToken::new()).await
                });
            } else {
                spawn_local(plain(socket, backend));
            }
        }
    });
    let pool = Pool::new(Loopback { target: inner_address, mode }, TunnelLimits::default());
    loop {
        let (socket, _) = front.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        if !tunnelled {
            spawn_local(plain(socket, inner_address));
            continue;
        }
        let pool = pool.clone();
        spawn_local(async move {
            let mut stream = pool.open(&(), &OpenRequest::new(backend)).await.unwrap();
            between(&mut Socket::new(socket), &mut stream, Options::default()).await;
        });
    }
}

async fn plain(downstream: TcpStream, upstream: SocketAddr) {
    let upstream = TcpStream::connect(upstream).await.unwrap();
    upstream.set_nodelay(true).unwrap();
    between(&mut Socket::new(downstream), &mut Socket::new(upstream), Options::default()).await;
}

async fn client(target: SocketAddr, len: usize, done: Arc<AtomicU64>) {
    let mut socket = TcpStream::connect(target).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut request = [0; REQUEST];
    request[..4].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    let mut body = vec![0; len.min(256 << 10)];
    loop {
        socket.write_all(&request).await.unwrap();
        let mut left = len;
        while left > 0 {
            let want = left.min(body.len());
            let n = socket.read(&mut body[..want]).await.unwrap();
            assert_ne!(n, 0, "closed under load");
            left -= n;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

struct Rate {
    per_second: f64,
    per_cpu_second: f64,
}

fn measure(mode: &str, connections: usize, len: usize, seconds: u64) -> Rate {
    let (front_tx, front_rx) = std::sync::mpsc::channel();
    let (backend_tx, backend_rx) = std::sync::mpsc::channel();
    on_core(1, move || async move {
        let (listener, address) = listen().await;
        backend_tx.send(address).unwrap();
        backend(listener).await;
    });
    let backend_address = backend_rx.recv().unwrap();
    let mode = Mode::named(mode);
    let cpu = Arc::new(AtomicU64::new(0));
    let published = Arc::clone(&cpu);
    on_core(0, move || async move {
        let (front, address) = listen().await;
        front_tx.send(address).unwrap();
        spawn_local(publish_cpu_time(published));
        proxies(mode, front, backend_address).await;
    });
    let target = front_rx.recv().unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    on_core(1, move || async move {
        for _ in 0..connections {
            spawn_local(client(target, len, Arc::clone(&counted)));
        }
        std::future::pending().await
    });
    std::thread::sleep(Duration::from_secs(1));
    let (start, before, cpu_before) = (Instant::now(), done.load(Ordering::Relaxed), cpu.load(Ordering::Relaxed));
    std::thread::sleep(Duration::from_secs(seconds));
    let count = (done.load(Ordering::Relaxed) - before) as f64;
    let cpu_seconds = (cpu.load(Ordering::Relaxed) - cpu_before) as f64 / 1e9;
    Rate { per_second: count / start.elapsed().as_secs_f64(), per_cpu_second: count / cpu_seconds }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mode = arguments.first().map_or("mtls", String::as_str);
    let load = arguments.get(1).map_or("small", String::as_str);
    let seconds = arguments.get(2).map_or(5, |s| s.parse().unwrap());
    let (connections, len, unit, scale) =
        if load == "bulk" { (8, 1 << 20, "MB", 1.048_576) } else { (64, 1024, "requests", 1.0) };
    let rate = measure(mode, connections, len, seconds);
    println!(
        "{mode} {load}: {:.0} {unit}/s, {:.0} {unit} per second of CPU",
        rate.per_second * scale,
        rate.per_cpu_second * scale
    );
}
