//! The last two readings of the proxies' pages: a window of now.

use std::time::{Duration, Instant};

use crate::{Metrics, Window};

/// A reading is good for so long: who asks again sooner sees the same.
pub const FRESH: Duration = Duration::from_secs(9);
/// With one that is older than this, a window would tell of long ago.
const OLD: Duration = Duration::from_secs(60);
/// Less than this says nothing about a second.
const SHORTEST: Duration = Duration::from_secs(1);

/// Pages by the names of their processes, read at one moment.
#[derive(Debug)]
struct Reading {
    at: Instant,
    pages: Vec<(String, Metrics)>,
}

/// Two readings at most: pages of a large mesh are large.
#[derive(Debug, Default)]
pub struct History {
    before: Option<Reading>,
    now: Option<Reading>,
}

impl History {
    /// Takes a reading.
    pub fn take(&mut self, at: Instant, pages: Vec<(String, Metrics)>) {
        let is_near = |it: &Reading| at.saturating_duration_since(it.at) < OLD;
        self.before = self.now.take().filter(is_near);
        self.now = Some(Reading { at, pages });
    }

    /// How long to wait for another reading, if a window of now needs one; zero: not at all.
    pub fn needs_reading_in(&self, now: Instant) -> Option<Duration> {
        let age = |it: &Reading| now.saturating_duration_since(it.at);
        match (&self.before, &self.now) {
            (Some(_), Some(last)) if age(last) < FRESH => None,
            (None, Some(last)) => Some(SHORTEST.saturating_sub(age(last))),
            (_, None) | (Some(_), Some(_)) => Some(Duration::ZERO),
        }
    }

    /// What was counted between the two.
    pub fn window(&self) -> Option<Window> {
        let (before, now) = (self.before.as_ref()?, self.now.as_ref()?);
        Some(Window::between(&before.pages, &now.pages, now.at.saturating_duration_since(before.at)))
    }

    /// The pages that were read last.
    pub fn pages(&self) -> &[(String, Metrics)] {
        self.now.as_ref().map(|it| it.pages.as_slice()).unwrap_or_default()
    }

    /// When that was.
    pub fn read_at(&self) -> Option<Instant> {
        self.now.as_ref().map(|it| it.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(value: u32) -> Vec<(String, Metrics)> {
        vec![("node n1".to_owned(), Metrics::parse(&format!("weft_x_total {value}\n")))]
    }

    #[test]
    fn a_window_is_of_now_and_long_enough_to_say_something() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut history = History::default();
        assert_eq!(history.needs_reading_in(start), Some(Duration::ZERO));
        history.take(start, page(5));
        assert!(history.window().is_none(), "one reading is no window");
        assert_eq!(history.needs_reading_in(start), Some(SHORTEST));
        history.take(at(2), page(25));
        let window = history.window().unwrap();
        let counted: f64 = window.of("weft_x_total").map(|sample| sample.value).sum();
        assert_eq!((counted, window.seconds), (20.0, 2.0));
        assert_eq!(history.needs_reading_in(at(3)), None, "it is fresh");
        assert_eq!(history.needs_reading_in(at(2) + FRESH), Some(Duration::ZERO));
        // Nobody has asked for an hour.
        history.take(at(3600), page(9000));
        assert!(history.window().is_none(), "that would be the mean of an hour");
        assert_eq!(history.needs_reading_in(at(3600)), Some(SHORTEST));
    }
}
