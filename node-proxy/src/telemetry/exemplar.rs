//! Which request is an example of what a histogram counted: by its trace, if that is sampled and so can be looked up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use http::{HeaderMap, HeaderName};

use crate::util::hexadecimal;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of a trace; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// Of a trace by its number; `None` for 0, which is nobody's.
    pub const fn new(id: u128) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The trace that a request is part of, if it says that it is sampled (W3C Trace Context, section 3.2).
    pub fn sampled(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(&TRACEPARENT)?.as_bytes();
        let field = |from: usize, to: usize| value.get(from..to);
        let dashes = [2, 35, 52].into_iter().all(|at| value.get(at) == Some(&b'-'));
        // A later version may have more after another dash; `ff` is none.
        let is_whole = match field(0, 2)? {
            b"00" => value.len() == 55,
            b"ff" => false,
            version => version.iter().all(u8::is_ascii_hexdigit) && (value.len() == 55 || value.get(55) == Some(&b'-')),
        };
        let is_sampled = hexadecimal(field(53, 55)?)? & 1 == 1;
        if !dashes || !is_whole || !is_sampled || hexadecimal(field(36, 52)?)? == 0 {
            return None;
        }
        Self::new(hexadecimal(field(3, 35)?)?)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One value that was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    pub(super) value: u64,
    /// Since 1970.
    pub(super) at_millis: u64,
}

/// The latest exemplar of a bucket: one writer, readers that never hold it up. A reader that meets a write sees none.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Odd while it is written; 0 before the first.
    version: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    value: AtomicU64,
    at_millis: AtomicU64,
}

impl Slot {
    /// Only ever called by the worker that owns it.
    pub(super) fn put(&self, exemplar: &Exemplar) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees one of the new fields sees the odd version too.
        fence(Ordering::Release);
        let TraceId(id) = exemplar.trace;
        #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
        let (high, low) = ((id >> 64) as u64, id as u64);
        self.high.store(high, Ordering::Relaxed);
        self.low.store(low, Ordering::Relaxed);
        self.value.store(exemplar.value, Ordering::Relaxed);
        self.at_millis.store(exemplar.at_millis, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<Exemplar> {
        let before = self.version.load(Ordering::Acquire);
        let id = u128::from(self.high.load(Ordering::Relaxed)) << 64 | u128::from(self.low.load(Ordering::Relaxed));
        let (value, at_millis) = (self.value.load(Ordering::Relaxed), self.at_millis.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole = before.is_multiple_of(2) && before == self.version.load(Ordering::Relaxed);
        TraceId::new(id).filter(|_| is_whole).map(|trace| Exemplar { trace, value, at_millis })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn sampled(value: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(TRACEPARENT.clone(), HeaderValue::from_str(value).unwrap())]);
        TraceId::sampled(&headers).map(|id| id.to_string())
    }

    #[test]
    fn only_a_sampled_trace_is_one_to_look_up() {
        assert_eq!(sampled(&format!("00-{ID}-00f067aa0ba902b7-01")).as_deref(), Some(ID));
        assert_eq!(sampled(&format!("00-{ID}-00f067aa0ba902b7-03")).as_deref(), Some(ID));
        assert_eq!(sampled(&format!("cc-{ID}-00f067aa0ba902b7-01-what.comes")).as_deref(), Some(ID));
        for not in [
            format!("00-{ID}-00f067aa0ba902b7-00"),
            format!("00-{ID}-00f067aa0ba902b7-02"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("00+{ID}+00f067aa0ba902b7+01"),
            "é".repeat(40),
            String::new(),
        ] {
            assert_eq!(sampled(&not), None, "{not}");
        }
        assert_eq!(TraceId::sampled(&HeaderMap::new()), None);
    }

    #[test]
    fn a_reader_sees_a_whole_exemplar_or_none() {
        let slot = Slot::default();
        assert_eq!(slot.get(), None);
        let made = |n: u64| Exemplar { trace: TraceId(u128::from(n) << 64 | u128::from(n)), value: n, at_millis: n };
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while last < 20_000 {
                    let Some(seen) = slot.get() else { continue };
                    assert_eq!(seen, made(seen.value));
                    last = seen.value;
                }
            });
            (1..=20_000).for_each(|n| slot.put(&made(n)));
            reader.join().unwrap();
        });
        assert_eq!(slot.get(), Some(made(20_000)));
    }
}
