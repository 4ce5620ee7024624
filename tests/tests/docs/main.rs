//! The manual is true: every block of commands is run by somebody, what can be generated is, and no link leads nowhere.
//! `UPDATE=1 cargo test -p weft-tests --test docs` writes docs/values.md and docs/features.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod blocks;
mod features;
mod links;
mod programs;
mod sizing;
mod values;
mod versions;

use weft_tests::cluster::repository;

/// A page is what it is generated to be; UPDATE=1 writes it.
fn is_generated(path: &str, page: &str) {
    let file = repository().join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let line = written.lines().zip(page.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| written.lines().count().min(page.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("nothing more").to_owned();
    assert!(
        written == page,
        "{path} isn't what it is made of, first in line {}:\n  is        {}\n  should be {}\nUPDATE=1 cargo test -p weft-tests --test docs",
        line + 1,
        at(&written),
        at(page),
    );
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
