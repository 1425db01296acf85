//! Reads the settings table by table, field by field, and collects everything that is wrong with them, so that an operator
//! learns of all faults at once. Its texts name fields and what they take, and never repeat a value.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::{spelling, time};

/// A table being read. Each setting is read once; [`Table::finish`] names those nobody read.
pub(crate) struct Table<'a> {
    path: String,
    fields: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
    faults: Vec<String>,
}

impl<'a> Table<'a> {
    /// The table at `path`, as people write it; `None` when it is not there.
    pub(crate) fn new(path: &str, value: Option<&'a Value>) -> Self {
        let fields = value.and_then(Value::as_object);
        let mut table = Self { path: path.to_owned(), fields, known: Vec::new(), faults: Vec::new() };
        if value.is_some() && fields.is_none() {
            table.faults.push(format!("{path} is a table (a JSON object) of fields"));
        }
        table
    }

    /// A table inside this one.
    pub(crate) fn table(&mut self, name: &'static str) -> Table<'a> {
        Table::new(&format!("{}.{name}", self.path), self.get(name))
    }

    /// Takes over what is wrong with a table inside this one.
    pub(crate) fn include(&mut self, inner: Table<'_>) {
        self.faults.extend(inner.finish());
    }

    /// Says what is wrong with a setting.
    pub(crate) fn fault(&mut self, name: &str, what: &str) {
        self.faults.push(format!("{}.{name}: {what}", self.path));
    }

    /// Says what is wrong with the whole.
    pub(crate) fn faults(&mut self, what: impl IntoIterator<Item = String>) {
        self.faults.extend(what.into_iter().map(|fault| format!("{}.{fault}", self.path)));
    }

    /// Whether something is wrong already, unknown settings aside.
    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// What else stands there cannot be judged: nothing is said of it.
    pub(crate) fn skip_rest(&mut self) {
        self.fields = None;
    }

    /// Everything that is wrong, unknown settings included.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let unknown = self.fields.into_iter().flatten().map(|(name, _)| name);
        for name in unknown.filter(|name| !self.known.contains(&name.as_str())) {
            let known = self.known.join(", ");
            let meant = spelling::closest(name, self.known.iter().copied());
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            self.faults.push(format!("{}.{name} is not known; known here: {known}{meant}", self.path));
        }
        self.faults
    }

    /// The settings that were read so far.
    pub(crate) fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Says why a setting that there is not must not stand here, if it does.
    pub(crate) fn refuse(&mut self, name: &'static str, why: &str) {
        if self.fields.is_some_and(|fields| fields.contains_key(name)) {
            self.known.push(name);
            self.fault(name, why);
        }
    }

    /// A setting's value, as it stands.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.fields?.get(name)
    }

    /// A setting read by `read`; its default when it is absent or wrong.
    fn read<T>(
        &mut self,
        name: &'static str,
        what: &str,
        default: T,
        read: impl Fn(&Value) -> Option<T>,
    ) -> T {
        match self.get(name).map(read) {
            None => default,
            Some(Some(value)) => value,
            Some(None) => {
                self.fault(name, what);
                default
            }
        }
    }

    pub(crate) fn text(&mut self, name: &'static str, default: &str) -> String {
        self.read(name, "a string in quotes", default.to_owned(), |value| value.as_str().map(String::from))
    }

    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.read(name, "true or false, without quotes", default, Value::as_bool)
    }

    /// A whole number in a range.
    pub(crate) fn number(
        &mut self,
        name: &'static str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(name, &what, default, |value| {
            value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| range.contains(number))
        })
    }

    /// A duration, longer than nothing.
    pub(crate) fn duration(&mut self, name: &'static str, default: &str) -> Duration {
        self.optional_duration(name, default).unwrap_or_else(|| {
            self.fault(name, "cannot be empty");
            Duration::MAX
        })
    }

    /// A duration, or none for `""`.
    pub(crate) fn optional_duration(&mut self, name: &'static str, default: &str) -> Option<Duration> {
        const WHAT: &str = "a duration like \"90s\", \"30m\", \"24h\" or \"30d\"";
        self.read(name, WHAT, parse_duration(default), |value| {
            value.as_str().and_then(parse_duration_or_none)
        })
    }

    /// A duration longer than nothing, or a whole number of seconds.
    pub(crate) fn duration_or_seconds(&mut self, name: &'static str, default: &str) -> Duration {
        const WHAT: &str = "a duration like \"24h\", or a whole number of seconds";
        let default = parse_duration(default).unwrap_or(Duration::MAX);
        self.read(name, WHAT, default, |value| match value.as_u64() {
            Some(seconds) => Some(Duration::from_secs(seconds))
                .filter(|duration| !duration.is_zero() && *duration <= LONGEST),
            None => value.as_str().and_then(parse_duration),
        })
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &'static str, options: &[(&str, T)], default: T) -> T {
        let words: Vec<_> = options.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let what = format!("one of {}", words.join(", "));
        self.read(name, &what, default, |value| {
            let word = value.as_str()?;
            options.iter().find(|(option, _)| *option == word).map(|(_, choice)| *choice)
        })
    }

    /// A list of tables, each read by `read`, which also learns its index. `name_alone`: the field that a text in the place of
    /// a table stands for. `what`: what the list is.
    pub(crate) fn tables(
        &mut self,
        name: &'static str,
        name_alone: Option<&str>,
        what: &str,
        mut read: impl FnMut(usize, &mut Table<'_>),
    ) {
        let items = match self.get(name).map(Value::as_array) {
            None => return,
            Some(Some(items)) => items,
            Some(None) => return self.fault(name, what),
        };
        for (index, item) in items.iter().enumerate() {
            let short = name_alone.filter(|_| item.is_string());
            let table =
                short.map(|field| Value::Object([(field.to_owned(), item.clone())].into_iter().collect()));
            let mut inner =
                Table::new(&format!("{}.{name}[{index}]", self.path), Some(table.as_ref().unwrap_or(item)));
            // Of what is no table nothing else is worth saying.
            if !inner.has_faults() {
                read(index, &mut inner);
            }
            self.include(inner);
        }
    }

    /// A list of strings.
    pub(crate) fn list(&mut self, name: &'static str, default: &[&str]) -> Vec<String> {
        let default = default.iter().map(|text| (*text).to_owned()).collect();
        self.read(name, "a list of strings", default, |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect()
        })
    }
}

/// Ten years: longer than any session, and far from where arithmetic on times would overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

fn parse_duration(text: &str) -> Option<Duration> {
    time::parse_duration(text).filter(|duration| !duration.is_zero() && *duration <= LONGEST)
}

#[allow(
    clippy::option_option,
    reason = "the outer says whether the text is right, the inner whether it is empty"
)]
fn parse_duration_or_none(text: &str) -> Option<Option<Duration>> {
    if text.is_empty() { Some(None) } else { parse_duration(text).map(Some) }
}
