//! The context of a trace in the headers of a request: W3C Trace Context, and B3 in one header or in several.
//!
//! Whoever calls decides which of them are spoken: what comes is what goes on, and `traceparent` where nothing comes.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::util::hexadecimal;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The longest `tracestate` that a span has, in bytes.
const LONGEST_STATE: usize = 512;

/// What a request says of the trace that it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Never 0.
    pub(super) trace: u128,
    /// The caller's span; never 0.
    pub(super) span: u64,
    /// Whether the caller sampled it; `None`: that is left to us (B3).
    pub(super) sampled: Option<bool>,
}

/// What the headers of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing that could be read.
    Nothing,
    /// That it isn't to be traced, and no more (`b3: 0`).
    Never,
    /// That it is part of a trace.
    Part(Context),
}

/// Reads the headers: W3C's before B3's, one header before several.
pub(super) fn read(headers: &HeaderMap) -> Said {
    if let Some(context) = headers.get(&TRACEPARENT).and_then(|value| traceparent(value.as_bytes())) {
        return Said::Part(context);
    }
    match headers.get(&B3).map(|value| single(value.as_bytes())) {
        Some(Said::Nothing) | None => several(headers),
        Some(said) => said,
    }
}

/// The trace that a request is part of, for a log.
pub(crate) fn trace_of(headers: &HeaderMap) -> Option<u128> {
    match read(headers) {
        Said::Part(context) => Some(context.trace),
        Said::Nothing | Said::Never => None,
    }
}

/// Trace Context, section 3.2: `version-trace-parent-flags`. Of a version above ours the known start is read.
fn traceparent(value: &[u8]) -> Option<Context> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next().is_some();
    if version.len() != 2 || version == b"ff" || (version == b"00" && more) || hexadecimal(version).is_none() {
        return None;
    }
    let (trace, span) = (id(trace, 32)?, id(span, 16)?);
    if flags.len() != 2 {
        return None;
    }
    let sampled = hexadecimal(flags)? & 1 == 1;
    Some(Context { trace, span: u64::try_from(span).ok()?, sampled: Some(sampled) })
}

/// `trace-span-sampled-parent`, of which the last two may be absent; or the decision alone.
fn single(value: &[u8]) -> Said {
    let mut parts = value.split(|byte| *byte == b'-');
    let (Some(first), span) = (parts.next(), parts.next()) else { return Said::Nothing };
    let Some(span) = span else {
        return if first == b"0" { Said::Never } else { Said::Nothing };
    };
    let sampled = parts.next();
    match b3(first, span, sampled, sampled.is_some_and(|it| it == b"d")) {
        Some(context) => Said::Part(context),
        None => Said::Nothing,
    }
}

fn several(headers: &HeaderMap) -> Said {
    let value = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let (sampled, debug) = (value(&B3_SAMPLED), value(&B3_FLAGS).is_some_and(|it| it == b"1"));
    match (value(&B3_TRACE), value(&B3_SPAN)) {
        (Some(trace), Some(span)) => b3(trace, span, sampled, debug).map_or(Said::Nothing, Said::Part),
        _ if sampled.is_some_and(is_no) && !debug => Said::Never,
        _ => Said::Nothing,
    }
}

fn b3(trace: &[u8], span: &[u8], sampled: Option<&[u8]>, debug: bool) -> Option<Context> {
    let trace = id(trace, 32).or_else(|| id(trace, 16))?;
    let span = u64::try_from(id(span, 16)?).ok()?;
    let sampled = match sampled {
        _ if debug => Some(true),
        Some(value) if is_no(value) => Some(false),
        Some(b"1" | b"true") => Some(true),
        _ => None,
    };
    Some(Context { trace, span, sampled })
}

fn is_no(value: &[u8]) -> bool {
    matches!(value, b"0" | b"false")
}

/// An id of so many digits that isn't 0.
fn id(digits: &[u8], len: usize) -> Option<u128> {
    if digits.len() != len {
        return None;
    }
    hexadecimal(digits).filter(|id| *id != 0)
}

/// Says to whoever is next that it is called by a sampled span.
pub(super) fn write(headers: &mut HeaderMap, trace: u128, span: u64, parent: Option<u64>) {
    let has_single = headers.contains_key(&B3);
    let has_several = headers.contains_key(&B3_TRACE) || headers.contains_key(&B3_SAMPLED);
    if headers.contains_key(&TRACEPARENT) || !(has_single || has_several) {
        if parent.is_none() {
            // Of another trace, if of any.
            headers.remove(&TRACESTATE);
        }
        put(headers, TRACEPARENT, &format!("00-{trace:032x}-{span:016x}-01"));
    }
    if has_single {
        let text = match parent {
            Some(parent) => format!("{trace:032x}-{span:016x}-1-{parent:016x}"),
            None => format!("{trace:032x}-{span:016x}-1"),
        };
        put(headers, B3, &text);
    }
    if has_several {
        put(headers, B3_TRACE, &format!("{trace:032x}"));
        put(headers, B3_SPAN, &format!("{span:016x}"));
        put(headers, B3_SAMPLED, "1");
        match parent {
            Some(parent) => put(headers, B3_PARENT, &format!("{parent:016x}")),
            None => drop(headers.remove(&B3_PARENT)),
        }
    }
}

/// Takes the word back that the request is sampled: that of a client that has no say. Each form on its own, because whoever is
/// next may read another one than we do; what can't be read goes, and so do lines after the first.
pub(super) fn unsample(headers: &mut HeaderMap) {
    if let Some(said) = only(headers, &TRACEPARENT, |value| traceparent(value).map_or(Said::Nothing, Said::Part)) {
        match said {
            Said::Part(Context { trace, span, .. }) => {
                put(headers, TRACEPARENT, &format!("00-{trace:032x}-{span:016x}-00"));
            }
            Said::Nothing | Said::Never => {
                headers.remove(&TRACEPARENT);
                headers.remove(&TRACESTATE);
            }
        }
    }
    if let Some(said) = only(headers, &B3, single) {
        match said {
            Said::Part(Context { trace, span, .. }) => put(headers, B3, &format!("{trace:032x}-{span:016x}-0")),
            Said::Nothing | Said::Never => put(headers, B3, "0"),
        }
    }
    if [B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS].iter().any(|name| headers.contains_key(name)) {
        headers.remove(&B3_FLAGS);
        put(headers, B3_SAMPLED, "0");
    }
}

/// What the first line of a header says; `None`: there is no line, or only one, by which nothing is sampled anyway.
fn only(headers: &HeaderMap, name: &HeaderName, read: impl FnOnce(&[u8]) -> Said) -> Option<Said> {
    let mut lines = headers.get_all(name).iter();
    let said = read(lines.next()?.as_bytes());
    let is_unsampled = matches!(said, Said::Never | Said::Part(Context { sampled: Some(false), .. }));
    (!is_unsampled || lines.next().is_some()).then_some(said)
}

/// The vendors' part, as it came; empty if it is longer than anybody has to keep it (Trace Context, section 3.3.1.5).
pub(super) fn state(headers: &HeaderMap) -> String {
    let all = headers.get_all(&TRACESTATE).iter().filter_map(|value| value.to_str().ok());
    let all = all.collect::<Vec<_>>();
    let long = all.iter().map(|line| line.len() + 1).sum::<usize>() > LONGEST_STATE + 1;
    if long { String::new() } else { all.join(",") }
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Digits and dashes are always a value.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
