//! The wall clock that validity is judged by: the system's, or in tests one that follows tokio's paused time.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::time::Instant;

/// Where "now" comes from.
#[derive(Clone, Copy)]
pub struct Clock(Source);

#[derive(Clone, Copy)]
enum Source {
    System,
    Tokio { base: SystemTime, start: Instant, step: Option<&'static AtomicI64> },
}

impl Clock {
    /// The system's wall clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `base` now and moves with tokio's time, paused or not.
    pub fn following_tokio(base: SystemTime) -> Self {
        Self(Source::Tokio { base, start: Instant::now(), step: None })
    }

    /// The same, for tests of clocks that are wrong: set off by as many seconds as `step` says at any moment.
    pub fn stepped(base: SystemTime, step: &'static AtomicI64) -> Self {
        Self(Source::Tokio { base, start: Instant::now(), step: Some(step) })
    }

    /// The current time.
    pub fn now(&self) -> SystemTime {
        match self.0 {
            Source::System => SystemTime::now(),
            Source::Tokio { base, start, step } => {
                let now = base.checked_add(start.elapsed()).unwrap_or(base);
                let step = step.map_or(0, |step| step.load(Ordering::Relaxed));
                let off = Duration::from_secs(step.unsigned_abs());
                if step < 0 { now.checked_sub(off) } else { now.checked_add(off) }.unwrap_or(now)
            }
        }
    }

    /// Seconds since the epoch, as webpki wants them.
    pub(crate) fn unix(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds(self.now())))
    }
}

/// Whole seconds since the epoch, 0 for anything before it.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The time that many seconds after the epoch.
pub(crate) fn from_seconds(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.unix())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Tokio { .. } => "Clock(tokio)",
        })
    }
}
