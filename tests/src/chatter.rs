//! TCP connections that stay open and talk now and then.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_testkit::Task;
use weft_testkit::clients::connect;

use crate::Mesh;

/// Between two messages of a connection.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an echo may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens connections from the pod `web` to an echo server and keeps them talking until told to stop; the task says how
/// many broke.
pub fn chatter(mesh: &Mesh, to: SocketAddr, count: usize) -> (watch::Sender<bool>, Task<Result<usize>>) {
    let (stop, stopped) = watch::channel(false);
    let task = mesh.pod("web").netns.spawn(async move {
        let mut all = JoinSet::new();
        for _ in 0..count {
            let (mut stream, stopped) = (connect(to).await?, stopped.clone());
            all.spawn(async move {
                while !*stopped.borrow() {
                    if !echoes(&mut stream).await.unwrap_or(false) {
                        return false;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                true
            });
        }
        let results = all.join_all().await;
        Ok(results.into_iter().filter(|well| !well).count())
    });
    (stop, task)
}

/// Whether a connection sends back what it is sent.
///
/// # Errors
/// When it fails, or takes longer than ten seconds.
pub async fn echoes(stream: &mut TcpStream) -> Result<bool> {
    stream.write_all(b"still here").await?;
    let mut back = [0; 10];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await??;
    Ok(back == *b"still here")
}
