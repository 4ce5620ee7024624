#![allow(clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use super::all;
use crate::grafana::{Board, Dashboard, View, json};
use crate::metric_names;
use crate::rules::recordings;

fn variables(dashboard: &Dashboard) -> BTreeSet<&str> {
    ["cluster", "namespace"].into_iter().chain(dashboard.variables.iter().map(|it| it.name)).collect()
}

#[test]
fn every_board_says_what_it_answers_and_every_panel_too() {
    for dashboard in all() {
        assert!(!dashboard.questions.is_empty() && dashboard.questions.iter().all(|it| it.ends_with('?')));
        let mut titles = BTreeSet::new();
        for panel in dashboard.panels() {
            assert!(panel.answers.ends_with('?'), "{:?} {}: {}", dashboard.board, panel.title, panel.answers);
            assert!(titles.insert(panel.title), "{:?} has two panels {:?}", dashboard.board, panel.title);
            assert!(!panel.queries.is_empty(), "{}", panel.title);
        }
    }
}

#[test]
fn links_set_variables_that_are_there_to_labels_that_are_shown() {
    let boards: BTreeMap<_, _> = all().into_iter().map(|it| (it.board, it)).collect();
    for dashboard in boards.values() {
        for panel in dashboard.panels() {
            for link in &panel.links {
                let there = variables(&boards[&link.to]);
                for (variable, label) in &link.sets {
                    let at = format!("{:?} {:?} -> {:?}", dashboard.board, panel.title, link.to);
                    assert!(there.contains(variable), "{at}: no variable {variable}");
                    assert!(panel.queries.iter().any(|it| it.expr.contains(label)), "{at}: no label {label}");
                }
                if let View::Table(labels) = &panel.view {
                    assert!(
                        labels.iter().any(|(_, heading)| *heading == link.on),
                        "{}: no column {}",
                        panel.title,
                        link.on
                    );
                }
            }
        }
    }
}

/// Besides the menu, which leads everywhere.
#[test]
fn clicks_on_panels_lead_from_the_overview_to_whatever_fails() {
    let boards: BTreeMap<_, _> = all().into_iter().map(|it| (it.board, it)).collect();
    let mut reached = BTreeSet::from([Board::Overview]);
    for _ in 0..3 {
        let next = reached.iter().flat_map(|it| boards[it].panels()).flat_map(|it| &it.links).map(|it| it.to);
        reached = reached.iter().copied().chain(next.collect::<Vec<_>>()).collect();
    }
    let menu_alone = BTreeSet::from([Board::Gateway, Board::ControlPlane]);
    let all: BTreeSet<_> = Board::ALL.into_iter().collect();
    assert_eq!(all.difference(&reached).copied().collect::<BTreeSet<_>>(), menu_alone);
}

#[test]
fn tables_ask_for_the_labels_they_show() {
    for dashboard in all() {
        for panel in dashboard.panels() {
            let View::Table(labels) = &panel.view else { continue };
            for (label, _) in labels {
                assert!(panel.queries.iter().all(|it| it.expr.contains(label)), "{}: {label}", panel.title);
            }
        }
    }
}

#[test]
fn recorded_series_are_recorded() {
    let recorded: BTreeSet<_> = recordings().iter().flat_map(|it| it.rules.iter().map(|it| it.name)).collect();
    let mut used = BTreeSet::new();
    for dashboard in all() {
        for query in dashboard.panels().flat_map(|panel| &panel.queries) {
            for name in metric_names(&query.expr).into_iter().filter(|name| name.starts_with("weft:")) {
                assert!(recorded.contains(name), "{:?}: {name}", dashboard.board);
                used.insert(name.to_owned());
            }
        }
    }
    assert!(used.len() > 5, "looking in the wrong place: {used:?}");
}

#[test]
fn grafana_gets_places_that_do_not_overlap_and_links_that_keep_what_is_chosen() {
    for dashboard in all() {
        let json = json(&dashboard);
        let panels = json["panels"].as_array().unwrap();
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64().unwrap()));
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{panel:#}");
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(place), "{} overlaps at {place:?}", panel["title"]);
            }
        }
        let text = json.to_string();
        for url in text.split("\"url\":\"/d/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            for kept in ["${__url_time_range}", "${datasource:queryparam}", "${cluster:queryparam}", "namespace"] {
                assert!(url.contains(kept), "{url} loses {kept}");
            }
        }
        let links = &json["links"][0];
        assert!(links["keepTime"] == true && links["includeVars"] == true && links["asDropdown"] == true);
    }
}
