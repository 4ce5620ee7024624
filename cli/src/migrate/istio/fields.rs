//! Objects of somebody else's kinds, read field by field. What nobody asked for can be told afterwards: a field that is not
//! known here, or has another type than it should, must not be passed over.

use serde_json::{Map, Value};

/// An object whose fields are taken out as they are understood.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    path: String,
    map: Map<String, Value>,
}

/// Something that is not translated: the field, its value, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub field: String,
    pub value: String,
    pub why: String,
    pub remedy: String,
}

impl Lost {
    /// A field that can't be translated.
    pub fn new(
        field: impl Into<String>,
        value: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.into(), why: why.into(), remedy: remedy.into() }
    }
}

/// A value as reports show it.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Fields {
    /// The fields of `value`, at `path` of its object; a value that is no object has none, but is itself left over.
    pub fn new(path: impl Into<String>, value: Value) -> Self {
        let path = path.into();
        match value {
            Value::Object(map) => Self { path, map },
            Value::Null => Self { path, map: Map::new() },
            other => Self { path, map: Map::from_iter([(String::new(), other)]) },
        }
    }

    /// Where a field stands: `spec.http[0].route`.
    pub fn at(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// What is left of it, as reports show it.
    pub fn shown(&self) -> String {
        Value::Object(self.map.clone()).to_string()
    }

    /// The texts of a list, which stays.
    pub fn peek(&self, name: &str) -> Vec<String> {
        self.map.get(name).and_then(Value::as_array).into_iter().flatten().map(shown).collect()
    }

    /// Whether a field is there, with any value but null.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A value of whatever type; `None` if it isn't there or null.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Sets a field that isn't there.
    pub fn inherit(&mut self, name: &str, value: &Value) {
        if !self.has(name) {
            self.map.insert(name.to_owned(), value.clone());
        }
    }

    fn take_if(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        match self.map.get(name) {
            Some(value) if value.is_null() || fits(value) => self.take(name),
            _ => None,
        }
    }

    /// A text; a number or a yes becomes the text that it would be written as.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        self.take_if(name, scalar).map(|value| shown(&value))
    }

    /// A whole number.
    pub fn number(&mut self, name: &str) -> Option<u64> {
        self.take_if(name, Value::is_u64).and_then(|value| value.as_u64())
    }

    /// A yes or a no.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        self.take_if(name, Value::is_boolean).and_then(|value| value.as_bool())
    }

    /// A list, empty if it isn't there.
    pub fn list(&mut self, name: &str) -> Vec<Value> {
        match self.take_if(name, Value::is_array) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        }
    }

    /// A list of texts; if one of them is none, the list stays and is left over.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        let fits = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(scalar));
        match self.take_if(name, fits) {
            Some(Value::Array(list)) => list.iter().map(shown).collect(),
            _ => Vec::new(),
        }
    }

    /// An object.
    pub fn part(&mut self, name: &str) -> Option<Self> {
        let at = self.at(name);
        self.take_if(name, Value::is_object).map(|value| Self::new(at, value))
    }

    /// A list of objects; one of another type has itself left over.
    pub fn parts(&mut self, name: &str) -> Vec<Self> {
        let at = self.at(name);
        let list = self.list(name).into_iter().enumerate();
        list.map(|(i, value)| Self::new(format!("{at}[{i}]"), value)).collect()
    }

    /// An object with values of one sort, by name.
    pub fn entries(&mut self, name: &str) -> Vec<(String, Self)> {
        let Some(part) = self.part(name) else { return Vec::new() };
        let at = |key: &str| format!("{}[{key}]", part.path);
        part.map.iter().map(|(key, value)| (key.clone(), Self::new(at(key), value.clone()))).collect()
    }

    /// An object with texts as values; if one of them is none, it stays and is left over.
    pub fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        let fits = |value: &Value| value.as_object().is_some_and(|map| map.values().all(scalar));
        match self.take_if(name, fits) {
            Some(Value::Object(map)) => map.iter().map(|(key, value)| (key.clone(), shown(value))).collect(),
            _ => Vec::new(),
        }
    }

    /// What nobody has taken.
    pub fn rest(self) -> Vec<Lost> {
        let why = "is not known here, or has another type than it should";
        let remedy = "look what it does, and whether something here does it";
        let at = |name: &str| self.at(name);
        let left = self.map.iter().filter(|(_, value)| !value.is_null());
        let mut left: Vec<_> = left.map(|(name, value)| Lost::new(at(name), shown(value), why, remedy)).collect();
        left.sort_by(|a, b| a.field.cmp(&b.field));
        left
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_takes_and_what_has_another_type_is_left_over() {
        let value = json!({ "a": "x", "b": 7, "c": [1, { "d": 1 }], "e": { "f": "g" }, "h": null, "i": ["x", {}] });
        let mut fields = Fields::new("spec", value);
        assert_eq!((fields.text("a").as_deref(), fields.text("b").as_deref()), (Some("x"), Some("7")));
        let parts = fields.parts("c");
        let rest: Vec<_> = parts.into_iter().flat_map(Fields::rest).map(|lost| lost.field).collect();
        assert_eq!(rest, ["spec.c[0]", "spec.c[1].d"]);
        assert_eq!(fields.text("e"), None, "an object is no text");
        assert_eq!(fields.texts("i"), Vec::<String>::new());
        let rest: Vec<_> = fields.rest().into_iter().map(|lost| lost.field).collect();
        assert_eq!(rest, ["spec.e", "spec.i"]);
    }
}
