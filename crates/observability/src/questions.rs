//! What somebody on call asks of a failing shop, and the clicks from the overview to the panel that answers it.

use crate::dashboards::dashboard;
use crate::grafana::{Board, Dashboard, Panel};

/// A question, and the way to its answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// As it is asked.
    pub asks: &'static str,
    /// Clicks from the overview: on a panel's link, or in the menu that every dashboard has.
    pub clicks: Vec<Click>,
    /// The panel that answers, on the dashboard where the clicks end.
    pub answered_by: &'static str,
    /// The label or legend in which the answer is read.
    pub reads: &'static str,
}

/// A click.
#[derive(Clone, Debug)]
pub enum Click {
    /// On a link of a panel of the dashboard one is on.
    Panel(&'static str, Board),
    /// In the menu of dashboards.
    Menu(Board),
}

impl Question {
    /// The label in which the answer is read.
    pub fn label(&self) -> &'static str {
        self.reads.trim_start_matches("{{").trim_end_matches("}}")
    }
}

/// The ten.
pub fn questions() -> Vec<Question> {
    use Click::{Menu, Panel};
    let ask =
        |asks, clicks: &[Click], answered_by, reads| Question { asks, clicks: clicks.to_vec(), answered_by, reads };
    let service = Panel("Services", Board::Service);
    vec![
        ask("Which Service fails?", &[], "Services", "destination_service"),
        ask("Since when?", &[], "Requests by class of answer", "{{response_class}}"),
        ask("Which caller sees it?", std::slice::from_ref(&service), "Callers", "source_workload"),
        ask("On which route?", std::slice::from_ref(&service), "Who answers, by which route", "route"),
        ask(
            "Which version answers with errors?",
            &[service.clone(), Panel("Who answers, by which route", Board::Route)],
            "Share of failures",
            "{{destination_workload}}",
        ),
        ask(
            "Why: which reason?",
            std::slice::from_ref(&service),
            "Requests that a proxy ended, by reason",
            "{{reason}}",
        ),
        ask(
            "Which node's clients see it?",
            std::slice::from_ref(&service),
            "Failed requests by the caller's node",
            "{{node}}",
        ),
        ask("On which node does the callee run?", &[Panel("Calls", Board::Workload)], "Nodes", "node"),
        ask(
            "Is the connection encrypted?",
            &[Panel("Encrypted", Board::Security)],
            "Every edge",
            "connection_security",
        ),
        ask(
            "Does every node have the configuration of now?",
            &[Menu(Board::NodeProxy)],
            "Since the configuration changed",
            "{{node}}",
        ),
    ]
}

/// Follows the clicks; the panel where they end, or where the way breaks off.
///
/// # Errors
/// A click that isn't there, or no such panel; in words.
pub fn follow(question: &Question) -> Result<Panel, String> {
    let mut at = dashboard(Board::Overview);
    for click in &question.clicks {
        let to = match click {
            Click::Menu(to) => *to,
            Click::Panel(title, to) => {
                let links = &panel(&at, title)?.links;
                links.iter().find(|link| link.to == *to).ok_or_else(|| format!("{title:?} doesn't lead to {to:?}"))?.to
            }
        };
        at = dashboard(to);
    }
    panel(&at, question.answered_by).cloned()
}

fn panel<'a>(on: &'a Dashboard, title: &str) -> Result<&'a Panel, String> {
    on.panels().find(|panel| panel.title == title).ok_or_else(|| format!("{:?} has no panel {title:?}", on.board))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grafana::View;

    #[test]
    fn every_question_is_answered_within_three_clicks() {
        let all = questions();
        assert_eq!(all.len(), 10);
        for question in all {
            assert!(question.clicks.len() <= 3, "{}: {} clicks", question.asks, question.clicks.len());
            let panel = follow(&question).unwrap_or_else(|why| panic!("{}: {why}", question.asks));
            let read = match &panel.view {
                View::Table(labels) => labels.iter().any(|(label, _)| *label == question.reads),
                _ => panel.queries.iter().any(|query| query.legend.contains(question.reads)),
            };
            assert!(read, "{}: {:?} doesn't show {}", question.asks, panel.title, question.reads);
            // What is shown is what the query keeps.
            let label = question.label();
            assert!(
                panel.queries.iter().any(|query| query.expr.contains(label)),
                "{}: {label} isn't asked for",
                question.asks
            );
        }
    }
}
