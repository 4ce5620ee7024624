//! Which requests are traced, and what their headers say afterwards.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue};
use weft_core::telemetry::{AccessLog, Collector, ParentSampling, Share, Telemetry, Tracing};

use super::context::{self, Context, Said};
use super::{Place, begin};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    pairs.iter().map(pair).collect()
}

fn w3c(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn terms(sampling: Share, parent: ParentSampling) -> Rc<Telemetry> {
    let tracing =
        Tracing { collector: Collector::Default, sampling, parent, service_name: None, attributes: Vec::new() };
    Rc::new(Telemetry { access_log: AccessLog::default(), tracing: Some(tracing), parent })
}

fn respected(sampling: Share) -> Rc<Telemetry> {
    terms(sampling, ParentSampling::Respected(Share::ALL))
}

fn read(pairs: &[(&'static str, &str)]) -> Option<Option<bool>> {
    let known = |context: Context| {
        assert_eq!((format!("{:032x}", context.trace), format!("{:016x}", context.span)), (TRACE.into(), SPAN.into()));
        context.sampled
    };
    match context::read(&headers(pairs)) {
        Said::Part(context) => Some(known(context)),
        Said::Nothing | Said::Never => None,
    }
}

#[test]
fn all_forms_of_a_context_are_read() {
    for (pairs, expected) in [
        (&[("traceparent", w3c("01").as_str())][..], Some(Some(true))),
        (&[("traceparent", w3c("00").as_str())], Some(Some(false))),
        (&[("traceparent", w3c("02").as_str())], Some(Some(false))),
        (&[("traceparent", format!("cc-{TRACE}-{SPAN}-01-what-comes").as_str())], Some(Some(true))),
        (&[("b3", format!("{TRACE}-{SPAN}-1").as_str())], Some(Some(true))),
        (&[("b3", format!("{TRACE}-{SPAN}-d").as_str())], Some(Some(true))),
        (&[("b3", format!("{TRACE}-{SPAN}-0-{SPAN}").as_str())], Some(Some(false))),
        (&[("b3", format!("{TRACE}-{SPAN}").as_str())], Some(None)),
        (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")], Some(Some(true))),
        (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")], Some(Some(true))),
        (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)], Some(None)),
        // The first that can be read counts.
        (&[("traceparent", "no"), ("b3", format!("{TRACE}-{SPAN}-1").as_str())], Some(Some(true))),
        (&[("traceparent", w3c("00").as_str()), ("b3", format!("{TRACE}-{SPAN}-1").as_str())], Some(Some(false))),
    ] {
        assert_eq!(read(pairs), expected, "{pairs:?}");
    }
    for odd in [
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-001"),
        "-".repeat(60),
        String::new(),
    ] {
        assert_eq!(read(&[("traceparent", odd.as_str())]), None, "{odd}");
    }
    assert_eq!(context::read(&headers(&[("b3", "0")])), Said::Never);
    assert_eq!(context::read(&headers(&[("x-b3-sampled", "0")])), Said::Never);
    let short = headers(&[("b3", "e457b5a2e4d86bd1-05e3ac9a4f6e3b90-1")]);
    assert!(matches!(context::read(&short), Said::Part(Context { trace: 0xe457_b5a2_e4d8_6bd1, .. })));
}

#[test]
fn what_is_not_sampled_passes_as_it_is() {
    let off = Rc::new(Telemetry { tracing: None, ..(*respected(Share::ALL)).clone() });
    for pairs in [
        &[("traceparent", w3c("00").as_str()), ("tracestate", "a=b")][..],
        &[("b3", "0")],
        &[("x-b3-sampled", "0")],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "0")],
        &[],
    ] {
        for (told, place) in [
            (respected(Share::NONE), Place::Outbound),
            (respected(Share::NONE), Place::Inbound { decided: false }),
            (Rc::clone(&off), Place::Gateway),
        ] {
            let mut passed = headers(pairs);
            assert!(begin(&told, &mut passed, place).is_none(), "{pairs:?}");
            assert_eq!(passed, headers(pairs));
        }
    }
    let mut sampled = headers(&[("traceparent", w3c("01").as_str())]);
    assert!(begin(&off, &mut sampled, Place::Outbound).is_none());
    assert_eq!(sampled["traceparent"], w3c("01"), "off is off");
}

#[test]
fn a_span_is_the_next_ones_caller_in_the_form_that_came() {
    let sampled = |pairs: &[(&'static str, &str)]| {
        let mut passed = headers(pairs);
        let trace = begin(&respected(Share::ALL), &mut passed, Place::Outbound).unwrap();
        (passed, format!("{:032x}", trace.id), format!("{:016x}", trace.span), trace.parent)
    };
    let (passed, id, span, parent) = sampled(&[("traceparent", w3c("01").as_str()), ("tracestate", "a=b")]);
    assert_eq!(
        (passed["traceparent"].to_str().unwrap(), id.as_str()),
        (format!("00-{TRACE}-{span}-01").as_str(), TRACE)
    );
    assert_eq!((passed["tracestate"].to_str().unwrap(), parent), ("a=b", Some(0x00f0_67aa_0ba9_02b7)));
    let (passed, _, span, _) = sampled(&[("b3", format!("{TRACE}-{SPAN}-1").as_str())]);
    assert_eq!(passed["b3"], format!("{TRACE}-{span}-1-{SPAN}"));
    assert!(!passed.contains_key("traceparent"));
    let (passed, _, span, _) = sampled(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")]);
    let names = ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"];
    assert_eq!(names.map(|name| passed[name].to_str().unwrap()), [TRACE, &span, SPAN, "1"]);
    assert!(!passed.contains_key("traceparent"));
    // A trace that begins here; what can't be read is of none.
    let (passed, id, span, parent) = sampled(&[("traceparent", "odd"), ("tracestate", "a=b")]);
    assert_eq!((passed["traceparent"].to_str().unwrap(), parent), (format!("00-{id}-{span}-01").as_str(), None));
    assert!(!passed.contains_key("tracestate"));
    let (passed, id, span, _) = sampled(&[]);
    assert_eq!(passed["traceparent"], format!("00-{id}-{span}-01"));
}

#[test]
fn a_client_from_outside_cannot_have_itself_traced() {
    let ignored = terms(Share::NONE, ParentSampling::Ignored);
    let mut passed = headers(&[("traceparent", w3c("01").as_str()), ("b3", format!("{TRACE}-{SPAN}-d").as_str())]);
    assert!(begin(&ignored, &mut passed, Place::Gateway).is_none());
    assert_eq!(
        (&passed["traceparent"], &passed["b3"]),
        (&w3c("00").parse().unwrap(), &format!("{TRACE}-{SPAN}-0").parse().unwrap())
    );
    let mut several = headers(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")]);
    assert!(begin(&ignored, &mut several, Place::Gateway).is_none());
    assert_eq!(several["x-b3-sampled"], "0");
    assert!(!several.contains_key("x-b3-flags"));
    // In each form on its own, whether the Gateway traces or only others do.
    let (single, zero) = (|flag: &str| format!("{TRACE}-{SPAN}-{flag}"), "0".to_owned());
    for told in [ignored, Rc::new(Telemetry { tracing: None, ..(*terms(Share::ALL, ParentSampling::Ignored)).clone() })]
    {
        for (came, goes) in [
            (vec![("traceparent", w3c("01"))], vec![("traceparent", w3c("00"))]),
            (
                vec![("traceparent", w3c("00")), ("b3", single("1"))],
                vec![("traceparent", w3c("00")), ("b3", single("0"))],
            ),
            (vec![("traceparent", w3c("00")), ("traceparent", w3c("01"))], vec![("traceparent", w3c("00"))]),
            (vec![("traceparent", "odd".into()), ("tracestate", "a=b".into())], vec![]),
            (vec![("b3", "1".into())], vec![("b3", zero.clone())]),
            (vec![("b3", single("0")), ("b3", single("1"))], vec![("b3", single("0"))]),
            (vec![("x-b3-sampled", "1".into())], vec![("x-b3-sampled", zero.clone())]),
            (vec![("x-b3-flags", "1".into())], vec![("x-b3-sampled", zero.clone())]),
            (vec![], vec![]),
        ] {
            let lines = |pairs: &[(&'static str, String)]| -> HeaderMap {
                let mut map = HeaderMap::new();
                for (name, value) in pairs {
                    map.append(*name, value.parse().unwrap());
                }
                map
            };
            let mut passed = lines(&came);
            assert!(begin(&told, &mut passed, Place::Gateway).is_none());
            assert_eq!(passed, lines(&goes), "{came:?}");
            let mut from_pod = lines(&came);
            begin(&told, &mut from_pod, Place::Outbound);
            assert_eq!(from_pod, lines(&came), "a pod's own");
        }
    }
    // Whom the Gateway picks stays in the trace that it says it is part of.
    let mut picked = headers(&[("traceparent", w3c("00").as_str())]);
    let trace = begin(&terms(Share::ALL, ParentSampling::Ignored), &mut picked, Place::Gateway).unwrap();
    assert_eq!(format!("{:032x}", trace.id), TRACE);
}

#[test]
fn no_trace_begins_where_another_proxy_has_decided() {
    let all = respected(Share::ALL);
    assert!(begin(&all, &mut HeaderMap::new(), Place::Inbound { decided: true }).is_none());
    assert!(begin(&all, &mut HeaderMap::new(), Place::Inbound { decided: false }).is_some());
    let mut part = headers(&[("traceparent", w3c("01").as_str())]);
    assert!(begin(&all, &mut part, Place::Inbound { decided: true }).is_some());
    // Unless the policy of whoever is called takes no notice of others.
    let anew = terms(Share::ALL, ParentSampling::Ignored);
    assert!(begin(&anew, &mut HeaderMap::new(), Place::Inbound { decided: true }).is_some());
}

#[test]
fn a_span_has_no_more_of_the_vendors_part_than_anybody_has_to_keep() {
    let state = |text: &str| {
        let mut passed = headers(&[("traceparent", w3c("01").as_str()), ("tracestate", text)]);
        let trace = begin(&respected(Share::ALL), &mut passed, Place::Outbound).unwrap();
        assert_eq!(passed["tracestate"], text, "it passes as it came");
        trace.state
    };
    let longest = format!("a={}", "x".repeat(510));
    assert_eq!((state(&longest), state(&format!("{longest}x"))), (longest, String::new()));
}
