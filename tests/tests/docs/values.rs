//! docs/values.md, made of the chart's values with their comments, its schema, and what the programs say of their options.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use weft_tests::cluster::repository;

use crate::{cell, is_generated, programs};

fn chart(file: &str) -> String {
    std::fs::read_to_string(repository().join("charts/weft").join(file)).unwrap()
}

/// What stands above each value, by its path.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut comments, mut above, mut path) = (BTreeMap::new(), Vec::new(), Vec::<(usize, &str)>::new());
    for line in text.lines() {
        let bare = line.trim_start();
        let depth = line.len() - bare.len();
        if let Some(comment) = bare.strip_prefix('#') {
            above.push(comment.trim());
            continue;
        }
        if let Some((name, _)) = bare.split_once(':').filter(|_| !bare.starts_with('-')) {
            path.retain(|(theirs, _)| *theirs < depth);
            path.push((depth, name));
            let path: Vec<_> = path.iter().map(|(_, name)| *name).collect();
            if !above.is_empty() {
                comments.insert(path.join("."), above.join(" "));
            }
        }
        above.clear();
    }
    comments
}

/// What a value may be, in words.
fn kind(schema: &Value, property: &Value) -> String {
    let referred = property.pointer("/allOf/0/$ref").or_else(|| property.get("$ref")).and_then(Value::as_str);
    if let Some(name) = referred {
        let definition = name.rsplit('/').next().unwrap_or_default();
        return match definition {
            "strings" => "map of text".to_owned(),
            "numberOrPercent" => "number or percentage".to_owned(),
            _ => kind(schema, schema.pointer(name.trim_start_matches('#')).unwrap()),
        };
    }
    if let Some(choices) = property["enum"].as_array() {
        let choices =
            choices.iter().map(|choice| format!("`{}`", choice.as_str().filter(|c| !c.is_empty()).unwrap_or("\"\"")));
        return choices.collect::<Vec<_>>().join(", ");
    }
    let range = |key: &str| property[key].as_i64();
    match (property["type"].as_str().unwrap_or_default(), range("minimum"), range("maximum")) {
        ("integer", Some(least), Some(most)) => format!("number, {least} to {most}"),
        ("integer", Some(least), None) => format!("number, from {least}"),
        ("integer", ..) => "number".to_owned(),
        ("boolean", ..) => "`true`, `false`".to_owned(),
        ("string", ..) => "text".to_owned(),
        ("array", ..) => "list".to_owned(),
        ("object", ..) => "map".to_owned(),
        (other, ..) => panic!("{other:?} of {property} has no word"),
    }
}

/// The table of the chart's values.
struct Table {
    page: String,
    schema: Value,
    comments: BTreeMap<String, String>,
}

impl Table {
    /// Rows of all values below one, in the order of the file; `part` is what the schema says of it.
    fn rows(&mut self, path: &str, values: &Value, part: &Value) {
        for (name, value) in values.as_object().into_iter().flatten() {
            let property = &part["properties"][name];
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            assert!(property.is_object(), "{path} isn't in the schema");
            let has_parts = value.as_object().is_some_and(|parts| !parts.is_empty());
            if property.get("properties").is_some() && has_parts {
                self.rows(&path, value, property);
                continue;
            }
            let meaning = self.comments.get(&path);
            let meaning = meaning.unwrap_or_else(|| panic!("{path} has no comment in values.yaml"));
            let default =
                value.as_str().filter(|text| !text.is_empty()).map_or_else(|| value.to_string(), str::to_owned);
            let kind = cell(&kind(&self.schema, property));
            writeln!(self.page, "| `{path}` | {kind} | `{}` | {} |", cell(&default), cell(meaning)).unwrap();
        }
    }
}

fn page() -> String {
    let text = chart("values.yaml");
    let values: Value = serde_norway::from_str(&text).unwrap();
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let mut page = include_str!("values.md").to_owned();
    page.push_str("## The chart weft\n\n| value | may be | default | meaning |\n|---|---|---|---|\n");
    let mut table = Table { page, schema: schema.clone(), comments: comments(&text) };
    table.rows("", &values, &schema);
    programs::options(&mut table.page);
    table.page
}

#[test]
fn the_table_of_values_is_that_of_the_chart_and_the_programs() {
    is_generated("docs/values.md", &page());
}

#[test]
fn comments_belong_to_what_they_stand_above() {
    let text =
        "# The file.\n\n# One,\n# still.\na: 1\nb:\n  # Inner.\n  c: []\n  d:\n    # Of a list.\n    - e: 1\nf: 2\n";
    let expected = [("a", "One, still."), ("b.c", "Inner.")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(comments(text), BTreeMap::from(expected));
}
