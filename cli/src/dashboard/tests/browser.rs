//! The page in a real browser, and its pictures for the manual: `make pictures`.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::super::server::Site;
use super::super::source::{Refused, View};
use super::devtools::Browser;
use super::{beside, data};

/// A picture is no larger, in bytes, before it is made small for the manual.
const LARGEST: u64 = 400 << 10;

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// As [`super::shop`], but with certificates that end after now.
fn live(view: View, namespace: Option<&str>) -> Result<Value, Refused> {
    data::answer(&data::shop(now()), view, namespace)
}

fn tidy(view: View, namespace: Option<&str>) -> Result<Value, Refused> {
    data::answer(&data::tidy_shop(now()), view, namespace)
}

fn large(view: View, namespace: Option<&str>) -> Result<Value, Refused> {
    data::answer(&data::large(), view, namespace)
}

/// What shows that a view is drawn.
fn drawn(view: &str) -> &'static str {
    match view {
        "graph" => ".node.good",
        "routes" => ".rule .bar",
        "certificates" => "table .life",
        _ => ".problem dl",
    }
}

async fn open(browser: &mut Browser, site: &Site, view: &str) {
    browser.open(&format!("{}&view={view}", site.invitation()), drawn(view)).await;
}

/// A browser that looks at a page. What it did there must have left its console empty.
fn looking(answer: fn(View, Option<&str>) -> Result<Value, Refused>, look: impl AsyncFnOnce(&mut Browser, &Site)) {
    beside(answer, async |_, site: Rc<Site>| {
        let mut browser = Browser::start().await;
        look(&mut browser, &site).await;
        assert!(browser.console().is_empty(), "{:#?}", browser.console());
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn the_graph_says_what_the_answers_do() {
    looking(live, async |browser, site| {
        open(browser, site, "graph").await;
        let names = browser.all(".node", "aria-label").await;
        assert_eq!(names.len(), 15, "{names:#?}");
        let canary = "shop/catalog-v2: 18.0 requests a second, 94.0 % success, 99 of 100 within";
        assert!(names.iter().any(|name| name.starts_with(canary)), "{names:#?}");
        let ways = browser.all(".way title", "").await;
        let way = "shop/web calls shop/catalog-v1: 162 requests a second, 100 % success";
        assert!(ways.iter().any(|it| it == way), "{ways:#?}");
        assert_eq!(browser.all(".way .edge.clear", "d").await.len(), 1, "one way is in the clear");
        assert_eq!(browser.all(".node.bad", "data-id").await, ["shop/catalog-v2", "Service shop/stock:80"]);
        assert_eq!(browser.value("document.title").await, "Weft: graph");
        assert_eq!(browser.all("#views a[aria-current]", "").await, ["Graph"]);
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn names_are_texts_whatever_they_are() {
    looking(live, async |browser, site| {
        let name = "<script>alert(1)</script>";
        for view in ["graph", "routes", "certificates", "problems"] {
            open(browser, site, view).await;
            let scripts = browser.all("script", "src").await;
            assert_eq!(scripts, ["/main.js"], "{view}");
        }
        open(browser, site, "graph").await;
        assert!(browser.all(".side li", "").await.iter().any(|it| it.contains(name)), "it is told as it is");
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn all_is_reached_by_keys_alone() {
    looking(live, async |browser, site| {
        open(browser, site, "graph").await;
        let focused = "document.activeElement.getAttribute('data-id')";
        for _ in 0..30 {
            if browser.value(focused).await == "shop/web" {
                break;
            }
            browser.press("Tab").await;
        }
        assert_eq!(browser.value(focused).await, "shop/web");
        browser.press("ArrowRight").await;
        let next = browser.value(focused).await;
        let callees = ["shop/catalog-v1", "shop/catalog-v2", "shop/cart-stable", "shop/cart-beta", "shop/orders"];
        assert!(callees.contains(&next.as_str().unwrap()), "{next}");
        browser.press("Enter").await;
        browser.wait_for(".node.chosen[aria-pressed=true]").await;
        assert_eq!(browser.all(".side h2", "").await, [next.as_str().unwrap()]);
        // Numbers that come meanwhile take nothing away from who reads.
        browser.value("document.querySelector('.side button').focus()").await;
        let before = browser.value("performance.getEntriesByType('resource').length").await;
        let renewed = format!(
            "new Promise((ok) => {{ const look = () => performance.getEntriesByType('resource').length > {before} + 1 ? ok(true) : setTimeout(look, 50); look(); }})"
        );
        browser.call("Runtime.evaluate", json!({ "expression": renewed, "awaitPromise": true })).await;
        assert_eq!(browser.value("document.activeElement.textContent").await, "← all calls");
        assert_eq!(browser.all(".side h2", "").await, [next.as_str().unwrap()]);
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn routes_certificates_and_problems_say_what_the_answers_do() {
    looking(live, async |browser, site| {
        for (view, words) in [
            (
                "routes",
                &["HTTPRoute shop/catalog-canary", "GRPCRoute shop/payments", "90 %", "at Service shop/catalog:80"][..],
            ),
            ("certificates", &["there is none", "6 failed", "spiffe://cluster.local/ns/shop/sa/web", "39 min", "9 y"]),
            (
                "problems",
                &[
                    "its traffic is in the clear",
                    "no_endpoint",
                    "The Service has no endpoint that may be used",
                    "plaintext_refused",
                ],
            ),
        ] {
            open(browser, site, view).await;
            let text = browser.value("document.querySelector('main').textContent").await;
            let text = text.as_str().unwrap();
            for word in words {
                assert!(text.contains(word), "{view}: no {word:?}: {text}");
            }
        }
        open(browser, site, "routes").await;
        let bars = browser.all(".bar", "aria-label").await;
        let measured = "measured: Service shop/catalog-v1:80 90 %, Service shop/catalog-v2:80 10 %";
        assert!(bars.iter().any(|it| it == measured), "{bars:#?}");
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn a_namespace_is_chosen_and_another_view_too() {
    looking(live, async |browser, site| {
        open(browser, site, "graph").await;
        browser.value("(() => { const it = document.getElementById('namespace'); it.value = 'bank'; it.dispatchEvent(new Event('change')); })()").await;
        browser.wait_for("main:not(:has([data-id='shop/web'])) [data-id='bank/clearing']").await;
        assert_eq!(browser.all(".node", "data-id").await, ["bank/clearing", "shop/payments"]);
        browser.value("document.querySelector('#views a[href=\"#problems\"]').click()").await;
        browser.wait_for("#views a[href=\"#problems\"][aria-current]").await;
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn forty_workloads_stand_apart() {
    looking(large, async |browser, site| {
        open(browser, site, "graph").await;
        let boxes = "[...document.querySelectorAll('.node .box')].map((it) => ['x', 'y', 'width', 'height'].map((name) => Number(it.getAttribute(name))))";
        let all: Vec<[f64; 4]> = serde_json::from_value(browser.value(boxes).await).unwrap();
        assert_eq!(all.len(), 40);
        for (at, [x, y, width, height]) in all.iter().enumerate() {
            for [other_x, other_y, ..] in &all[at + 1..] {
                let apart = (x - other_x).abs() >= *width || (y - other_y).abs() >= *height;
                assert!(apart, "{x},{y} and {other_x},{other_y}");
            }
        }
        // What is seen of a box: smaller than this nobody reads its name.
        let width = browser.value("document.querySelector('.node .box').getBoundingClientRect().width").await;
        assert!(width.as_f64().unwrap() > 90.0, "{width}");
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn who_may_not_view_is_told_so() {
    beside(data::refused, async |_, site: Rc<Site>| {
        let mut browser = Browser::start().await;
        browser.open(&site.invitation(), "#notice:not([hidden])").await;
        let notice = browser.all("#notice", "").await;
        assert_eq!(notice, ["jane may not get views.weftmesh.io in all namespaces"]);
        browser.value("(() => { const it = document.getElementById('namespace'); it.value = 'shop'; it.dispatchEvent(new Event('change')); })()").await;
        browser.wait_for("#notice[hidden]").await;
        assert_eq!(browser.all("main .empty", "").await, ["No traffic in 10 s."]);
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn an_address_that_was_used_is_no_way_in() {
    beside(live, async |_, site: Rc<Site>| {
        let address = site.invitation();
        for notice in [false, true] {
            let mut browser = Browser::start().await;
            browser.open(&address, if notice { "#notice:not([hidden])" } else { drawn("graph") }).await;
            let text = browser.value("document.body.textContent").await;
            assert_eq!(text.as_str().unwrap().contains("catalog-v1"), !notice);
            assert_eq!(browser.value("location.hash").await, "#graph");
        }
    });
}

#[test]
#[ignore = "needs Chromium: make pictures"]
fn pictures_for_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    let place = std::env::var_os("WEFT_PICTURES").map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let taken = async |browser: &mut Browser, name: &str| {
        let file = place.join(format!("dashboard-{name}.png"));
        browser.picture(&file).await;
        let size = std::fs::metadata(&file).unwrap().len();
        assert!((8 << 10..LARGEST).contains(&size), "{}: {size} bytes", file.display());
    };
    looking(tidy, async |browser, site| {
        for view in ["graph", "routes", "certificates", "problems"] {
            open(browser, site, view).await;
            taken(browser, view).await;
        }
        let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
        browser.call("Emulation.setEmulatedMedia", dark).await;
        open(browser, site, "graph").await;
        taken(browser, "dark").await;
        assert_eq!(browser.value("document.documentElement.dataset.theme").await, "dark");
    });
    looking(large, async |browser, site| {
        open(browser, site, "graph").await;
        taken(browser, "large").await;
    });
}
