//! Links of one page to another.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use weft_tests::cluster::repository;
use weft_tests::manual::pages;

/// Pages at the root, beside those of the manual.
const ROOT: [&str; 6] =
    ["ARCHITECTURE.md", "CONTRIBUTING.md", "DEVELOPERS.md", "SECURITY.md", "CHANGELOG.md", "tests/cluster/README.md"];

/// All pages with links, without what is in their blocks.
fn prose() -> Vec<(String, String)> {
    let mut pages = pages().unwrap();
    for path in ROOT {
        pages.push((path.to_owned(), std::fs::read_to_string(repository().join(path)).unwrap()));
    }
    let outside = |text: &str| text.split("```").step_by(2).collect::<String>();
    pages.into_iter().map(|(path, text)| (path, outside(&text))).collect()
}

/// What `[...](TARGET)` leads to.
fn targets(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    links.map(|target| target.trim().split(' ').next().unwrap_or_default()).collect()
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let outside: String = text.split("```").step_by(2).collect();
    let headings = outside.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn no_link_leads_nowhere() {
    let (mut seen, mut dead) = (0, Vec::new());
    for (path, text) in prose() {
        let folder = Path::new(&path).parent().unwrap().to_owned();
        for target in
            targets(&text).into_iter().filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        {
            seen += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { PathBuf::from(&path) } else { plain(&folder.join(file)) };
            let there = repository().join(&file);
            if !there.exists() {
                dead.push(format!("{path}: {target}: there is no {}", file.display()));
            } else if !fragment.is_empty() && there.extension().is_some_and(|extension| extension == "md") {
                let anchors = anchors(&std::fs::read_to_string(&there).unwrap());
                if !anchors.contains(fragment) {
                    dead.push(format!("{path}: {target}: no heading there is called so"));
                }
            }
        }
    }
    assert!(seen > 200, "only {seen} links were found");
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// Whoever begins at docs/README.md finds every page: there, or in the list of its own folder.
#[test]
fn every_page_is_in_the_index() {
    let pages = prose();
    let led_to = |from: &str| -> BTreeSet<PathBuf> {
        let (_, text) = pages.iter().find(|(path, _)| path == from).unwrap();
        let folder = Path::new(from).parent().unwrap();
        let files = targets(text).into_iter().map(|target| target.split('#').next().unwrap_or_default());
        files.map(|file| plain(&folder.join(file))).collect()
    };
    let index = led_to("docs/README.md");
    let lists = ["docs/reasons/README.md", "docs/runbooks/README.md"];
    let listed: BTreeSet<_> = lists.iter().flat_map(|list| led_to(list)).collect();
    let manual =
        pages.iter().map(|(path, _)| path).filter(|path| path.starts_with("docs/") && *path != "docs/README.md");
    let lost: Vec<_> =
        manual.filter(|path| !index.contains(Path::new(path)) && !listed.contains(Path::new(path))).collect();
    assert!(lost.is_empty(), "docs/README.md doesn't lead to {lost:?}");
    assert!(lists.iter().all(|list| index.contains(Path::new(list))), "the lists themselves");
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(anchor(" What it costs, and its limits"), "what-it-costs-and-its-limits");
    assert_eq!(anchor(" Why a request failed: `weft why`"), "why-a-request-failed-weft-why");
}
