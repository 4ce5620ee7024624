//! OpenMetrics 1.0 (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), which can carry exemplars: made of a page
//! in the text format, whose samples it shares.

use std::fmt::Write as _;

use crate::catalogue::find;
use crate::family::Unit;

/// The content type of such a page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of a page in the text format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const MEDIA_TYPE: &str = "application/openmetrics-text";

/// Whether who sends this `Accept` header would rather have OpenMetrics than text: names it, and with no less weight than
/// `text/plain`.
pub fn is_wanted(accept: &str) -> bool {
    let weight = |wanted: &str| {
        let of = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next()?.eq_ignore_ascii_case(wanted);
            let q = parts.find_map(|it| it.strip_prefix("q="));
            // A weight that can't be read is none.
            is_it.then(|| q.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0)))
        });
        of.fold(0.0_f32, f32::max)
    };
    let wanted = weight(MEDIA_TYPE);
    wanted > 0.0 && wanted >= weight("text/plain")
}

/// A page in the text format as OpenMetrics: families of counters are named without `_total`, units are told, and the end
/// is marked. Exemplars, which only OpenMetrics has, may stand there already.
pub fn from_text(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + page.len() / 16);
    for line in page.lines().filter(|line| !line.is_empty()) {
        let is_head = |word: &str| line.strip_prefix(word).and_then(|rest| rest.split_once(' '));
        let Some((word, (name, rest))) = ["# HELP ", "# TYPE "].into_iter().find_map(|w| Some((w, is_head(w)?))) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let base = name.strip_suffix("_total").unwrap_or(name);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{word}{base} {}", kind_of(name, word, rest));
        let unit = find(name).map_or(Unit::None, |family| family.unit).as_str();
        if word == "# TYPE " && !unit.is_empty() && base.ends_with(unit) {
            let _ = writeln!(out, "# UNIT {base} {unit}");
        }
    }
    out.push_str("# EOF\n");
    out
}

/// A counter by another name is none in OpenMetrics, whose samples end in `_total`.
fn kind_of<'a>(name: &str, word: &str, rest: &'a str) -> &'a str {
    match (word, rest) {
        ("# TYPE ", "counter") if !name.ends_with("_total") => "unknown",
        ("# TYPE ", "untyped") => "unknown",
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_it_gets_it() {
        // Prometheus 3, and with the protobuf form before it.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2";
        assert!(is_wanted(prometheus));
        assert!(is_wanted("application/openmetrics-text"));
        for other in ["", "*/*", "text/plain", "text/html, */*;q=0.1", "application/openmetrics-text;q=0"] {
            assert!(!is_wanted(other), "{other}");
        }
        assert!(!is_wanted("application/openmetrics-text;q=0.3, text/plain;q=0.5"));
    }

    #[test]
    fn a_page_becomes_openmetrics() {
        let text = "# HELP process_cpu_seconds_total Time.\n# TYPE process_cpu_seconds_total counter\n\
                    process_cpu_seconds_total 1.5\n\n# HELP weft_pods Pods.\n# TYPE weft_pods gauge\nweft_pods 2\n";
        assert_eq!(
            from_text(text),
            "# HELP process_cpu_seconds Time.\n# TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\n\
             process_cpu_seconds_total 1.5\n# HELP weft_pods Pods.\n# TYPE weft_pods gauge\nweft_pods 2\n# EOF\n"
        );
        let odd = "# TYPE odd counter\nodd 1\n# TYPE strange untyped\nstrange 1\n";
        assert_eq!(from_text(odd), "# TYPE odd unknown\nodd 1\n# TYPE strange unknown\nstrange 1\n# EOF\n");
    }
}
