//! How many of the requests to a Service may be retries (GEP-3388): one budget for each Service, shared by all workers of
//! a proxy, because a retry on any of them burdens the same endpoints.
//!
//! Counted in slots of a tenth of the interval: a request counts for its interval, and for up to a tenth of it more. What is
//! counted for every request takes no lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weft_core::ids::ServiceKey;
use weft_core::traffic::RetryConstraint;

/// Slots that an interval takes.
const SLOTS_OF_INTERVAL: u32 = 10;
/// And the one that is being filled.
const SLOTS: usize = SLOTS_OF_INTERVAL as usize + 1;

/// The budgets of the Services that have one.
#[derive(Debug, Default)]
pub struct RetryBudgets(Mutex<HashMap<ServiceKey, Weak<RetryBudget>>>);

impl RetryBudgets {
    /// The budget of a Service; another constraint than before starts another one.
    pub fn of(&self, service: &ServiceKey, constraint: RetryConstraint, now: Instant) -> Arc<RetryBudget> {
        let mut budgets = self.0.lock();
        let known = budgets.get(service).and_then(Weak::upgrade);
        if let Some(budget) = known.filter(|budget| budget.constraint == constraint) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = Arc::new(RetryBudget::new(constraint, now));
        budgets.insert(service.clone(), Arc::downgrade(&budget));
        budget
    }
}

/// The budget of one Service.
#[derive(Debug)]
pub struct RetryBudget {
    constraint: RetryConstraint,
    /// Retries among them.
    requests: Window,
    retries: Window,
    /// The retries that the least rate counts.
    recent: Window,
    /// Retries are permitted one after the other, so that two of them don't take what is left for one.
    turn: Mutex<()>,
}

impl RetryBudget {
    /// A budget of which nothing was spent.
    pub fn new(constraint: RetryConstraint, now: Instant) -> Self {
        let window = |interval| Window::new(interval, now);
        let (requests, retries) = (window(constraint.interval), window(constraint.interval));
        Self { constraint, requests, retries, recent: window(constraint.min_interval), turn: Mutex::new(()) }
    }

    /// A request that isn't a retry is sent.
    pub fn request(&self, now: Instant) {
        self.requests.add(now);
    }

    /// Whether a request may be tried again now; then it counts.
    pub fn try_retry(&self, now: Instant) -> bool {
        let _turn = self.turn.lock();
        let (requests, retries) = (self.requests.sum(now) + 1, self.retries.sum(now) + 1);
        let is_in_share = retries * 100 <= requests * u64::from(self.constraint.percent);
        if !is_in_share && self.recent.sum(now) >= u64::from(self.constraint.min_retries) {
            return false;
        }
        for window in [&self.requests, &self.retries, &self.recent] {
            window.add(now);
        }
        true
    }
}

/// How often something happened lately.
#[derive(Debug)]
struct Window {
    origin: Instant,
    width: Duration,
    /// The number of the slot in the upper half, what was counted in the lower one.
    slots: [AtomicU64; SLOTS],
}

impl Window {
    fn new(interval: Duration, origin: Instant) -> Self {
        let width = (interval / SLOTS_OF_INTERVAL).max(Duration::from_millis(1));
        Self { origin, width, slots: Default::default() }
    }

    fn number(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.origin);
        // Wraps after 49 days at least, when the slots of before are long outdated.
        (since.as_nanos() / self.width.as_nanos()) as u32
    }

    fn add(&self, now: Instant) {
        let number = self.number(now);
        let Some(slot) = self.slots.get(number as usize % SLOTS) else { return };
        let more = |value: u64| {
            let (of, count) = parts(value);
            let count = if of == number { count.saturating_add(1) } else { 1 };
            Some(u64::from(number) << 32 | u64::from(count))
        };
        // It never fails: there is always a next value.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn sum(&self, now: Instant) -> u64 {
        let number = self.number(now);
        let counted = |slot: &AtomicU64| {
            let (of, count) = parts(slot.load(Ordering::Relaxed));
            let is_recent = number.wrapping_sub(of) <= SLOTS_OF_INTERVAL;
            if is_recent { u64::from(count) } else { 0 }
        };
        self.slots.iter().map(counted).sum()
    }
}

fn parts(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraint(percent: u8, min_retries: u32) -> RetryConstraint {
        let (interval, min_interval) = (Duration::from_secs(10), Duration::from_secs(1));
        RetryConstraint { percent, interval, min_retries, min_interval }
    }

    /// How many retries are permitted at a moment.
    fn permitted(budget: &RetryBudget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.try_retry(now)).take_while(|permitted| *permitted).count()
    }

    #[test]
    fn retries_are_a_share_of_all_requests_of_the_interval() {
        let start = Instant::now();
        for (percent, requests, retries) in [(20, 800, 200), (0, 800, 0), (50, 10, 10), (20, 3, 0), (20, 4, 1)] {
            let budget = RetryBudget::new(constraint(percent, 0), start);
            (0..requests).for_each(|_| budget.request(start));
            assert_eq!(permitted(&budget, start + Duration::from_secs(9)), retries, "{percent} % of {requests}");
        }
        let all = RetryBudget::new(constraint(100, 0), start);
        assert!((0..1000).all(|_| all.try_retry(start)));
    }

    #[test]
    fn what_is_older_than_the_interval_counts_no_more() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let budget = RetryBudget::new(constraint(20, 0), start);
        (0..800).for_each(|_| budget.request(at(500)));
        assert_eq!(permitted(&budget, at(500)), 200);
        assert_eq!(permitted(&budget, at(10_400)), 0, "spent within the interval");
        // The requests are forgotten with the retries that they paid for.
        assert_eq!(permitted(&budget, at(11_600)), 0);
        (0..8).for_each(|_| budget.request(at(11_600)));
        assert_eq!(permitted(&budget, at(11_600)), 2);
    }

    #[test]
    fn the_least_rate_is_allowed_whatever_the_share() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let budget = RetryBudget::new(constraint(0, 3), start);
        assert_eq!(permitted(&budget, at(50)), 3);
        assert_eq!(permitted(&budget, at(1_040)), 0, "never more than that in any second");
        assert_eq!(permitted(&budget, at(1_200)), 3);
        let a_year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(permitted(&budget, start + a_year), 3);
    }

    #[test]
    fn workers_share_what_there_is() {
        let start = Instant::now();
        let budgets = RetryBudgets::default();
        let service = ServiceKey::new("shop", "web");
        let first = budgets.of(&service, constraint(20, 0), start);
        (0..4000).for_each(|_| first.request(start));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let budget = budgets.of(&service, constraint(20, 0), start);
                std::thread::spawn(move || {
                    (0..1000).for_each(|_| budget.request(start));
                    permitted(&budget, start)
                })
            })
            .collect();
        let spent: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(spent + permitted(&first, start), 2000, "8,000 requests and a fifth of all");
        let changed = budgets.of(&service, constraint(30, 0), start);
        assert!(!Arc::ptr_eq(&changed, &first));
        assert!(Arc::ptr_eq(&changed, &budgets.of(&service, constraint(30, 0), start)));
    }
}
