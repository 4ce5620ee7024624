//! YAML (and JSON, its subset) to values, with the line of every field.
//!
//! Built on a parser of events, so that this module alone decides how much is kept: files may come from anyone who
//! can write to the directory. Bounded are the depth, and the number of values after aliases have been expanded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 64;
/// Most values in a file, aliases expanded. 16 MiB of real manifests stay far below.
const MAX_VALUES: usize = 4_000_000;

/// Why a file can't be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Where the fields of a document are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineTree {
    line: u32,
    children: Vec<(Key, LineTree)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Field(Box<str>),
    Index(usize),
}

impl LineTree {
    /// The line of a field (`spec.rules[0].name`), or of the nearest one around it that is there.
    pub fn line_of(&self, field: &str) -> usize {
        let mut at = self;
        for step in steps(field) {
            match at.children.iter().find(|(key, _)| *key == step) {
                Some((_, child)) => at = child,
                None => break,
            }
        }
        at.line as usize
    }

    /// The tree of one field.
    pub fn child(&self, field: &str) -> Option<&Self> {
        let wanted = Key::Field(field.into());
        self.children.iter().find(|(key, _)| *key == wanted).map(|(_, tree)| tree)
    }

    /// The tree of one item.
    pub fn item(&self, index: usize) -> Option<&Self> {
        self.children.iter().find(|(key, _)| *key == Key::Index(index)).map(|(_, tree)| tree)
    }
}

/// `a.b[0].c` as keys.
fn steps(field: &str) -> impl Iterator<Item = Key> {
    field.split('.').flat_map(|part| {
        let (name, rest) = part.split_once('[').unwrap_or((part, ""));
        let name = (!name.is_empty()).then(|| Key::Field(name.into()));
        let indexes = rest.split(['[', ']']).filter_map(|i| i.parse().ok()).map(Key::Index);
        name.into_iter().chain(indexes)
    })
}

/// One document.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Its value.
    pub value: Value,
    /// Where its fields are.
    pub lines: LineTree,
    /// Fields that are there twice: path, line, line of the first.
    pub repeated: Vec<(String, usize, usize)>,
}

/// A value with its lines and its size.
#[derive(Clone, Debug)]
struct Node {
    value: Value,
    lines: LineTree,
    values: usize,
}

/// A collection under construction.
enum Open {
    Sequence { anchor: usize, line: u32, items: Vec<Node> },
    Mapping { anchor: usize, line: u32, key: Option<(String, u32)>, fields: Vec<(String, u32, Node)> },
}

/// Reads all documents of a text.
///
/// # Errors
/// The text is not YAML, or goes beyond the limits.
pub fn documents(text: &str) -> Result<Vec<Document>, Malformed> {
    let mut reader = Reader::default();
    let mut parser = Parser::<StrInput<'_>>::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| Malformed {
            line: e.marker().line().max(1),
            message: format!("not valid YAML: {} (column {})", e.info(), e.marker().col() + 1),
            remedy: "correct the syntax; until then the objects of this file stay as they were".into(),
        })?;
        if matches!(event, Event::StreamEnd) {
            break;
        }
        reader.take(event, span)?;
    }
    Ok(reader.documents)
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    repeated: Vec<(String, usize, usize)>,
    values: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Malformed> {
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::SequenceStart(anchor, _) => self.push(Open::Sequence { anchor, line, items: Vec::new() }, line)?,
            Event::MappingStart(anchor, _) => {
                self.push(Open::Mapping { anchor, line, key: None, fields: Vec::new() }, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((anchor, node)) = self.open.pop().map(|open| self.close(open)).transpose()? {
                    self.add(anchor, node, line)?;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = style != ScalarStyle::Plain || tag.is_some_and(|t| t.suffix == "str");
                let key_wanted = matches!(self.open.last(), Some(Open::Mapping { key: None, .. }));
                let value = if as_text || key_wanted { Value::String(text.into_owned()) } else { scalar(&text) };
                let node = Node { value, lines: LineTree { line, children: Vec::new() }, values: 1 };
                self.add(anchor, node, line)?;
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return malformed(
                        line,
                        "an alias to an unfinished or unknown anchor".into(),
                        "write the value out",
                    );
                };
                // Counted before it is copied: ten aliases of ten aliases of ... must not be expanded first.
                self.values = self.values.saturating_add(node.values);
                self.check_size(line)?;
                let node = self.anchors.get(&anchor).cloned();
                if let Some(node) = node {
                    self.add(0, node, line)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_size(&self, line: u32) -> Result<(), Malformed> {
        if self.values > MAX_VALUES {
            let message = format!("more than {MAX_VALUES} values, with aliases expanded");
            return malformed(line, message, "split the file; use fewer aliases");
        }
        Ok(())
    }

    fn push(&mut self, open: Open, line: u32) -> Result<(), Malformed> {
        if self.open.len() >= MAX_DEPTH {
            return malformed(
                line,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "no Kubernetes object is so deep",
            );
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self, open: Open) -> Result<(usize, Node), Malformed> {
        match open {
            Open::Sequence { anchor, line, items } => {
                let values = 1 + items.iter().map(|n| n.values).sum::<usize>();
                let mut lines = LineTree { line, children: Vec::with_capacity(items.len()) };
                let mut list = Vec::with_capacity(items.len());
                for (i, item) in items.into_iter().enumerate() {
                    lines.children.push((Key::Index(i), item.lines));
                    list.push(item.value);
                }
                Ok((anchor, Node { value: Value::Array(list), lines, values }))
            }
            Open::Mapping { anchor, line, fields, .. } => Ok((anchor, self.mapping(line, fields))),
        }
    }

    fn mapping(&mut self, line: u32, fields: Vec<(String, u32, Node)>) -> Node {
        let values = 1 + fields.iter().map(|(_, _, n)| n.values).sum::<usize>();
        let mut lines = LineTree { line, children: Vec::with_capacity(fields.len()) };
        let mut map = Map::new();
        let mut merged = Vec::new();
        let mut first: HashMap<String, u32> = HashMap::with_capacity(fields.len());
        for (key, key_line, node) in fields {
            if key == "<<" {
                merged.push(node);
                continue;
            }
            if let Some(before) = first.insert(key.clone(), key_line) {
                self.repeated.push((key.clone(), key_line as usize, before as usize));
                continue;
            }
            lines.children.push((Key::Field(key.as_str().into()), LineTree { line: key_line, ..node.lines }));
            map.insert(key, node.value);
        }
        for node in merged {
            let Value::Object(other) = node.value else { continue };
            for (key, value) in other {
                if !map.contains_key(&key) {
                    let tree = node.lines.child(&key).cloned().unwrap_or_default();
                    lines.children.push((Key::Field(key.as_str().into()), tree));
                    map.insert(key, value);
                }
            }
        }
        Node { value: Value::Object(map), lines, values }
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, anchor: usize, node: Node, line: u32) -> Result<(), Malformed> {
        self.values = self.values.saturating_add(1);
        self.check_size(line)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => {
                let repeated = std::mem::take(&mut self.repeated);
                self.documents.push(Document { value: node.value, lines: node.lines, repeated });
            }
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { key, fields, .. }) => match key.take() {
                Some((key, key_line)) => fields.push((key, key_line, node)),
                None => match node.value {
                    Value::String(text) => *key = Some((text, line)),
                    Value::Number(n) => *key = Some((n.to_string(), line)),
                    Value::Bool(b) => *key = Some((b.to_string(), line)),
                    _ => return malformed(line, "a key that is not text".into(), "use a plain word as key"),
                },
            },
        }
        Ok(())
    }
}

fn malformed<T>(line: u32, message: String, remedy: &str) -> Result<T, Malformed> {
    Err(Malformed { line: (line as usize).max(1), message, remedy: remedy.into() })
}

/// A plain scalar by the core schema of YAML 1.2.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let radix = |prefix: &str, radix| text.strip_prefix(prefix).and_then(|d| i64::from_str_radix(d, radix).ok());
        if let Some(n) = unsigned.parse::<i64>().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8)) {
            return Value::Number(n.into());
        }
        if let Ok(n) = unsigned.parse::<u64>() {
            return Value::Number(n.into());
        }
        let float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
        if let Some(n) = unsigned.parse::<f64>().ok().filter(|_| float).and_then(Number::from_f64) {
            return Value::Number(n);
        }
    }
    Value::String(text.to_owned())
}
