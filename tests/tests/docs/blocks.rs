//! Who runs the commands of the manual.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_tests::cluster::repository;
use weft_tests::manual::{Block, Mark, REASONS, blocks, page, pages};

/// What a line of a command begins with, with which no line of a text that is only shown may begin.
const PROGRAMS: [&str; 10] =
    ["kubectl ", "helm ", "weft ", "make ", "docker ", "cargo ", "curl ", "openssl ", "git ", "$ "];

fn all() -> Vec<Block> {
    let pages = pages().unwrap();
    let found: Vec<_> = pages.iter().flat_map(|(path, text)| blocks(path, text).unwrap()).collect();
    assert!(found.len() > 60, "only {} blocks: looking in the wrong place", found.len());
    found
}

fn text_of(path: &str) -> Option<String> {
    std::fs::read_to_string(repository().join(path)).ok()
}

/// Why a mark doesn't hold.
fn objection(block: &Block, mark: &Mark) -> Option<String> {
    match mark {
        Mark::Run { file, function } | Mark::SameBy { file, function } => {
            let Some(text) = text_of(file) else { return Some(format!("there is no {file}")) };
            let has = ["fn ", "def "].iter().any(|keyword| text.contains(&format!("{keyword}{function}(")));
            (!has).then(|| format!("{file} has no function {function}"))
        }
        Mark::Shown(file) => {
            let Some(text) = text_of(file) else { return Some(format!("there is no {file}")) };
            let printed = block.text.lines().filter(|line| !line.starts_with("$ "));
            let printed: Vec<_> = printed.map(str::trim_end).filter(|line| !line.is_empty()).collect();
            let lines: BTreeSet<_> = text.lines().map(str::trim_end).collect();
            let missing = printed.iter().find(|line| !lines.contains(*line));
            if printed.is_empty() {
                Some("nothing is shown".to_owned())
            } else {
                missing.map(|line| format!("{file} lacks {line:?}"))
            }
        }
        Mark::AsIn(other) => {
            let Ok(text) = page(other) else { return Some(format!("there is no {other}")) };
            let theirs = blocks(other, &text).unwrap();
            // A page that says so itself leads on, and could lead back.
            let theirs = theirs.iter().filter(|block| !matches!(block.mark, None | Some(Mark::AsIn(_))));
            let theirs: BTreeSet<_> = theirs.flat_map(Block::commands).collect();
            let missing = block.commands().into_iter().find(|command| !theirs.contains(command));
            missing.map(|command| format!("{other} doesn't have `{command}`"))
        }
        Mark::NotRun(reason) => {
            (!REASONS.contains(&reason.as_str())).then(|| format!("{reason:?} is none of the reasons: {REASONS:?}"))
        }
    }
}

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let mut found = Vec::new();
    for block in all() {
        match (&block.mark, block.is_commands()) {
            (Some(mark), true) => {
                found.extend(objection(&block, mark).map(|why| format!("{}: {why}", block.place())));
                if block.commands().is_empty() {
                    found.push(format!("{}: no command is in it; what is only shown is `text`", block.place()));
                }
            }
            (None, true) => found.push(format!("{}: no mark says who runs it", block.place())),
            (Some(_), false) => found.push(format!("{}: a mark before what isn't commands", block.place())),
            (None, false) => {
                let line = block.text.lines().find(|line| PROGRAMS.iter().any(|program| line.starts_with(program)));
                found.extend(line.map(|line| format!("{}: `{line}` is a command: sh or console", block.place())));
            }
        }
        if block.language.is_empty() {
            found.push(format!("{}: say which language it is: sh, console, text, yaml, ...", block.place()));
        }
    }
    assert!(found.is_empty(), "weft_tests::manual has the marks that there are:\n{}", found.join("\n"));
}

/// A block that is indented has no language and no mark.
#[test]
fn no_commands_stand_outside_of_blocks() {
    let mut found = Vec::new();
    for (path, text) in pages().unwrap() {
        let mut inside = false;
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            }
            let after_blank = before.trim().is_empty() || before.starts_with("    ");
            if !inside
                && after_blank
                && line.strip_prefix("    ").is_some_and(|rest| !rest.starts_with([' ', '-', '*']))
            {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
            before = line;
        }
    }
    assert!(found.is_empty(), "indented blocks; use fences:\n{}", found.join("\n"));
}

#[test]
fn every_target_of_make_that_is_named_exists() {
    let makefile = text_of("Makefile").unwrap();
    let mut seen = 0;
    for block in all() {
        for command in block.commands().iter().filter(|command| command.starts_with("make ")) {
            // Settings may be several words in quotes.
            let bare: String = command.split('"').step_by(2).collect();
            for target in bare.split(' ').skip(1).filter(|word| !word.is_empty() && !word.contains('=')) {
                seen += 1;
                assert!(makefile.contains(&format!("\n{target}:")), "{}: make {target}", block.place());
            }
        }
    }
    assert!(seen >= 5, "only {seen} targets were found");
}

/// The property of a value's path; a map with free names takes whatever is below it.
fn property<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = schema;
    for name in path.split('.') {
        let Some(properties) = here.get("properties") else { return here.get("allOf").map(|_| here) };
        here = properties.get(name.split('[').next()?)?;
    }
    Some(here)
}

#[test]
fn every_value_that_the_manual_sets_exists() {
    let schema = text_of("charts/weft/values.schema.json").unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(property(&schema, "controller.replicas").is_some() && property(&schema, "controller.replica").is_none());
    let (mut seen, mut found) = (0, Vec::new());
    for (path, text) in pages().unwrap() {
        for rest in text.split("--set").skip(1) {
            let rest = rest.strip_prefix("-string").unwrap_or(rest);
            let Some(rest) = rest.strip_prefix([' ', '=']) else { continue };
            let word = rest.split([' ', '`', '\n', '=', ',']).next().unwrap_or_default();
            // Values of other charts are set in their pages with a release of another name.
            if word.is_empty() || !word.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            seen += 1;
            if property(&schema, word).is_none() {
                found.push(format!("{path}: --set {word}"));
            }
        }
    }
    assert!(seen >= 10, "only {seen} values were found");
    assert!(found.is_empty(), "the chart has none of these:\n{}", found.join("\n"));
}
