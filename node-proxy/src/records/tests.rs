use super::*;

fn record(id: &str, time: &str) -> Box<Record> {
    Box::new(Record { request_id: id.into(), time: time.into(), ..Record::default() })
}

#[test]
fn what_failed_is_always_kept_and_the_rest_as_asked() {
    let quick = Duration::from_millis(1);
    let ring = Records::default().ring();
    assert_eq!(ring.wants((503, None), Reason::NoEndpoint, quick), Some(Kept::Failed));
    assert_eq!(ring.wants((500, None), Reason::Ok, quick), Some(Kept::Failed));
    assert_eq!(ring.wants((200, None), Reason::UpstreamReset, quick), Some(Kept::Failed), "broken off");
    assert_eq!(ring.wants((404, None), Reason::NoRoute, quick), Some(Kept::Refused));
    assert_eq!(ring.wants((403, None), Reason::PolicyDenied, quick), Some(Kept::Refused));
    assert_eq!(ring.wants((200, Some(7)), Reason::PolicyDenied, quick), Some(Kept::Refused));
    assert_eq!(ring.wants((0, None), Reason::DownstreamReset, quick), Some(Kept::Refused));
    assert_eq!(ring.wants((404, None), Reason::Ok, quick), None, "the application's own");
    assert_eq!(ring.wants((302, None), Reason::Redirect, quick), None);
    assert_eq!(ring.wants((200, Some(14)), Reason::Ok, quick), Some(Kept::Failed));
    assert_eq!(ring.wants((200, Some(5)), Reason::Ok, quick), None, "what isn't found is no failure");
    assert_eq!(ring.wants((200, None), Reason::Ok, Duration::from_millis(1001)), Some(Kept::Slow));
    let all = Records::new(Keep { slower_than: None, share: 1.0, ..Keep::default() }).ring();
    assert_eq!(all.wants((200, None), Reason::Ok, Duration::from_secs(60)), Some(Kept::Sampled));
}

#[test]
fn the_newest_stay_within_number_and_bytes_and_the_slow_push_out_none_that_failed() {
    let records = Records::new(Keep { failed: 3, others: 2, bytes: 4 * BASE, ..Keep::default() });
    let ring = records.ring();
    for n in 0..5 {
        ring.push(record(&format!("f{n}"), &format!("2026-01-01T00:00:0{n}Z")), Kept::Failed);
    }
    for n in 5..9 {
        ring.push(record(&format!("s{n}"), &format!("2026-01-01T00:00:0{n}Z")), Kept::Slow);
    }
    let ids = |records: &Records| -> Vec<String> {
        records.find(None, 10).into_iter().map(|record| record.request_id).collect()
    };
    assert_eq!(ids(&records), ["s8", "s7", "f4", "f3", "f2"]);
    // Whoever looks for what isn't there finds no room but its own.
    for n in 0..600 {
        ring.push(record(&format!("r{n}"), "2026-01-01T00:00:00Z"), Kept::Refused);
    }
    assert_eq!(records.find(None, 1000).iter().filter(|record| record.kept == "failed").count(), 3);
    ring.refused.lock().records.clear();
    // One large record takes the room of several.
    let large =
        Record { path: "/x".repeat(400), detail: "y".repeat(LONGEST), ..*record("large", "2026-01-01T00:01:00Z") };
    ring.push(Box::new(Record { attempts: vec![Attempt::default(); 40], ..large }), Kept::Failed);
    let found = records.find(Some("large"), 1);
    assert!(found.is_empty(), "larger than all the room there is");
    assert_eq!(ids(&records), ["s8", "s7"]);
    assert_eq!(ring.failed.lock().bytes, 0, "what went is counted no more");
}

#[test]
fn what_is_cut_off_takes_no_room() {
    let ring = Records::default().ring();
    for _ in 0..600 {
        let long = || "x".repeat(60_000);
        let attempt = Attempt { detail: long(), ..Attempt::default() };
        let made = Record { path: long(), authority: long(), method: long(), detail: long(), ..Record::default() };
        ring.push(Box::new(Record { attempts: vec![attempt], ..made }), Kept::Failed);
    }
    let queue = ring.failed.lock();
    let room = |it: &Record| it.path.capacity() + it.authority.capacity() + it.method.capacity() + it.detail.capacity();
    let tries = |it: &Record| it.attempts.iter().map(|attempt| attempt.detail.capacity()).sum::<usize>();
    let taken: usize = queue.records.iter().map(|record| room(record) + tries(record)).sum();
    assert!(queue.records.len() > 100 && taken < Keep::default().bytes, "{} records take {taken}", queue.records.len());
}

#[test]
fn a_record_is_found_by_its_id_whichever_worker_has_it_and_long_texts_are_cut() {
    let records = Records::default();
    let rings = [records.ring(), records.ring()];
    rings[0].push(record("a", "2026-01-01T00:00:00Z"), Kept::Failed);
    let path = format!("/{}", "ü".repeat(LONGEST));
    rings[1].push(Box::new(Record { path, ..*record("a", "2026-01-01T00:00:01Z") }), Kept::Failed);
    rings[1].push(record("b", "2026-01-01T00:00:02Z"), Kept::Slow);
    let found = records.find(Some("a"), 10);
    assert_eq!(found.len(), 2);
    assert!(found[0].time > found[1].time && found[0].path.len() <= LONGEST, "{found:?}");
    assert_eq!(records.find(Some("b"), 10)[0].kept, "slow");
    assert_eq!(records.find(None, 1).len(), 1);
    assert!(records.find(Some("c"), 10).is_empty());
}
