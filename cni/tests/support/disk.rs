//! A node whose disk is full.

use super::*;

/// A small disk that can be full, in the test's own mounts.
struct Disk<'a>(&'a std::path::Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a std::path::Path) -> Result<Self> {
        let size = Some("size=256k,nr_inodes=24");
        nix::mount::mount(Some("disk"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), size)?;
        Ok(Self(at))
    }

    /// Not another file fits.
    fn fill(&self) -> Result<()> {
        for n in 0..64 {
            match std::fs::File::create(self.0.join(format!("filler-{n}"))) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("it never fills")
    }

    fn make_room(&self) -> Result<()> {
        (0..4).try_for_each(|n| Ok(std::fs::remove_file(self.0.join(format!("filler-{n}")))?))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

pub fn on_a_full_disk_pods_that_run_are_enrolled_and_the_agent_waits_for_room() -> Result<()> {
    let bench = Bench::new(&[("plain", false)])?;
    let disk = Disk::mount(bench.dir.path())?;
    let a = bench.world.pod("a");
    let record = bench.dir.path().join(format!("state/{}.json", a.name()));
    block_on(async {
        let running = bench.agent().await?;
        let proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        bench.plugin("ADD", "plain", &a).await?.ok()?;
        disk.fill()?;
        bench.source.set("plain", true);
        running.protected(1).await?;
        ensure!(!std::fs::read_to_string(&record)?.contains("Redirecting"), "there was room");
        disk.make_room()?;
        soon("the record is written", async {
            while !std::fs::read_to_string(&record)?.contains("Redirecting") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        })
        .await?;
        running.stop(&bench).await?;
        drop(proxy);

        disk.fill()?;
        let (started, room) = tokio::join!(bench.agent(), async {
            // It has tried once by now, on this thread.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            disk.make_room()
        });
        room?;
        let running = started?;
        let _proxy = FakeProxy::connect(&bench.proxy_socket(), None).await?;
        running.protected(1).await
    })
}
