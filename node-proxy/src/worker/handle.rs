//! Workers seen from other threads.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::Node;
use super::run::{self, Engine};
use crate::budget::ConnectionSlot;
use crate::identify::Pod;
use crate::inpod::ListenerRole;
use weft_core::ids::SandboxId;

/// A worker with so many connections more than the least loaded hands new ones over; below, they stay where their
/// pod's tunnels are.
const UNEVEN: usize = 4;

/// A sign of completion: whoever waits learns when every clone was dropped.
pub type Done = mpsc::Sender<Infallible>;

/// What a worker is told.
pub enum Command {
    /// A pod came. Every worker learns of it.
    AddPod(Arc<Pod>, Done),
    /// Accept connections of a pod on this worker.
    Listen(SandboxId, ListenerRole, TcpListener, Done),
    /// Stop accepting connections of a pod. Established ones go on.
    StopListening(SandboxId, Done),
    /// A pod is gone.
    RemovePod(SandboxId, Done),
    /// A connection that another worker accepted.
    Connection(Accepted<TcpStream>),
    /// Accept nothing any more, let tunnels go, finish what is open.
    Drain,
    /// End what is left.
    Stop,
}

/// A connection that was accepted and counted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The pod whose listener accepted it.
    pub sandbox: SandboxId,
    /// Which listener.
    pub role: ListenerRole,
    /// The connection.
    pub stream: S,
    /// Its source address.
    pub peer: SocketAddr,
    /// Counts it on its workload and the node.
    pub slot: ConnectionSlot,
    /// Counts it on its worker.
    pub load: LoadSlot,
}

/// How many connections a worker has.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self) -> LoadSlot {
        self.0.fetch_add(1, Ordering::Relaxed);
        LoadSlot(Arc::clone(&self.0))
    }
}

/// One connection of a worker, counted until dropped.
#[derive(Debug)]
pub struct LoadSlot(Arc<AtomicUsize>);

impl Drop for LoadSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    load: Load,
}

impl WorkerHandle {
    /// Tells the worker something. A worker that has ended hears nothing, and what a command carries is dropped.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Counts one more connection on this worker.
    pub(crate) fn take_load(&self) -> LoadSlot {
        self.load.take()
    }

    /// Connections on this worker.
    pub fn connections(&self) -> usize {
        self.load.get()
    }
}

/// The worker that should take a connection which `own` accepted.
pub(crate) fn least_loaded(workers: &[WorkerHandle], own: usize) -> usize {
    let Some(mine) = workers.get(own).map(WorkerHandle::connections) else { return own };
    let least = workers.iter().enumerate().min_by_key(|(_, worker)| worker.connections());
    match least {
        Some((index, worker)) if mine > worker.connections() + UNEVEN => index,
        _ => own,
    }
}

/// All workers of the process.
pub struct Workers {
    handles: Arc<[WorkerHandle]>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// When a thread or runtime can't be made.
    pub fn start(node: &Arc<Node>, engine: &Arc<dyn Engine>, count: usize) -> io::Result<Self> {
        let (handles, receivers): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|_| {
                let (commands, receiver) = mpsc::unbounded_channel();
                (WorkerHandle { commands, load: Load::default() }, receiver)
            })
            .unzip();
        let handles: Arc<[WorkerHandle]> = handles.into();
        let mut threads = Vec::with_capacity(handles.len());
        for (index, commands) in receivers.into_iter().enumerate() {
            let start = run::Start {
                node: Arc::clone(node),
                engine: Arc::clone(engine),
                workers: Arc::clone(&handles),
                index,
                commands,
            };
            threads.push(run::spawn(start)?);
        }
        Ok(Self { handles, threads })
    }

    /// The workers.
    pub fn handles(&self) -> &Arc<[WorkerHandle]> {
        &self.handles
    }

    /// Tells every worker something and waits until all have done it.
    pub async fn tell_all(&self, command: impl Fn(Done) -> Command) {
        tell_all(&self.handles, command).await;
    }

    /// Connections on all workers.
    pub fn connections(&self) -> usize {
        self.handles.iter().map(WorkerHandle::connections).sum()
    }

    /// Ends all workers and waits for their threads.
    pub fn stop(self) {
        for handle in self.handles.iter() {
            handle.tell(Command::Stop);
        }
        for thread in self.threads {
            // A worker that panicked has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Tells workers something and waits until all have done it.
pub async fn tell_all(handles: &[WorkerHandle], command: impl Fn(Done) -> Command) {
    let (done, mut all) = mpsc::channel(1);
    for handle in handles {
        handle.tell(command(done.clone()));
    }
    drop(done);
    // Nothing is ever sent: the channel ends with the last clone.
    let _none: Option<Infallible> = all.recv().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(connections: usize) -> (WorkerHandle, Vec<LoadSlot>) {
        let (commands, _) = mpsc::unbounded_channel();
        let handle = WorkerHandle { commands, load: Load::default() };
        let slots = (0..connections).map(|_| handle.load.take()).collect();
        (handle, slots)
    }

    #[test]
    fn a_connection_stays_unless_another_worker_has_clearly_less_to_do() {
        for (loads, own, want) in
            [(vec![4, 0], 0, 0), (vec![5, 0], 0, 1), (vec![5, 0], 1, 1), (vec![9, 3, 1], 0, 2), (vec![2, 2], 0, 0)]
        {
            let (workers, _slots): (Vec<_>, Vec<_>) = loads.iter().map(|n| worker(*n)).unzip();
            assert_eq!(least_loaded(&workers, own), want, "{loads:?}");
        }
    }
}
