//! `docs/metrics.md` is made of the catalogue. `UPDATE=1` writes it.

use std::fmt::Write as _;
use std::path::Path;

use crate::{Family, agent, ca, controller, everywhere, families, istio, kube, proxy};

const SECTIONS: [(&str, &[&Family]); 7] = [
    ("Proxy", proxy::ALL),
    ("Controller", controller::ALL),
    ("Authority", ca::ALL),
    ("Agent", agent::ALL),
    ("Whoever talks to a Kubernetes API server: controller, authority and agent", kube::ALL),
    ("Every component", everywhere::ALL),
    ("Proxy, with Istio's names", istio::ALL),
];

fn page() -> String {
    let mut page = include_str!("docs.md").to_owned();
    for (title, families) in SECTIONS {
        writeln!(page, "## {title}\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|").unwrap();
        for family in families {
            let Family { name, kind, unit, help, .. } = family;
            let labels: Vec<_> = family.label_names().map(|label| format!("`{label}`")).collect();
            let (kind, unit, labels) = (kind.as_str(), unit.as_str(), labels.join(", "));
            writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {help} |").unwrap();
        }
        page.push('\n');
    }
    page.trim_end().to_owned() + "\n"
}

#[test]
fn the_documentation_is_that_of_the_catalogue() {
    let listed: usize = SECTIONS.iter().map(|(_, families)| families.len()).sum();
    assert_eq!(listed, families().count(), "a section is missing");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page(), "docs/metrics.md isn't what the catalogue says: UPDATE=1 cargo test -p weft-metrics");
}
