//! `weft reason CODE`: what a code means, where to look and what to do. The pages are those of docs/reasons.

use std::fmt;

use anyhow::bail;
use include_dir::{Dir, include_dir};
use serde::Serialize;
use weft_core::reason::Reason;

use crate::Output;

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../docs/reasons");

/// Which code.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A code, as answers (x-weft-reason), logs and metrics have it. Left out: all codes are listed
    code: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// A page, in its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// The code.
    pub code: &'static str,
    /// `application`, `proxy` or `network`: whose doing it is.
    #[serde(rename = "madeBy")]
    pub made_by: &'static str,
    /// What a client hears.
    pub answer: String,
    /// Why it happens.
    pub cause: String,
    /// Where to look.
    pub look: String,
    /// What to do.
    pub remedy: String,
}

impl Page {
    /// The page of a reason. Empty parts are those that a page lacks; a test holds that none does.
    pub fn of(reason: Reason) -> Self {
        let file = PAGES.get_file(format!("{reason}.md"));
        let text = file.and_then(|file| file.contents_utf8()).unwrap_or_default();
        let answer = text.lines().find_map(|line| line.strip_prefix("Answer: ")).unwrap_or_default();
        Self {
            code: reason.as_str(),
            made_by: reason.made_by().as_str(),
            answer: answer.trim_end_matches('.').to_owned(),
            cause: part(text, "Cause"),
            look: part(text, "Where to look"),
            remedy: part(text, "Remedy"),
        }
    }
}

/// What stands under a heading, as one paragraph.
fn part(text: &str, heading: &str) -> String {
    let after = text.split_once(&format!("\n## {heading}\n")).map_or("", |(_, after)| after);
    let lines =
        after.lines().take_while(|line| !line.starts_with("## ")).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

/// A paragraph in lines, each after an indent.
pub fn wrapped(text: &str, indent: &str) -> String {
    const WIDTH: usize = 110;
    let (mut out, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + word.len() >= WIDTH {
            out.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out.push_str(&format!("{indent}{line}\n"));
    }
    out
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  answer   {}\n  made by  {}", self.code, self.answer, self.made_by)?;
        for (title, text) in [("cause", &self.cause), ("where to look", &self.look), ("remedy", &self.remedy)] {
            write!(f, "\n{title}\n{}", wrapped(text, "  "))?;
        }
        Ok(())
    }
}

/// All codes.
#[derive(Serialize)]
#[serde(transparent)]
struct Codes(Vec<Page>);

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.0.iter().map(|page| vec![page.code.into(), page.made_by.into(), page.answer.clone()]);
        write!(f, "{}", crate::table(&["CODE", "MADE BY", "ANSWER"], rows))
    }
}

/// Prints a page, or the list of codes.
///
/// # Errors
/// The code is none.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Some(code) = &args.code else {
        let codes = Codes(Reason::ALL.iter().map(|reason| Page::of(*reason)).collect());
        return crate::cluster::write(&args.output.show(&codes)?);
    };
    let Some(reason) = Reason::of_code(code) else {
        bail!("{code:?} is no reason code; `weft reason` lists them");
    };
    crate::cluster::write(&args.output.show(&Page::of(reason))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_whole_page_and_every_page_a_code() {
        for reason in Reason::ALL {
            let page = Page::of(*reason);
            for (name, text) in
                [("answer", &page.answer), ("cause", &page.cause), ("look", &page.look), ("remedy", &page.remedy)]
            {
                assert!(text.len() > 2, "docs/reasons/{reason}.md has no {name}");
            }
            let text = PAGES.get_file(format!("{reason}.md")).unwrap().contents_utf8().unwrap();
            assert!(text.starts_with(&format!("# {reason}\n")), "docs/reasons/{reason}.md is of another code");
        }
        let pages: BTreeSet<_> = PAGES.files().map(|file| file.path().file_stem().unwrap().to_str().unwrap()).collect();
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).chain(["README"]).collect();
        assert_eq!(pages, codes);
        let index = PAGES.get_file("README.md").unwrap().contents_utf8().unwrap();
        for reason in Reason::ALL {
            let row = format!("| [{reason}]({reason}.md) | {} |", Page::of(*reason).answer);
            assert!(index.contains(&row), "docs/reasons/README.md lacks {row}");
        }
    }

    #[test]
    fn a_page_as_it_is_printed() {
        let page = Page::of(Reason::NoEndpoint).to_string();
        assert!(crate::is_in_manual(&page));
        insta::assert_snapshot!(page);
    }

    #[test]
    fn lines_are_wrapped_at_words() {
        let text = wrapped(&"word ".repeat(50), "  ");
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.len() <= 112 && line.starts_with("  word")));
        assert_eq!(wrapped("", "  "), "");
    }
}
