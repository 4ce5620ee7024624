//! The manual's pages as tests read them: their blocks of commands, and the mark in front of each that says who runs it.
//!
//! A mark is a comment on the line before the block:
//!
//! | mark | meaning |
//! |---|---|
//! | `<!-- run: FILE FUNCTION -->` | this test runs the block as it stands |
//! | `<!-- same by: FILE FUNCTION -->` | this test does the same with other names, or without typing it |
//! | `<!-- shown: FILE -->` | what stands below the commands is in that file, with which a test compares what the program prints |
//! | `<!-- as in: PAGE -->` | each command is one of that page's, whose mark counts |
//! | `<!-- not run: REASON -->` | nobody does, for one of [`REASONS`] |
//!
//! Blocks in the languages of [`COMMANDS`] need one; what is only to be looked at is `text`.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cluster::repository;

/// The languages of blocks that people type.
pub const COMMANDS: [&str; 3] = ["sh", "bash", "console"];

/// Why a block may be run by no test.
pub const REASONS: [&str; 2] = ["needs software of others", "builds for minutes"];

/// What becomes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A test runs it.
    Run {
        /// Where the test is, from the repository's root.
        file: String,
        /// Its function.
        function: String,
    },
    /// A test does the same by other means.
    SameBy {
        /// Where the test is, from the repository's root.
        file: String,
        /// Its function.
        function: String,
    },
    /// Its output is compared with this file.
    Shown(String),
    /// Its commands are those of another page, given from the repository's root.
    AsIn(String),
    /// Nobody runs it.
    NotRun(String),
}

impl Mark {
    /// The mark in a line; none if the line has none.
    ///
    /// # Errors
    /// When it looks like one and can't be read.
    fn read(line: &str) -> Result<Option<Self>> {
        let Some(text) = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) else {
            return Ok(None);
        };
        let Some((kind, rest)) = text.trim().split_once(": ") else { return Ok(None) };
        let rest = rest.trim().to_owned();
        Ok(Some(match kind {
            "run" | "same by" => {
                let (file, function) = rest.split_once(' ').context("FILE FUNCTION")?;
                let (file, function) = (file.to_owned(), function.trim().to_owned());
                if kind == "run" { Self::Run { file, function } } else { Self::SameBy { file, function } }
            }
            "shown" => Self::Shown(rest),
            "as in" => Self::AsIn(rest),
            "not run" => Self::NotRun(rest),
            _ => bail!("{kind} is no kind of mark"),
        }))
    }
}

/// A fenced block of a page.
#[derive(Clone, Debug)]
pub struct Block {
    /// The page, from the repository's root.
    pub page: String,
    /// The number of its first line, from 1.
    pub line: usize,
    /// What stands behind the fence; empty if nothing does.
    pub language: String,
    /// Who runs it.
    pub mark: Option<Mark>,
    /// What is in it.
    pub text: String,
}

impl Block {
    /// Where it is, as compilers say it.
    pub fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Whether people type what is in it.
    pub fn is_commands(&self) -> bool {
        COMMANDS.contains(&self.language.as_str())
    }

    /// Its commands: continued lines are one, comments and what is printed are left out.
    pub fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let prompted = joined.lines().any(|line| line.starts_with("$ "));
        let typed = joined.lines().filter_map(|line| match line.strip_prefix("$ ") {
            None if prompted => None,
            typed => Some(typed.unwrap_or(line)),
        });
        let bare = typed.map(|line| line.split_once(" # ").map_or(line, |(command, _)| command));
        let bare = bare.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        bare.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }

    /// What stands behind `# ->`: what the block is to print, in this order.
    pub fn expected(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| Some(line.split_once("# -> ")?.1.trim_end())).collect()
    }
}

/// All pages that people read: the manual, the README and those of the charts, with their paths from the root.
///
/// # Errors
/// When the repository can't be read.
pub fn pages() -> Result<Vec<(String, String)>> {
    let mut paths = vec!["README.md".to_owned()];
    for chart in ["weft", "weft-crds"] {
        paths.push(format!("charts/{chart}/README.md"));
    }
    below(&repository().join("docs"), &mut paths)?;
    paths.sort();
    ensure!(paths.len() > 20, "only {} pages: looking in the wrong place", paths.len());
    paths.into_iter().map(|path| Ok((path.clone(), page(&path)?))).collect()
}

fn below(folder: &Path, paths: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path.strip_prefix(repository())?.display().to_string());
        }
    }
    Ok(())
}

/// A page by its path from the root.
///
/// # Errors
/// When it isn't there.
pub fn page(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

/// The fenced blocks of a page.
///
/// # Errors
/// When a mark can't be read, stands before no block, or a block has no end.
pub fn blocks(path: &str, text: &str) -> Result<Vec<Block>> {
    let (mut blocks, mut open, mut mark): (Vec<Block>, Option<Block>, Option<Mark>) = (Vec::new(), None, None);
    for (number, line) in text.lines().enumerate() {
        let at = || format!("{path}:{}", number + 1);
        if let Some(block) = &mut open {
            if line.trim() == "```" {
                blocks.extend(open.take());
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            open = Some(Block {
                page: path.to_owned(),
                line: number + 1,
                language: language.to_owned(),
                mark: mark.take(),
                text: String::new(),
            });
        } else {
            ensure!(mark.is_none(), "{}: the mark above this line stands before no block", at());
            mark = Mark::read(line).with_context(at)?;
        }
    }
    ensure!(open.is_none() && mark.is_none(), "{path}: its last block has no end, or its last mark no block");
    Ok(blocks)
}

/// What a function of a test file is to run of a page.
///
/// # Errors
/// When that is nothing.
pub fn marked(path: &str, file: &str, function: &str) -> Result<Vec<Block>> {
    let mark = Mark::Run { file: file.to_owned(), function: function.to_owned() };
    let mut blocks = blocks(path, &page(path)?)?;
    blocks.retain(|block| block.mark.as_ref() == Some(&mark));
    ensure!(!blocks.is_empty(), "{path} has nothing for {function} of {file}");
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn blocks_have_their_marks_and_commands() {
        let page = "text\n\n<!-- run: tests/a.rs it_runs -->\n```sh\n# comment\nkubectl get \\\n  pods   # -> none\n```\n\
                    ```console\n$ weft version\n  1.0\n```\n```text\nkubectl\n```\n";
        let blocks = blocks("a.md", page).unwrap();
        assert_eq!(blocks.iter().map(Block::place).collect::<Vec<_>>(), ["a.md:4", "a.md:9", "a.md:13"]);
        let run = Mark::Run { file: "tests/a.rs".to_owned(), function: "it_runs".to_owned() };
        assert_eq!(blocks.iter().map(|block| block.mark.clone()).collect::<Vec<_>>(), [Some(run), None, None]);
        assert_eq!(blocks[0].commands(), ["kubectl get pods"]);
        assert_eq!(blocks[0].expected(), ["none"]);
        assert_eq!(blocks[1].commands(), ["weft version"]);
        assert!(blocks[1].is_commands() && !blocks[2].is_commands());
    }

    #[test]
    fn a_mark_without_a_block_and_a_block_without_an_end_are_mistakes() {
        for wrong in
            ["<!-- not run: builds for minutes -->\n\n```sh\n```\n", "```sh\nkubectl\n", "<!-- runs: a b -->\n"]
        {
            assert!(blocks("a.md", wrong).is_err(), "{wrong}");
        }
        assert!(blocks("a.md", "<!-- a comment -->\ntext\n").unwrap().is_empty());
    }
}
