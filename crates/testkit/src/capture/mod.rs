//! Packets seen on an interface, and what can be read in them.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let world = weft_testkit::World::two_nodes()?;
//! let capture = weft_testkit::Capture::start(&world.node("n1"), "eth0")?;
//! // ... traffic ...
//! let packets = capture.stop()?;
//! packets.assert_no_plaintext(b"secret");
//! # Ok(())
//! # }
//! ```
//!
//! A capture that lost packets is an error, because "not seen" would prove nothing.

mod parse;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::sockopt::RxqOvfl;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

pub use self::parse::{Flow, RecordType, Transport};
use crate::netns::Netns;

/// `ETH_P_ALL`, in network order, as packet sockets want it.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
/// Room for packets that come faster than they are read.
const QUEUE: usize = 64 << 20;
/// The most bytes of one packet; segmentation offload makes them larger than the wire's.
const PACKET: usize = 256 * 1024;
/// How often a quiet capture looks whether it shall end.
const TICK: Duration = Duration::from_millis(20);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    packets: Arc<Mutex<Packets>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What a capture saw, in order, each packet with its Ethernet header.
#[derive(Clone, Default)]
pub struct Packets {
    packets: Vec<Vec<u8>>,
}

impl Capture {
    /// Starts to record everything that an interface of a namespace sends and receives.
    ///
    /// # Errors
    /// When there is no such interface or the kernel refuses.
    pub fn start(place: &Netns, interface: &str) -> Result<Self> {
        let (socket, index) = place.run(|| -> Result<_> {
            let index = nix::net::if_::if_nametoindex(interface).with_context(|| format!("interface {interface}"))?;
            Ok((Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PROTOCOLS)))?, index))
        })?;
        // More than net.core.rmem_max needs a capability of the host; the capture says when it wasn't enough.
        setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &QUEUE)
            .or_else(|_| setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &QUEUE))?;
        setsockopt(&socket, RxqOvfl, &1)?;
        socket.set_read_timeout(Some(TICK))?;
        let packets = Arc::new(Mutex::new(Packets::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (packets.clone(), stop.clone());
        let thread = std::thread::spawn(move || record(&socket, index, &shared, &stopped));
        Ok(Self { packets, stop, thread: Some(thread) })
    }

    /// What was seen so far.
    pub fn packets(&self) -> Packets {
        self.packets.lock().clone()
    }

    /// Waits until what was seen is as it should be.
    ///
    /// # Errors
    /// When the deadline passes; with a summary of what was seen.
    pub fn wait_until(&self, deadline: Duration, seen: impl Fn(&Packets) -> bool) -> Result<()> {
        let end = Instant::now() + deadline;
        loop {
            let packets = self.packets();
            if seen(&packets) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "not seen within {deadline:?}:\n{packets:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the capture, with everything the kernel had queued.
    ///
    /// # Errors
    /// When packets were lost.
    pub fn stop(mut self) -> Result<Packets> {
        self.stop.store(true, Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {}
        }
        Ok(std::mem::take(&mut *self.packets.lock()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn record(socket: &Socket, index: u32, packets: &Mutex<Packets>, stop: &AtomicBool) -> Result<()> {
    let mut buf = vec![0; PACKET];
    let mut control = nix::cmsg_space!(u32);
    loop {
        let stopping = stop.load(Relaxed);
        let mut parts = [IoSliceMut::new(&mut buf)];
        let flags = if stopping { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        let got = match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(got) => got,
            Err(Errno::EAGAIN) if stopping => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(e) => bail!("capture: {e}"),
        };
        for message in got.cmsgs()? {
            if let ControlMessageOwned::RxqOvfl(lost) = message {
                ensure!(lost == 0, "the capture lost {lost} packets");
            }
        }
        let here = got.address.is_some_and(|a| a.ifindex() == index as usize);
        let len = got.bytes;
        if here {
            packets.lock().packets.push(buf[..len].to_vec());
        }
    }
}

impl Packets {
    /// How many.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether nothing was seen at all: then no absence means anything.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Every TCP and UDP flow, one for each direction, with its bytes in order.
    pub fn flows(&self) -> Vec<Flow> {
        parse::flows(&self.packets)
    }

    /// Whether the bytes can be read in a packet, or in a flow across its packets.
    pub fn contains(&self, needle: &[u8]) -> bool {
        let found = |hay: &[u8]| parse::find(hay, needle);
        self.packets.iter().any(|p| found(p)) || self.flows().iter().any(|f| found(f.bytes()))
    }

    /// Fails the test when the bytes can be read, or when there was nothing to read them in.
    ///
    /// # Panics
    /// That is how it fails.
    pub fn assert_no_plaintext(&self, needle: &[u8]) {
        assert!(!self.is_empty(), "nothing was captured: that proves nothing");
        let text = String::from_utf8_lossy(needle);
        assert!(!self.contains(needle), "{text:?} can be read on the wire:\n{self:?}");
    }

    /// Destination ports of connections that were opened (SYN without ACK).
    pub fn dialled_ports(&self) -> BTreeSet<u16> {
        self.flows().iter().filter(|f| f.opened()).map(|f| f.to().port()).collect()
    }

    /// Flows to or from an address.
    pub fn flows_of(&self, addr: SocketAddr) -> Vec<Flow> {
        self.flows().into_iter().filter(|f| f.from() == addr || f.to() == addr).collect()
    }
}

impl fmt::Debug for Packets {
    /// One line for each flow.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{} packets", self.packets.len());
        for flow in self.flows() {
            write!(text, "\n  {flow:?}")?;
        }
        f.write_str(&text)
    }
}
