//! What became of every setting, as values: nothing that was read goes without an entry.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::table;

/// What became of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Not translated: somebody has to do something.
    LeftOut,
    /// Translated into something that isn't quite the same.
    Differs,
    /// Translated.
    Translated,
    /// Carried over as it is, for another program that reads it.
    Kept,
    /// Not needed here, or without effect there.
    Unneeded,
}

impl Level {
    const ALL: [Self; 5] = [Self::LeftOut, Self::Differs, Self::Translated, Self::Kept, Self::Unneeded];

    fn heading(self) -> &'static str {
        match self {
            Self::LeftOut => "not translated",
            Self::Differs => "translated, and not quite the same",
            Self::Translated => "translated",
            Self::Kept => "carried over for other programs",
            Self::Unneeded => "not needed",
        }
    }
}

/// One setting of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Entry {
    /// What became of it.
    pub level: Level,
    /// The object it stands in, as `Ingress shop/web`.
    pub object: String,
    /// The annotation's name, or the field.
    pub setting: String,
    /// Its value; empty where the setting says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What it is now, or why it isn't there.
    pub message: String,
    /// What to do; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// All entries, and what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Objects that were made, as `HTTPRoute shop/web`.
    pub made: Vec<String>,
    /// In order of level, object and setting.
    pub entries: BTreeSet<Entry>,
}

impl Report {
    /// Adds an entry.
    pub fn say(&mut self, level: Level, at: (&str, &str, &str), message: impl Into<String>, remedy: impl Into<String>) {
        let (object, setting, value) = at;
        let entry = Entry {
            level,
            object: object.to_owned(),
            setting: setting.to_owned(),
            value: value.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        };
        self.entries.insert(entry);
    }

    /// Whether something was left out.
    pub fn is_incomplete(&self) -> bool {
        self.of(Level::LeftOut).next().is_some()
    }

    /// The entries of a level.
    pub fn of(&self, level: Level) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.level == level)
    }
}

/// A value on one line, and not all of a long one.
fn short(value: &str) -> String {
    const LONGEST: usize = 60;
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in Level::ALL {
            let entries: Vec<_> = self.of(level).collect();
            if entries.is_empty() {
                continue;
            }
            writeln!(f, "{}", level.heading())?;
            if matches!(level, Level::LeftOut | Level::Differs | Level::Kept) {
                for entry in entries {
                    write!(f, "  {}: {}", entry.object, entry.setting)?;
                    if !entry.value.is_empty() {
                        write!(f, ": {:?}", short(&entry.value))?;
                    }
                    writeln!(f, "\n    {}", entry.message)?;
                    if !entry.remedy.is_empty() {
                        writeln!(f, "    to do: {}", entry.remedy)?;
                    }
                }
            } else {
                let row = |e: &&Entry| vec![e.object.clone(), e.setting.clone(), short(&e.value), e.message.clone()];
                write!(f, "{}", table(&["OBJECT", "SETTING", "VALUE", "BECAME"], entries.iter().map(row)))?;
            }
            writeln!(f)?;
        }
        let (left, differ) = (self.of(Level::LeftOut).count(), self.of(Level::Differs).count());
        writeln!(f, "{} objects made, {left} settings not translated, {differ} not quite the same", self.made.len())
    }
}
