//! Reads routes that were written for something else: `executorPrivateDNS` in YAML as it stands, or
//! our own TOML, JSON or YAML.
//!
//! Around the routes anything may stand (a whole instance specification, a whole configuration
//! file) and is left alone; in a route every key must be known.

use std::{collections::HashMap, fmt, path::Path};

use super::{
    definition::Route,
    foreign_formats, raw,
    source::{SourceName, Wildcard},
};
use crate::spanned::{Diagnostic, DocumentReader, Spanned, Value};

pub use super::export::Format;

/// Where the routes may stand in a document, from the top; the first path that exists is taken.
const PATHS: [&[&str]; 4] = [
    &["spec", "infrastructure", "executorPrivateDNS", "routes"],
    &["infrastructure", "executorPrivateDNS", "routes"],
    &["executorPrivateDNS", "routes"],
    &["routes"],
];

/// Every problem of an imported text. Displayed as one line for each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ImportError {
    /// The problems, in the order of their lines, if the format has lines.
    pub problems: Vec<Diagnostic>,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The routes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRoutes {
    /// The routes.
    pub routes: Vec<Route>,
    /// Sources that were written as `*.zone` and are read as `**.zone`, since the file does not
    /// state what `*` means.
    pub old_wildcards: Vec<SourceName>,
}

/// The warning about a file that does not state what its wildcards mean.
pub fn old_wildcards_warning(file: &Path, sources: &[SourceName]) -> Option<String> {
    let first = sources.first()?;
    let more = match sources.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!(
        "{}: `*.{zone}`{more}: read as `{first}`, which matches names of any depth, since the file \
            has no key `wildcards`: begin it with `wildcards = \"one_label\"`, and write `**.` \
            where names of any depth are meant",
        file.display(),
        zone = first.name(),
    ))
}

/// Reads routes from a text whose format is detected.
pub fn parse(text: &str) -> Result<Vec<Route>, ImportError> {
    parse_named(Path::new("<input>"), text).map(|read| read.routes)
}

/// Reads routes from the text of a file; the format is that of the extension, else of the text.
/// Problems name the file.
pub fn parse_named(name: &Path, text: &str) -> Result<FileRoutes, ImportError> {
    let format = name
        .extension()
        .and_then(|extension| extension.to_str()?.to_ascii_lowercase().parse().ok());
    // Editors of other systems begin a file with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = DocumentReader::new(name, &|_| None);
    let foreign = if format.is_none() { foreign_formats::recognise(text) } else { None };
    let routes = match foreign {
        Some(foreign) => {
            reader.report("", foreign);
            FileRoutes::default()
        }
        None => {
            let documents = documents(text, format.unwrap_or_else(|| guess(text)), &mut reader);
            match reader.refused("") {
                true => FileRoutes::default(),
                false => routes(documents, &mut reader),
            }
        }
    };
    match reader.finish() {
        problems if problems.is_empty() => Ok(routes),
        problems => Err(ImportError { problems }),
    }
}

/// The format that a text looks like.
fn guess(text: &str) -> Format {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Format::Json;
    }
    match text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')) {
        // `[[routes]]` and `[agent]` begin TOML, `[{` a list in YAML or in JSON that is broken.
        Some(line) if line.starts_with('[') => match line
            .trim_start_matches('[')
            .starts_with(|first: char| first.is_ascii_alphabetic())
        {
            true => Format::Toml,
            false => Format::Yaml,
        },
        Some(line) => match line.split_once('=') {
            Some((key, _))
                if key
                    .trim()
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.\"".contains(&byte)) =>
            {
                Format::Toml
            }
            _ => Format::Yaml,
        },
        None => Format::Yaml,
    }
}

fn documents(text: &str, format: Format, reader: &mut DocumentReader<'_>) -> Vec<Spanned> {
    let read = match format {
        Format::Toml => {
            let (root, errors) = Spanned::from_toml(text);
            errors.into_iter().for_each(|error| reader.report_syntax(error));
            return vec![root];
        }
        Format::Json => Spanned::from_json(text).map(|root| vec![root]),
        Format::Yaml => Spanned::from_yaml(text),
    };
    read.unwrap_or_else(|error| {
        reader.report_syntax(error);
        Vec::new()
    })
}

/// The routes of every document.
fn routes(documents: Vec<Spanned>, reader: &mut DocumentReader<'_>) -> FileRoutes {
    let mut items = Vec::new();
    let mut star = None;
    let mut found = false;
    let foreign = foreign_formats::external_name(&documents);
    let several = documents.len() > 1;
    for (number, document) in (1..).zip(documents) {
        star = star.or(wildcards(&document, reader));
        let Some((path, node)) = locate(document) else { continue };
        let path = match several {
            true => format!("document[{number}].{path}").trim_end_matches('.').to_owned(),
            false => path,
        };
        found = true;
        match node.value {
            Value::Null => {}
            Value::List(list) => items.extend(
                list.into_iter().enumerate().map(|(n, item)| (format!("{path}[{n}]"), item)),
            ),
            other => reader
                .report(&path, format_args!("expected a list of routes, not {}", other.describe())),
        }
    }
    if !found {
        reader.report(
            "",
            foreign.as_deref().unwrap_or(
                "has no routes: expected the list \
                    `spec.infrastructure.executorPrivateDNS.routes`, `routes`, or `[[routes]]` in \
                    TOML",
            ),
        );
    }
    read_all(items, reader, Dialect { foreign: true, star })
}

/// What `*` means in a document, if it states it.
fn wildcards(document: &Spanned, reader: &mut DocumentReader<'_>) -> Option<Wildcard> {
    let Value::Text(text) = &document.get("wildcards")?.value else { return None };
    let meaning = Wildcard::of_key(text);
    if meaning.is_none() {
        reader.report("wildcards", unknown_wildcards(text));
    }
    meaning
}

/// The error for a value of the key `wildcards`.
pub(crate) fn unknown_wildcards(text: &str) -> String {
    format!("`{text}` is not known: write `one_label` or `any_depth`")
}

/// How routes are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    /// Keys of `executorPrivateDNS` are read, too.
    pub(crate) foreign: bool,
    /// What `*` means; if it is not stated, any depth.
    pub(crate) star: Option<Wildcard>,
}

/// Reads each item as a route, and refuses a source that stands there twice.
pub(crate) fn read_all(
    items: Vec<(String, Spanned)>,
    reader: &mut DocumentReader<'_>,
    dialect: Dialect,
) -> FileRoutes {
    let mut read = FileRoutes { routes: Vec::with_capacity(items.len()), ..FileRoutes::default() };
    let mut first: HashMap<SourceName, String> = HashMap::new();
    for (path, item) in items {
        let Ok(section) = reader.table(&path, item) else { continue };
        let mut raw = raw::read(section, dialect.foreign);
        let written = raw.source.clone();
        // A source counts even when the rest of its route is wrong, so that one run shows every
        // duplicate.
        if let Ok(mut source) = raw.source.parse::<SourceName>() {
            if source.wildcard() == Some(Wildcard::OneLabel)
                && dialect.star != Some(Wildcard::OneLabel)
            {
                source = source.with_deep_wildcard();
                raw.source = source.to_string();
                if dialect.star.is_none() {
                    read.old_wildcards.push(source.clone());
                }
            }
            match first.get(&source) {
                Some(other) => {
                    let at = reader.location_of(other);
                    let key = format!("{path}.source");
                    reader.report(
                        &key,
                        format_args!(
                            "`{written}` is the source of `{other}` ({at}) already: remove one \
                                of the two",
                        ),
                    );
                }
                None => drop(first.insert(source, path.clone())),
            }
        }
        match Route::try_from(raw) {
            Ok(route) => read.routes.push(route),
            Err(refused) => reader.report_within(&path, refused.problems),
        }
    }
    read
}

/// The routes of a document and their path: the document itself when it is a list. An
/// `executorPrivateDNS` that is empty has none.
fn locate(document: Spanned) -> Option<(String, Spanned)> {
    if matches!(document.value, Value::List(_)) {
        return Some((String::new(), document));
    }
    let at = |path: &[&str]| path.iter().try_fold(&document, |node, key| node.get(key)).cloned();
    let empty = |path: &[&str]| {
        let [outer @ .., "routes"] = path else { return None };
        if outer.is_empty() {
            return None;
        }
        at(outer).map(|_| Spanned::new(Value::Null))
    };
    PATHS.iter().find_map(|path| {
        let node = at(path).filter(|node| !matches!(node.value, Value::Null));
        Some((path.join("."), node.or_else(|| empty(path))?))
    })
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
