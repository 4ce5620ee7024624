//! The manual types only what this program takes.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

/// All pages of the manual with their paths.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut folders, mut pages) = (vec![root.join("docs")], vec![root.join("README.md")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The words of a command, up to a comment or to whatever else the shell does with it.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in command.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            ('|' | '>' | '&' | ';', None) => break,
            ('#', None) if word.is_none() => break,
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// What of a line is a command of this program's.
fn command(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("$ ");
    let at = if line.starts_with("weft ") { 0 } else { line.find(" -- weft ")? + " -- ".len() };
    line.get(at..)
}

#[test]
fn every_weft_command_of_the_manual_is_one_that_there_is() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in pages() {
        let blocks = text.split("```").skip(1).step_by(2).map(|block| block.replace("\\\n", " "));
        for block in blocks.filter(|block| ["sh\n", "bash\n", "console\n"].iter().any(|it| block.starts_with(it))) {
            // Behind a prompt stands what is typed; the rest is what is printed.
            let prompted = block.lines().any(|line| line.starts_with("$ "));
            let typed = block.lines().filter(|line| !prompted || line.starts_with("$ "));
            for command in typed.filter_map(command) {
                seen += 1;
                match crate::command().try_get_matches_from(words(command)) {
                    // `...` and other words stand for what only somebody's cluster has.
                    Err(error) if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) => {
                        wrong.push(format!("{}: {command}\n{error}", path.display()));
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(seen >= 50, "only {seen} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_end_where_the_shell_takes_over() {
    assert_eq!(words("weft explain \"shop/$(x 'y')\" a.b   # c"), ["weft", "explain", "shop/$(x 'y')", "a.b"]);
    assert_eq!(words("weft status >log 2>&1 &"), ["weft", "status"]);
    assert_eq!(command("$ weft check"), Some("weft check"));
    assert_eq!(command("kubectl exec a -- weft version"), Some("weft version"));
    assert_eq!(command("kubectl get weft "), None);
}
