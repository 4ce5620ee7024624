//! The process's own log: lines on standard error, with a filter that can be set while it runs, and a limit for each place in
//! the code, so that what a peer can bring about again and again doesn't fill a disk.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Instant;

use anyhow::Context as _;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// Lines of one place that are written in one second. Those of the levels debug and trace are not limited: somebody asked for
/// them.
const LINES: u32 = 20;

/// Passes so many lines of each place in each second, and counts the others.
#[derive(Debug)]
struct Limit {
    since: Instant,
    /// The second in which something came from a place last, and how much has.
    places: Mutex<HashMap<Identifier, (u64, u32)>>,
}

impl Limit {
    fn new() -> Self {
        Self { since: Instant::now(), places: Mutex::default() }
    }

    fn takes(&self, place: Identifier, second: u64) -> bool {
        let mut places = self.places.lock();
        let (last, lines) = places.entry(place).or_insert((second, 0));
        if *last != second {
            (*last, *lines) = (second, 0);
        }
        *lines = lines.saturating_add(1);
        *lines <= LINES
    }
}

impl<S> Filter<S> for Limit {
    fn enabled(&self, _meta: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let meta = event.metadata();
        let takes = *meta.level() > Level::INFO || self.takes(meta.callsite(), self.since.elapsed().as_secs());
        if !takes {
            metrics::counter!("weft_log_lines_suppressed_total").increment(1);
        }
        takes
    }
}

/// Sets the filter.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Sets the filter, such as `info` or `weft_node_proxy=debug,info`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
        self.0.reload(filter).map_err(|e| e.to_string())
    }
}

/// Starts logging: text for a terminal, one JSON object a line otherwise.
///
/// # Errors
/// A filter that can't be read, or a process that logs already.
pub fn start_logging(filter: &str) -> anyhow::Result<LogControl> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if terminal { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let lines = lines.with_filter(Limit::new());
    tracing_subscriber::registry().with(filter).with(lines).try_init().context("logging")?;
    Ok(LogControl(handle))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_comes_again_and_again_from_one_place_is_cut_there_and_nowhere_else() {
        let page = Page::default();
        let writer = page.clone();
        // Its clock stands still: all of it is one second.
        let limit = Limit { since: Instant::now() + std::time::Duration::from_secs(3600), ..Limit::new() };
        let lines = fmt::layer().with_writer(move || writer.clone()).with_filter(limit);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            for _ in 0..LINES * 2 {
                tracing::warn!("a peer did it");
                tracing::debug!("asked for");
            }
            tracing::error!("something else");
        });
        let text = String::from_utf8(page.0.lock().clone()).unwrap();
        let count = |what: &str| u32::try_from(text.matches(what).count()).unwrap();
        assert_eq!((count("a peer did it"), count("asked for"), count("something else")), (LINES, LINES * 2, 1));
    }

    #[test]
    fn the_next_second_has_lines_again() {
        let limit = Limit::new();
        let place = tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            tracing::info_span!("a place").metadata().map(|meta| meta.callsite()).unwrap()
        });
        assert!((0..LINES).all(|_| limit.takes(place.clone(), 1)));
        assert!(!limit.takes(place.clone(), 1));
        assert!(limit.takes(place, 2));
    }
}
