//! Takes keys out of a document by name and type, and gathers what is wrong with them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    path::Path,
};

use super::{
    diagnostic::{Diagnostic, Location},
    value::{KeyValue, Position, Spanned, SyntaxError, Value},
};

/// What is known of one document: where its keys stand and what is wrong with them.
pub(crate) struct DocumentReader<'a> {
    file: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
    locations: HashMap<String, Location>,
    problems: Vec<Diagnostic>,
    /// The keys that have a problem.
    reported: HashSet<String>,
    /// The path of every key that was asked for, but for those of a list's items.
    known: BTreeSet<String>,
    /// Keys that nobody asked for, with those that were asked for beside them.
    unknown: Vec<(String, String, Vec<&'static str>)>,
}

impl<'a> DocumentReader<'a> {
    /// A reader of a document that is called `file`, some of whose keys environment variables
    /// override.
    pub(crate) fn new(file: &'a Path, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            file,
            environment,
            locations: HashMap::new(),
            problems: Vec::new(),
            reported: HashSet::new(),
            known: BTreeSet::new(),
            unknown: Vec::new(),
        }
    }

    /// The top of the document.
    pub(crate) fn root(&mut self, node: Spanned) -> TableReader<'_, 'a> {
        self.table("", node).unwrap_or_else(|reader| TableReader::empty(reader, ""))
    }

    /// The table at `path`, or a problem.
    pub(crate) fn table(
        &mut self,
        path: &str,
        node: Spanned,
    ) -> Result<TableReader<'_, 'a>, &mut Self> {
        let location = self.location(node.at);
        self.locations.entry(path.to_owned()).or_insert(location);
        match node.value {
            Value::Table(entries) => Ok(TableReader {
                path: path.to_owned(),
                variable: None,
                entries,
                asked: Vec::new(),
                reader: self,
            }),
            Value::List(_) if !path.is_empty() && !path.ends_with(']') => {
                self.report(
                    path,
                    format_args!(
                        "expected one table, not a list: write `[{path}]`, in single brackets"
                    ),
                );
                Err(self)
            }
            other => {
                self.report(path, format_args!("expected a table, not {}", other.describe()));
                Err(self)
            }
        }
    }

    /// Notes a problem of the key at `key`; only the first one of each key is kept.
    pub(crate) fn report(&mut self, key: &str, message: impl fmt::Display) {
        if key.is_empty() || self.reported.insert(key.to_owned()) {
            self.problems.push(Diagnostic {
                location: self.location_of(key),
                key: key.to_owned(),
                message: message.to_string(),
            });
        }
    }

    /// Notes problems that were found in the part of the document at `path`.
    pub(crate) fn report_within(
        &mut self,
        path: &str,
        problems: impl IntoIterator<Item = Diagnostic>,
    ) {
        for problem in problems {
            self.report(&join(path, &problem.key), problem.message);
        }
    }

    /// Notes that the text is not of its format.
    pub(crate) fn report_syntax(&mut self, error: SyntaxError) {
        self.problems.push(Diagnostic {
            location: self.location(error.at),
            key: String::new(),
            message: error.message,
        });
    }

    /// Whether anything below `path` was refused, so that checks that build on it would only repeat
    /// it.
    pub(crate) fn refused(&self, path: &str) -> bool {
        self.problems.iter().any(|problem| problem.key.starts_with(path))
    }

    /// Every problem, in the order of their lines.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        for (path, key, beside) in std::mem::take(&mut self.unknown) {
            let elsewhere = self
                .known
                .iter()
                .find(|known| known.rsplit_once('.').is_some_and(|(_, last)| last == key));
            let message = match elsewhere.map(String::as_str).or_else(|| nearest(&key, &beside)) {
                Some(near) => format!("is not a key here: did you mean `{near}`?"),
                None => format!("is not a key here: known are `{}`", beside.join("`, `")),
            };
            self.report(&path, message);
        }
        self.problems.sort_by_key(|problem| problem.location.order());
        self.problems
    }

    /// Where a key stands: itself, else the nearest one around it that was read.
    pub(crate) fn location_of(&self, key: &str) -> Location {
        let mut path = key;
        loop {
            if let Some(location) = self.locations.get(path) {
                return location.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Location::file(self.file),
            }
        }
    }

    fn location(&self, at: Option<Position>) -> Location {
        match at {
            Some(Position { line, column }) => {
                Location::Line { file: self.file.to_owned(), line, column }
            }
            None => Location::file(self.file),
        }
    }
}

/// A table whose keys are taken out one by one; [`TableReader::finish`] refuses what is left.
pub(crate) struct TableReader<'r, 'a> {
    reader: &'r mut DocumentReader<'a>,
    path: String,
    /// What the environment variables that override keys here begin with.
    variable: Option<String>,
    entries: Vec<KeyValue>,
    asked: Vec<&'static str>,
}

impl<'r, 'a> TableReader<'r, 'a> {
    fn empty(reader: &'r mut DocumentReader<'a>, path: &str) -> Self {
        Self {
            reader,
            path: path.to_owned(),
            variable: None,
            entries: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Lets `PREFIX_KEY` in the environment override the keys of this table.
    pub(crate) fn overridden_by(mut self, prefix: &str) -> Self {
        self.variable = Some(prefix.to_owned());
        self
    }

    /// The table below `key`; an empty one when it is absent.
    pub(crate) fn section(&mut self, key: &'static str) -> TableReader<'_, 'a> {
        let path = join(&self.path, key);
        match self.take(key, |text| Value::Text(text.into())) {
            None => TableReader::empty(self.reader, &path),
            Some(node) => match self.reader.table(&path, node) {
                Ok(section) => section,
                Err(reader) => TableReader::empty(reader, &path),
            },
        }
    }

    /// The nodes of the list of tables below `key`, with their paths.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<(String, Spanned)> {
        let path = join(&self.path, key);
        match self.take(key, |text| Value::Text(text.into())).map(|node| node.value) {
            None => Vec::new(),
            Some(Value::List(items)) => items
                .into_iter()
                .enumerate()
                .map(|(n, item)| (format!("{path}[{n}]"), item))
                .collect(),
            Some(Value::Table(_)) => {
                self.reader.report(
                    &path,
                    format_args!(
                        "expected a list of tables: write `[[{path}]]`, in double brackets"
                    ),
                );
                Vec::new()
            }
            Some(other) => {
                self.reader.report(
                    &path,
                    format_args!("expected a list of tables, not {}", other.describe()),
                );
                Vec::new()
            }
        }
    }

    /// A text; `example` is shown when the value is something else.
    pub(crate) fn text(&mut self, key: &'static str, example: &str) -> Option<String> {
        match self.take(key, |text| Value::Text(text.into()))?.value {
            Value::Text(text) => Some(text),
            other => self.mismatch(key, format_args!("expected a text such as {example}"), &other),
        }
    }

    /// A text, if it is not empty: a foreign file may write an absent value as `""` or null.
    pub(crate) fn text_unless_empty(&mut self, key: &'static str, example: &str) -> Option<String> {
        let is_null = |entry: &KeyValue| matches!(entry.node.value, Value::Null);
        if self.entries.iter().any(|entry| entry.key == key && is_null(entry)) {
            self.entries.retain(|entry| entry.key != key);
        }
        self.text(key, example).filter(|text| !text.trim().is_empty())
    }

    /// A whole number.
    pub(crate) fn integer(&mut self, key: &'static str, example: &str) -> Option<i64> {
        match self
            .take(key, |text| text.parse().map_or(Value::Text(text.into()), Value::Integer))?
            .value
        {
            Value::Integer(number) => Some(number),
            other => self.mismatch(
                key,
                format_args!("expected a whole number such as {example}"),
                &other,
            ),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self
            .take(key, |text| text.parse().map_or(Value::Text(text.into()), Value::Boolean))?
            .value
        {
            Value::Boolean(value) => Some(value),
            other => self.mismatch(
                key,
                format_args!("expected `true` or `false`, without quotes"),
                &other,
            ),
        }
    }

    /// A list of texts; in the environment, separated by commas.
    pub(crate) fn texts(&mut self, key: &'static str, example: &str) -> Option<Vec<String>> {
        match self.take(key, split)?.value {
            Value::List(items) => Some(self.items(key, items, example, |_| None)),
            other => self.mismatch(key, format_args!("expected a list such as {example}"), &other),
        }
    }

    /// A list of texts or whole numbers, as texts.
    pub(crate) fn texts_or_integers(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Vec<String>> {
        match self.take(key, split)?.value {
            Value::List(items) => Some(self.items(key, items, example, |value| match value {
                Value::Integer(number) => Some(number.to_string()),
                _ => None,
            })),
            other => self.mismatch(key, format_args!("expected a list such as {example}"), &other),
        }
    }

    /// A text (`Ok`) or a list of texts (`Err`, no failure); in the environment, a comma makes it a
    /// list.
    pub(crate) fn text_or_texts(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Result<String, Vec<String>>> {
        let from_variable =
            |text: &str| if text.contains(',') { split(text) } else { Value::Text(text.into()) };
        match self.take(key, from_variable)?.value {
            Value::Text(text) => Some(Ok(text)),
            Value::List(items) => Some(Err(self.items(key, items, example, |_| None))),
            other => self.mismatch(
                key,
                format_args!("expected a text or a list such as {example}"),
                &other,
            ),
        }
    }

    /// Notes that a key which can't be left out is absent.
    pub(crate) fn missing(&mut self, key: &str, remedy: &str) {
        self.reader.report(&join(&self.path, key), format_args!("is missing: {remedy}"));
    }

    /// Notes a problem of one of this table's keys.
    pub(crate) fn report(&mut self, key: &str, message: impl fmt::Display) {
        self.reader.report(&join(&self.path, key), message);
    }

    /// Refuses every key that nobody asked for. The reader names the one that was meant, when it
    /// has seen all of them.
    pub(crate) fn finish(self) {
        for entry in self.entries {
            let path = join(&self.path, &entry.key);
            let location = self.reader.location(entry.at);
            self.reader.locations.insert(path.clone(), location);
            self.reader.unknown.push((path, entry.key, self.asked.clone()));
        }
    }

    /// Takes a key's value out of the table, or out of the environment, and remembers where it
    /// stands.
    fn take(
        &mut self,
        key: &'static str,
        from_variable: impl Fn(&str) -> Value,
    ) -> Option<Spanned> {
        self.asked.push(key);
        let path = join(&self.path, key);
        // The keys of a list's items are the same for each, and no place to move a key to.
        if !path.contains('[') {
            self.reader.known.insert(path.clone());
        }
        let found = self
            .entries
            .iter()
            .position(|entry| entry.key == key)
            .map(|at| self.entries.swap_remove(at));
        // An empty variable counts as none: that is how most things that set variables say "not
        // set".
        let variable =
            self.variable.as_ref().map(|prefix| format!("{prefix}_{}", key.to_ascii_uppercase()));
        if let Some((variable, text)) = variable
            .and_then(|variable| (self.reader.environment)(&variable).map(|text| (variable, text)))
            .filter(|(_, text)| !text.is_empty())
        {
            self.reader.locations.insert(path, Location::Environment { variable });
            return Some(Spanned::new(from_variable(&text)));
        }
        let entry = found?;
        let location = self.reader.location(entry.node.at.or(entry.at));
        self.reader.locations.insert(path, location);
        Some(entry.node)
    }

    /// The items of a list as texts. One that is refused stands as an empty text, so that the
    /// others keep their numbers.
    fn items(
        &mut self,
        key: &'static str,
        items: Vec<Spanned>,
        example: &str,
        also: impl Fn(&Value) -> Option<String>,
    ) -> Vec<String> {
        let mut texts = Vec::with_capacity(items.len());
        for (n, item) in items.into_iter().enumerate() {
            let path = format!("{}[{n}]", join(&self.path, key));
            if item.at.is_some() {
                let location = self.reader.location(item.at);
                self.reader.locations.insert(path.clone(), location);
            }
            texts.push(match item.value {
                Value::Text(text) => text,
                other => also(&other).unwrap_or_else(|| {
                    self.reader.report(
                        &path,
                        format_args!("expected a text, as in {example}, not {}", other.describe()),
                    );
                    String::new()
                }),
            });
        }
        texts
    }

    fn mismatch<T>(&mut self, key: &str, expected: fmt::Arguments<'_>, found: &Value) -> Option<T> {
        self.report(key, format_args!("{expected}, not {}", found.describe()));
        None
    }
}

/// A variable's text as a list: the parts between the commas, without the space around them.
fn split(text: &str) -> Value {
    Value::List(
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Spanned::new(Value::Text(part.into())))
            .collect(),
    )
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known key that a person most likely meant, if any is near enough.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&key, candidate), *candidate))
        .filter(|(score, candidate)| *score >= 0.8 || (key.len() >= 4 && candidate.contains(&key)))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested_only_when_it_is_near() {
        let known = ["listen", "upstreams", "connect_timeout", "resolver", "source_ips"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("Upstream", &known), Some("upstreams"));
        assert_eq!(nearest("timeout", &known), Some("connect_timeout"));
        assert_eq!(nearest("source-ip", &known), Some("source_ips"));
        assert_eq!(nearest("x", &known), None);
        assert_eq!(nearest("proxyTag", &known), None);
    }
}
