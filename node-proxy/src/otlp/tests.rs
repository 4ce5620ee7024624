//! What is dropped, and whose.

use std::cell::RefCell;

use weft_core::ids::{Port, ServiceKey, ServicePortKey};

use super::*;

thread_local! {
    static DROPPED: RefCell<Vec<(&'static str, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Something for a collector that never answers.
#[derive(Debug)]
struct Unheard(Collector, usize);

impl Signal for Unheard {
    const NAME: &'static str = "nothing";
    const THREAD: &'static str = "none";

    fn collector(&self) -> &Collector {
        &self.0
    }

    fn size(&self) -> usize {
        self.1
    }

    fn dropped(reason: &'static str, count: usize) {
        DROPPED.with_borrow_mut(|dropped| dropped.push((reason, count)));
    }

    fn export(
        _: Vec<Self>,
        _: &NodeName,
        _: Channel,
    ) -> impl Future<Output = Result<i64, tonic::Status>> + Send + 'static + use<> {
        std::future::pending()
    }
}

fn dropped() -> Vec<(&'static str, usize)> {
    DROPPED.with_borrow_mut(std::mem::take)
}

fn exporter() -> Exporter<Unheard> {
    let settings = ExportSettings { endpoint: Some("http://collector.invalid:4317".into()), node: "n1".into() };
    Exporter { settings, store: Arc::default(), sinks: HashMap::new() }
}

fn on_one_thread(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn a_collector_that_does_not_answer_costs_what_is_meant_for_it_and_nothing_else() {
    on_one_thread(async {
        let (mut exporter, mut under_way) = (exporter(), JoinSet::new());
        for _ in 0..BATCH + WAITING {
            exporter.take(Unheard(Collector::Default, 1), &mut under_way);
        }
        assert_eq!((dropped(), under_way.len()), (Vec::new(), 1), "one request at a time");
        for _ in 0..3 {
            exporter.take(Unheard(Collector::Default, 1), &mut under_way);
        }
        assert_eq!(dropped(), [("collector", 1); 3]);
        // A Service without endpoints: its own are dropped, and told once.
        let service = ServicePortKey { service: ServiceKey::new("a", "b"), port: Port::new(4317).unwrap() };
        for _ in 0..2 {
            exporter.take(Unheard(Collector::Service(service.clone()), 1), &mut under_way);
        }
        exporter.flush(&mut under_way);
        let ended = under_way.join_next().await.unwrap();
        exporter.sent(ended);
        assert_eq!(dropped(), [("export", 2)]);
        assert!(exporter.sinks[&Collector::Service(service)].failing);
    });
}

#[test]
fn what_a_collector_refuses_and_what_finds_no_room_is_counted() {
    on_one_thread(async {
        let channel = Endpoint::from_static("http://collector.invalid:4317").connect_lazy();
        let connection = Connection { address: None, channel };
        assert!(sent::<Unheard>(connection.clone(), Ok(0)).is_ok());
        assert!(dropped().is_empty());
        assert!(sent::<Unheard>(connection.clone(), Ok(2)).is_ok(), "the connection is as good as before");
        assert_eq!(dropped(), [("refused", 2)]);
        assert!(sent::<Unheard>(connection, Err(tonic::Status::unavailable("gone"))).is_err());

        let (queue, _kept) = Queue::<Unheard>::bare();
        for _ in 0..QUEUE + 2 {
            queue.send(Box::new(Unheard(Collector::Default, 1)));
        }
        assert_eq!(dropped(), [("queue", 1); 2]);
        Queue::<Unheard>::default().send(Box::new(Unheard(Collector::Default, 1)));
        assert!(dropped().is_empty(), "nobody exports here at all");
    });
}

#[test]
fn a_request_is_no_larger_than_a_collector_takes() {
    let of = |sizes: &[usize]| batch(&sizes.iter().map(|size| Unheard(Collector::Default, *size)).collect::<Vec<_>>());
    assert_eq!(of(&[1; BATCH + 1]), BATCH);
    assert_eq!(of(&[BATCH_BYTES / 4; 9]), 4);
    assert_eq!(of(&[2 * BATCH_BYTES, 1]), 1, "it goes, and the collector may refuse it");
    assert_eq!(of(&[1, 2 * BATCH_BYTES]), 1);
}
