//! The annotations of one object, each of which ends up in the report.
//!
//! Controllers have different names for the same settings. They are read under one name, that of ingress-nginx where it has
//! one, so that what a setting becomes is decided in one place.

use std::collections::{BTreeMap, BTreeSet};

use super::class::{Class, Controller};
use super::names;
use super::report::{Level, Report};

struct Annotation {
    /// As it is written.
    key: String,
    value: String,
}

/// Annotations by the names that they have here.
pub struct Annotations<'a> {
    object: String,
    controller: Controller,
    all: BTreeMap<String, Annotation>,
    /// Names that the report has an entry of.
    told: BTreeSet<String>,
    report: &'a mut Report,
    /// Whether something that protects what is behind the Ingress was left out.
    unprotected: bool,
    /// For cert-manager and external-dns.
    pub carried: BTreeMap<String, String>,
}

/// The name of an annotation for a controller, without the prefix; `None` if it is for somebody else.
fn own_name(controller: Controller, key: &str) -> Option<&str> {
    let own = Controller::PREFIXES.into_iter().filter(|(it, _)| *it == controller);
    let shared =
        matches!(controller, Controller::HaproxyTech | Controller::HaproxyIngress).then_some(names::SHARED_PREFIX);
    own.map(|(_, prefix)| prefix).chain(shared).find_map(|prefix| key.strip_prefix(prefix))
}

/// Whether a controller may read an annotation of a Service; ingress-nginx reads none.
pub fn of_services_too(controller: Controller, key: &str) -> bool {
    let own = controller != Controller::Nginx && own_name(controller, key).is_some();
    own || (controller == Controller::Traefik && key.contains("traefik")) || names::BACKEND_CONFIGS.contains(&key)
}

impl<'a> Annotations<'a> {
    /// Those of an object that a class's controller reads.
    pub fn new(
        object: &str,
        class: &Class,
        annotations: Option<&BTreeMap<String, String>>,
        report: &'a mut Report,
    ) -> Self {
        let controller = class.controller;
        let mut made = Self {
            object: object.to_owned(),
            controller,
            all: BTreeMap::new(),
            told: BTreeSet::new(),
            report,
            unprotected: false,
            carried: BTreeMap::new(),
        };
        for (key, value) in annotations.into_iter().flatten() {
            match own_name(controller, key) {
                Some(own) => {
                    let (name, read) = names::shared(controller, own, value);
                    match made.all.get(&name).map(|first| first.key.clone()) {
                        Some(first) => made.report.say(
                            Level::LeftOut,
                            (object, key, value),
                            format!("says the same as {first}, which is read in its place"),
                            "keep one of the two",
                        ),
                        None => {
                            made.all.insert(name, Annotation { key: key.clone(), value: read });
                        }
                    }
                }
                None => made.foreign(key, value, class),
            }
        }
        made
    }

    /// One that the controller doesn't read.
    fn foreign(&mut self, key: &str, value: &str, class: &Class) {
        let carried = ["cert-manager.io/", "acme.cert-manager.io/", "external-dns.alpha.kubernetes.io/"];
        if carried.iter().any(|prefix| key.starts_with(prefix)) || key == "kubernetes.io/tls-acme" {
            self.carried.insert(key.to_owned(), value.to_owned());
            return;
        }
        let at = (self.object.as_str(), key, value);
        let program = class.controller.as_str();
        match names::reader(key) {
            names::Reader::Class => self.report.say(Level::Unneeded, at, "the Gateway is named after the class", ""),
            names::Reader::Tool => self.report.say(Level::Unneeded, at, "is for a program that serves no requests", ""),
            names::Reader::Known if class.is_described => {
                let why = format!("{program} doesn't read it, and it serves class {}", class.name);
                self.report.say(Level::Unneeded, at, why, "");
            }
            names::Reader::Known => {
                // It may be the one that protects what is behind, were the guess wrong.
                let why = format!("class {} is taken for one of {program}, which doesn't read it", class.name);
                self.report.say(Level::LeftOut, at, why, "give the IngressClass too, or remove the annotation");
                self.unprotected = true;
            }
            names::Reader::Unknown => {
                let why = "of a controller whose annotations are not known here";
                let remedy = "look what it does, and whether a filter or a policy can; then use --allow-unprotected";
                self.report.say(Level::LeftOut, at, why, remedy);
                self.unprotected = true;
            }
            names::Reader::Nobody => {
                let remedy =
                    "look whether a controller reads it; labels and annotations of your own are not carried over";
                self.report.say(Level::LeftOut, at, "it isn't known who reads it", remedy);
            }
        }
    }

    /// The controller that reads them.
    pub fn controller(&self) -> Controller {
        self.controller
    }

    /// The value of an annotation.
    pub fn get(&self, name: &str) -> Option<String> {
        self.all.get(name).map(|annotation| annotation.value.trim().to_owned())
    }

    /// A boolean; what is none is reported and counts as not there.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        match value.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" | "enabled" => Some(true),
            "false" | "off" | "no" | "0" | "disabled" | "" => Some(false),
            _ => {
                self.left_out(name, "is neither true nor false", "correct it");
                None
            }
        }
    }

    /// A number; what is none is reported and counts as not there.
    pub fn number(&mut self, name: &str) -> Option<u32> {
        let value = self.get(name)?;
        let number = value.parse().ok();
        if number.is_none() {
            self.left_out(name, "is not a number", "correct it");
        }
        number
    }

    /// The items of a list with commas; `None` if there is no such annotation.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        let items = |text: String| -> Vec<String> {
            text.split([',', '\n']).map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        self.get(name).map(items)
    }

    /// Names that start so, with what follows and the value.
    pub fn starting(&self, prefix: &str) -> Vec<(String, String)> {
        let with =
            self.all.iter().filter_map(|(name, it)| Some((name.strip_prefix(prefix)?.to_owned(), it.value.clone())));
        with.collect()
    }

    fn tell(&mut self, level: Level, name: &str, message: impl Into<String>, remedy: impl Into<String>) {
        let Some(annotation) = self.all.get(name) else { return };
        self.told.insert(name.to_owned());
        self.report.say(level, (&self.object, &annotation.key, &annotation.value), message, remedy);
    }

    /// Says what an annotation became.
    pub fn became(&mut self, name: &str, what: impl Into<String>) {
        self.tell(Level::Translated, name, what, "");
    }

    /// Says what it became, and how that differs.
    pub fn differs(&mut self, name: &str, how: impl Into<String>, remedy: impl Into<String>) {
        self.tell(Level::Differs, name, how, remedy);
    }

    /// Says that it was left out.
    pub fn left_out(&mut self, name: &str, why: impl Into<String>, remedy: impl Into<String>) {
        self.tell(Level::LeftOut, name, why, remedy);
    }

    /// As [`Self::left_out`], of something that protects what is behind the Ingress.
    pub fn unprotected(&mut self, name: &str, why: impl Into<String>, remedy: impl Into<String>) {
        if self.all.contains_key(name) {
            self.unprotected = true;
            self.left_out(name, why, remedy);
        }
    }

    /// The same of what protects because nobody has set this to something else.
    pub fn unprotected_unless_set(&mut self, key: &str, why: impl Into<String>, remedy: impl Into<String>) {
        self.unprotected = true;
        self.report.say(Level::LeftOut, (&self.object, key, ""), why, remedy);
    }

    /// Says that it isn't needed.
    pub fn unneeded(&mut self, name: &str, why: impl Into<String>) {
        self.tell(Level::Unneeded, name, why, "");
    }

    /// Says of all that is left that it has no effect.
    pub fn ineffective(&mut self, names: &[&str], why: &str) {
        for name in names.iter().filter(|name| !self.told.contains(**name)).copied().collect::<Vec<_>>() {
            self.unneeded(name, why);
        }
    }

    /// Reports all that nobody has read; whether something that protects was left out.
    pub fn finish(mut self) -> bool {
        let rest: Vec<_> = self.all.keys().filter(|name| !self.told.contains(*name)).cloned().collect();
        for name in rest {
            match names::untranslated(self.controller, &name) {
                Some(names::Fate::Unneeded(why)) => self.unneeded(&name, why),
                Some(names::Fate::LeftOut(why, remedy)) => self.left_out(&name, why, remedy),
                Some(names::Fate::Protects(why, remedy)) => self.unprotected(&name, why, remedy),
                None => {
                    let why = format!("not an annotation of {} that is known here", self.controller.as_str());
                    self.left_out(&name, why, "look whether it is spelt right and what it did");
                }
            }
        }
        self.unprotected
    }
}
