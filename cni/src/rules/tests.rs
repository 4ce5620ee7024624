//! The text of each set. What it does to packets is tested in `tests/rules.rs`.

use super::*;

#[test]
fn closed() {
    insta::assert_snapshot!(RuleSet::Closed.render());
}

#[test]
fn redirecting_and_older_flows_go_on() {
    insta::assert_snapshot!(RuleSet::Redirecting { older_flows: OlderFlows::Keep }.render());
}

#[test]
fn redirecting_and_older_flows_are_closed() {
    insta::assert_snapshot!(RuleSet::Redirecting { older_flows: OlderFlows::Close }.render());
}

#[test]
fn every_set_replaces_the_table_whole() {
    for set in [RuleSet::Closed, RuleSet::Redirecting { older_flows: OlderFlows::Keep }] {
        let text = set.render();
        assert!(text.starts_with(&RuleSet::render_removal()), "{text}");
        assert_eq!(text.matches("table inet weft").count(), 3, "{text}");
    }
}
