//! docs/sizing.md: formulas fitted to what docs/scale.md measured, with how far they are off.

use weft_tests::cluster::repository;

use crate::is_generated;

/// Thousands of pods in each column of the measurement.
const PODS: [f64; 3] = [1.0, 10.0, 100.0];
/// Clients of the controller in each column: the simulated nodes and one node proxy.
const CLIENTS: [f64; 3] = [201.0, 201.0, 2.0];

/// A row of the table in docs/scale.md.
fn measured(scale: &str, row: &str) -> [f64; 3] {
    let line =
        scale.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap_or_else(|| panic!("no row {row}"));
    let numbers: Vec<f64> = line
        .split('|')
        .skip(2)
        .filter(|cell| !cell.trim().is_empty())
        .map(|cell| cell.trim().trim_matches('*').replace(',', "").parse().unwrap())
        .collect();
    numbers.try_into().unwrap()
}

/// The `p` and `q` for which `p * u + q * v` is nearest to `y`, where an error counts by its share of `whole`.
fn fit(u: [f64; 3], v: [f64; 3], y: [f64; 3], whole: [f64; 3]) -> (f64, f64) {
    let sum = |a: [f64; 3], b: [f64; 3]| (0..3).map(|i| a[i] * b[i] / (whole[i] * whole[i])).sum::<f64>();
    let (uu, uv, vv, uy, vy) = (sum(u, u), sum(u, v), sum(v, v), sum(u, y), sum(v, y));
    let determinant = uu * vv - uv * uv;
    ((uy * vv - vy * uv) / determinant, (vy * uu - uy * uv) / determinant)
}

/// The largest error of what a formula says, in percent of what was measured.
fn error(said: [f64; 3], measured: [f64; 3]) -> f64 {
    (0..3).map(|i| ((said[i] - measured[i]) / measured[i]).abs() * 100.0).fold(0.0, f64::max)
}

/// Memory that grows with the pods: base, per thousand pods, error in percent. Rounded as they are printed.
fn linear(y: [f64; 3]) -> (f64, f64, f64) {
    let (base, each) = fit([1.0; 3], PODS, y, y);
    let (base, each) = (base.round(), (each * 100.0).round() / 100.0);
    (base, each, error(PODS.map(|pods| base + each * pods), y))
}

fn page() -> String {
    let scale = std::fs::read_to_string(repository().join("docs/scale.md")).unwrap();
    let (rest, rest_each, rest_error) = linear(measured(&scale, "node proxy: memory, MiB"));
    let (most, most_each, most_error) = linear(measured(&scale, "node proxy: most memory, MiB"));
    let (alone, alone_each, alone_error) = linear(measured(&scale, "controller: memory without clients, MiB"));

    // What clients add when all of them come at once: some for each, and some for each and thousand pods.
    let peak = measured(&scale, "controller: most memory, MiB");
    let alone_says = PODS.map(|pods| alone + alone_each * pods);
    let added = [0, 1, 2].map(|i| peak[i] - alone_says[i]);
    let both = [0, 1, 2].map(|i| CLIENTS[i] * PODS[i]);
    let (client, client_each) = fit(CLIENTS, both, added, peak);
    let (client, client_each) = ((client * 100.0).round() / 100.0, (client_each * 1000.0).round() / 1000.0);
    let peak_says = [0, 1, 2].map(|i| alone_says[i] + CLIENTS[i] * (client + client_each * PODS[i]));
    let peak_error = error(peak_says, peak);

    let edit =
        ["a route's weight: processor time of the controller, ms", "an endpoint's readiness: processor time, ms"];
    let edit = edit.iter().flat_map(|row| measured(&scale, row)).fold(0.0, f64::max);
    let mut page = include_str!("sizing.md").to_owned();
    let proxy_limit = |thousands: f64| (4.0 * (most + most_each * thousands)).round();
    let controller_limit =
        |thousands: f64, nodes: f64| alone + alone_each * thousands + nodes * (client + client_each * thousands);
    for (name, value) in [
        ("rest", format!("{rest}")),
        ("rest_each", format!("{rest_each}")),
        ("rest_error", format!("{rest_error:.0}")),
        ("most", format!("{most}")),
        ("most_each", format!("{most_each}")),
        ("most_error", format!("{most_error:.0}")),
        ("alone", format!("{alone}")),
        ("alone_each", format!("{alone_each}")),
        ("alone_error", format!("{alone_error:.0}")),
        ("client", format!("{client}")),
        ("client_each", format!("{client_each}")),
        ("peak_error", format!("{peak_error:.0}")),
        ("edit", format!("{edit:.0}")),
        ("proxy_1", format!("{}", proxy_limit(1.0))),
        ("proxy_10", format!("{}", proxy_limit(10.0))),
        ("proxy_50", format!("{}", proxy_limit(50.0))),
        ("controller_1", format!("{:.0}", controller_limit(1.0, 20.0))),
        ("controller_10", format!("{:.0}", controller_limit(10.0, 200.0))),
        ("controller_50", format!("{:.0}", controller_limit(50.0, 1000.0))),
    ] {
        let place = format!("{{{name}}}");
        assert!(page.contains(&place), "the page doesn't tell {name}");
        page = page.replace(&place, &value);
    }
    assert!(!page.contains('{'), "{page}");
    page
}

#[test]
fn the_formulas_are_those_of_the_measurement() {
    is_generated("docs/sizing.md", &page());
}

#[test]
fn a_line_is_fitted_to_what_is_one() {
    let (base, each, error) = linear([32.0, 50.0, 230.0]);
    assert_eq!((base, each), (30.0, 2.0));
    assert!(error < 0.001, "{error}");
}
