//! The page of a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_metrics::Family;

use super::families;
use super::labels::{Labels, pair};
use super::numbers::{DURATIONS, HistogramTotal, SIZES};
use super::page::Page;
use super::series::{ConnectionSeries, RequestOutcome, RequestSeries};
use super::shard::Registry;

/// What a reader of a page wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Exemplars: the page is to become OpenMetrics.
    pub exemplars: bool,
}

/// Outcomes with their numbers, over all workers.
pub(super) fn outcomes(series: &[Arc<RequestSeries>]) -> BTreeMap<RequestOutcome, u64> {
    let mut outcomes: BTreeMap<RequestOutcome, u64> = BTreeMap::new();
    for (outcome, count) in series.iter().flat_map(|series| series.outcomes()) {
        *outcomes.entry(outcome).or_default() += count;
    }
    outcomes
}

/// The sum of a number over all workers.
pub(super) fn sum<S>(series: &[Arc<S>], of: impl Fn(&S) -> u64) -> u64 {
    series.iter().map(|series| of(series)).sum()
}

/// Labels as they stand between braces.
pub(super) fn text_of(labels: &impl Labels) -> String {
    let mut text = String::with_capacity(256);
    labels.write(&mut text);
    text
}

impl Registry {
    /// All series, in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.page(Wanted::default())
    }

    /// All series, in the text format, or in what becomes OpenMetrics.
    pub fn page(&self, wanted: Wanted) -> String {
        let mut page = Page::new(wanted.exemplars);
        self.requests(&mut page);
        self.durations(&mut page);
        self.sizes(&mut page);
        self.connections(&mut page);
        self.events(&mut page);
        page.single(&families::SERIES, self.budget.used());
        page.single(&families::SERIES_LIMIT, self.budget.limit());
        page.single(&families::SERIES_OVERFLOWED, self.budget.overflowed());
        page.text
    }

    fn requests(&self, page: &mut Page) {
        let all = self.gather(|shard| &shard.requests);
        let all: Vec<_> = all.iter().map(|(labels, series)| (text_of(labels), series)).collect();
        page.family(&families::HTTP_REQUESTS);
        for (labels, series) in &all {
            for (outcome, count) in outcomes(series) {
                let mut text = labels.clone();
                pair(&mut text, "response_class", CLASSES.get(usize::from(outcome.class)).copied().unwrap_or("none"));
                pair(&mut text, "reason", outcome.reason.as_str());
                pair(&mut text, "grpc_status", &outcome.grpc_status.map(|code| code.to_string()).unwrap_or_default());
                page.sample(&families::HTTP_REQUESTS, &text, count);
            }
        }
        page.family(&families::HTTP_REQUEST_TIME);
        for (labels, series) in &all {
            let nanos = sum(series, |series| series.time.get());
            page.sample(&families::HTTP_REQUEST_TIME, labels, nanos as f64 / 1e9);
        }
        page.family(&families::HTTP_RETRIES);
        for (labels, series) in &all {
            let retries = sum(series, |series| series.retries.get());
            if retries > 0 {
                page.sample(&families::HTTP_RETRIES, labels, retries);
            }
        }
    }

    fn durations(&self, page: &mut Page) {
        page.family(&families::HTTP_DURATION);
        for (labels, series) in self.gather(|shard| &shard.durations) {
            let total = total(&series, |series, total| series.took.add_to(total));
            page.histogram(&families::HTTP_DURATION, &text_of(&labels), &total, &DURATIONS);
        }
        page.family(&families::HANDSHAKE_DURATION);
        for (labels, series) in self.gather(|shard| &shard.handshakes) {
            let total = total(&series, |series, total| series.took.add_to(total));
            page.histogram(&families::HANDSHAKE_DURATION, &text_of(&labels), &total, &DURATIONS);
        }
    }

    fn sizes(&self, page: &mut Page) {
        let all = self.gather(|shard| &shard.sizes);
        page.family(&families::HTTP_REQUEST_BODY);
        for (labels, series) in &all {
            let total = total(series, |series, total| series.request.add_to(total));
            page.histogram(&families::HTTP_REQUEST_BODY, &text_of(labels), &total, &SIZES);
        }
        page.family(&families::HTTP_RESPONSE_BODY);
        for (labels, series) in &all {
            let total = total(series, |series, total| series.response.add_to(total));
            page.histogram(&families::HTTP_RESPONSE_BODY, &text_of(labels), &total, &SIZES);
        }
    }

    fn connections(&self, page: &mut Page) {
        type Of = fn(&ConnectionSeries) -> u64;
        let all = self.gather(|shard| &shard.connections);
        let all: Vec<_> = all.iter().map(|(labels, series)| (labels, text_of(labels), series)).collect();
        // The bodies of requests are told of what is parsed; its bytes would be the same again.
        let families: [(&Family, Of, bool); 4] = [
            (&families::TCP_OPENED, |series| series.opened.get(), true),
            (&families::TCP_OPEN, ConnectionSeries::open, true),
            (&families::TCP_RECEIVED, |series| series.received.get(), false),
            (&families::TCP_SENT, |series| series.sent.get(), false),
        ];
        for (family, value, also_of_requests) in families {
            page.family(family);
            for (_, text, series) in all.iter().filter(|(it, ..)| also_of_requests || !it.destination.is_various()) {
                page.sample(family, text, sum(series, value));
            }
        }
    }

    fn events(&self, page: &mut Page) {
        let mut last = None;
        for (labels, series) in self.gather(|shard| &shard.events) {
            let family = labels.family;
            if last != Some(family) {
                page.family(family);
                last = Some(family);
            }
            page.sample(family, &text_of(&labels), sum(&series, |series| series.count.get()));
        }
    }
}

pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn total<S>(series: &[Arc<S>], add: impl Fn(&S, &mut HistogramTotal)) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    series.iter().for_each(|series| add(series, &mut total));
    total
}
