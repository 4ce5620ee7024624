//! Accept loops: take, count, hand to a worker; never let one pod's flood hold up another's.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use weft_core::reason::Reason;

use crate::identify::LocalWorkload;
use crate::inpod::ListenerRole;
use crate::observe::AcceptFailure;
use crate::worker::{Accepted, Command, Worker};

/// Connections taken from one listener before the worker's other tasks get a turn.
const TAKEN_PER_TURN: u32 = 16;
/// The first pause when descriptors or memory are out; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// As when the listener was opened.
const BACKLOG: i32 = 4096;
/// The longest pause before a broken listener is tried again.
const LONGEST_BROKEN: Duration = Duration::from_secs(30);

/// Accepts connections of a pod until the task is aborted.
pub(crate) async fn run(worker: Rc<Worker>, pod: Rc<LocalWorkload>, role: ListenerRole, listener: TcpListener) {
    let open = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let mut listener = match open(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(workload = %pod.uid(), role = role.as_str(), "listener can't be used: {error}");
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    let mut broken = false;
    let mut taken = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                if std::mem::take(&mut broken) {
                    tracing::info!(workload = %pod.uid(), role = role.as_str(), "listener works again");
                    worker.observer.reopened(&pod.workload(&worker.node.store.load()), role);
                }
                take(&worker, &pod, role, stream, peer);
                taken += 1;
                if taken % TAKEN_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                let class = classify(&error);
                let workload = pod.workload(&worker.node.store.load());
                worker.observer.accept_failed(&workload, role, class);
                match class {
                    AcceptFailure::Connection => {}
                    AcceptFailure::Pressure => {
                        tracing::warn!(workload = %pod.uid(), "accept pauses {pause:?}: {error}");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    AcceptFailure::Listener => {
                        tracing::error!(workload = %pod.uid(), role = role.as_str(),
                            "listener is broken, tried again in {pause:?}: {error}");
                        broken = true;
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_BROKEN);
                        listener = match reopen(listener) {
                            Ok(listener) => listener,
                            Err(error) => {
                                tracing::error!(workload = %pod.uid(), "listener is lost: {error}");
                                return;
                            }
                        };
                    }
                }
            }
        }
    }
}

/// Puts a socket that stopped listening back to it. The socket stays the same, so that its copies, which are for a
/// successor, work again too. If it can't be, the next `accept` says so. Registered anew, because the runtime remembers
/// for ever that it was closed.
fn reopen(listener: tokio::net::TcpListener) -> io::Result<tokio::net::TcpListener> {
    let listener = listener.into_std()?;
    if let Err(error) = socket2::SockRef::from(&listener).listen(BACKLOG) {
        tracing::debug!("cannot listen again: {error}");
    }
    tokio::net::TcpListener::from_std(listener)
}

fn take(
    worker: &Rc<Worker>,
    pod: &Rc<LocalWorkload>,
    role: ListenerRole,
    stream: tokio::net::TcpStream,
    peer: std::net::SocketAddr,
) {
    let slot = match pod.pod.budget.connection() {
        Ok(slot) => slot,
        Err(reason) => return shed(worker, pod, role, &stream, reason),
    };
    let target = crate::worker::least_loaded(&worker.workers, worker.index);
    let Some(handle) = worker.workers.get(target) else { return };
    let (sandbox, load) = (pod.pod.sandbox.clone(), handle.take_load());
    if target == worker.index {
        return worker.serve(Accepted { sandbox, role, stream, peer, slot, load });
    }
    match stream.into_std() {
        Ok(stream) => {
            handle.tell(Command::Connection(Accepted { sandbox, role, stream, peer, slot, load }));
        }
        Err(error) => tracing::warn!(workload = %pod.uid(), "a connection can't change workers: {error}"),
    }
}

/// Refuses the newest, with a reset, so that the client learns it at once and we keep nothing.
fn shed(worker: &Worker, pod: &LocalWorkload, role: ListenerRole, stream: &tokio::net::TcpStream, reason: Reason) {
    // Best effort: a plain close tells the client too.
    let _ = weft_sys::sock::reset_on_close(stream);
    worker.observer.shed(&pod.workload(&worker.node.store.load()), role, reason);
}

/// What an error of `accept` means for the next call (accept(2): errors of the new connection are passed on).
pub(crate) fn classify(error: &io::Error) -> AcceptFailure {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => AcceptFailure::Pressure,
        Some(Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) => {
            AcceptFailure::Listener
        }
        _ => AcceptFailure::Connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classed_by_what_to_do_next() {
        let class = |errno: Errno| classify(&io::Error::from_raw_os_error(errno as i32));
        for errno in [Errno::ECONNABORTED, Errno::EPROTO, Errno::ENETDOWN, Errno::EHOSTUNREACH, Errno::EINTR] {
            assert_eq!(class(errno), AcceptFailure::Connection, "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert_eq!(class(errno), AcceptFailure::Pressure, "{errno}");
        }
        for errno in [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK] {
            assert_eq!(class(errno), AcceptFailure::Listener, "{errno}");
        }
    }
}
