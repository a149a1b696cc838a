//! A text as a tree of values with their positions, whatever its format.

use toml::de::{DeTable, DeValue};

/// A line and a column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and its position, if the format has positions.
#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub(crate) at: Option<Position>,
    pub(crate) value: Value,
}

/// A value in the kinds that TOML, JSON and YAML share.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Text(String),
    /// A kind that no key takes (a float, a date), as a person would call it.
    Other(String),
    List(Vec<Spanned>),
    Table(Vec<KeyValue>),
}

/// A key of a table, with its value.
#[derive(Clone, Debug)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    /// The position of the key.
    pub(crate) at: Option<Position>,
    pub(crate) node: Spanned,
}

/// A text that is not of its format.
#[derive(Clone, Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Option<Position>,
    pub(crate) message: String,
}

impl Spanned {
    /// A value without a position.
    pub(crate) fn new(value: Value) -> Self {
        Self { at: None, value }
    }

    /// Reads TOML; what could be read is returned together with every syntax error.
    pub(crate) fn from_toml(text: &str) -> (Self, Vec<SyntaxError>) {
        let lines = Lines::new(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        let errors = errors.iter().map(|error| lines.syntax_error(error)).collect();
        (Self { at: None, value: from_toml_table(table.get_ref(), &lines) }, errors)
    }

    /// Reads one JSON value.
    pub(crate) fn from_json(text: &str) -> Result<Self, SyntaxError> {
        let value =
            serde_json::from_str::<serde_json::Value>(text).map_err(|error| SyntaxError {
                at: (error.line() > 0)
                    .then(|| Position { line: error.line(), column: error.column().max(1) }),
                message: error.to_string(),
            })?;
        Ok(from_json_value(value))
    }

    /// Reads every document of a YAML text.
    pub(crate) fn from_yaml(text: &str) -> Result<Vec<Self>, SyntaxError> {
        use serde::Deserialize;
        serde_yaml_ng::Deserializer::from_str(text)
            .map(|document| match merged(serde_yaml_ng::Value::deserialize(document)) {
                Ok(value) => Ok(from_yaml_value(value)),
                Err(error) => Err(SyntaxError {
                    at: error
                        .location()
                        .map(|at| Position { line: at.line(), column: at.column() }),
                    message: error.to_string(),
                }),
            })
            .collect()
    }

    /// The value of a key, when this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Spanned> {
        match &self.value {
            Value::Table(pairs) => pairs.iter().find(|pair| pair.key == key).map(|pair| &pair.node),
            _ => None,
        }
    }
}

impl Value {
    /// The value as a person would call it: `the text "x"`, `the number 3`, `a list`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Boolean(value) => format!("`{value}`"),
            Self::Integer(value) => format!("the number {value}"),
            Self::Text(value) => format!("the text {value:?}"),
            Self::Other(kind) => kind.clone(),
            Self::List(_) => "a list".into(),
            Self::Table(_) => "a table".into(),
        }
    }
}

fn from_toml_table(table: &DeTable<'_>, lines: &Lines<'_>) -> Value {
    let pair =
        |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
            KeyValue {
                key: key.get_ref().to_string(),
                at: Some(lines.position(key.span().start)),
                node: from_toml_value(value, lines),
            }
        };
    Value::Table(table.iter().map(pair).collect())
}

fn from_toml_value(value: &toml::Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Spanned {
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other(format!("the number {number}")),
        },
        DeValue::Float(number) => Value::Other(format!("the number {number}")),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Other(format!("the date or time {value}")),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| from_toml_value(item, lines)).collect())
        }
        DeValue::Table(table) => from_toml_table(table, lines),
    };
    Spanned { at: Some(lines.position(value.span().start)), value: converted }
}

fn from_json_value(value: serde_json::Value) -> Spanned {
    use serde_json::Value as Json;
    Spanned::new(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Other(format!("the number {number}")),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::List(items.into_iter().map(from_json_value).collect()),
        Json::Object(map) => Value::Table(
            map.into_iter()
                .map(|(key, value)| KeyValue { key, at: None, node: from_json_value(value) })
                .collect(),
        ),
    })
}

/// The value with the contents of its merge keys (`<<: *anchor`).
fn merged(
    value: Result<serde_yaml_ng::Value, serde_yaml_ng::Error>,
) -> Result<serde_yaml_ng::Value, serde_yaml_ng::Error> {
    let mut value = value?;
    value.apply_merge()?;
    Ok(value)
}

fn from_yaml_value(value: serde_yaml_ng::Value) -> Spanned {
    use serde_yaml_ng::Value as Yaml;
    Spanned::new(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Boolean(value),
        Yaml::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Other(format!("the number {number}")),
        },
        Yaml::String(text) => Value::Text(text),
        Yaml::Sequence(items) => Value::List(items.into_iter().map(from_yaml_value).collect()),
        Yaml::Mapping(map) => Value::Table(
            map.into_iter()
                .map(|(key, value)| KeyValue {
                    key: yaml_key(&key),
                    at: None,
                    node: from_yaml_value(value),
                })
                .collect(),
        ),
        Yaml::Tagged(tagged) => Value::Other(format!("a value with the tag {}", tagged.tag)),
    })
}

/// A YAML key as text; one that is no text is shown as YAML would write it, so that it ends up as
/// an unknown key.
fn yaml_key(key: &serde_yaml_ng::Value) -> String {
    match key {
        serde_yaml_ng::Value::String(text) => text.clone(),
        other => serde_yaml_ng::to_string(other).unwrap_or_default().trim_end().to_owned(),
    }
}

/// Where each line starts, to turn byte offsets into lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// A syntax error with the line that it stands in, in words that need no grammar beside them.
    fn syntax_error(&self, error: &toml::de::Error) -> SyntaxError {
        let at = error.span().map(|span| self.position(span.start));
        let message =
            error.message().strip_suffix(", expected literal string").unwrap_or(error.message());
        match at
            .and_then(|at| self.text.lines().nth(at.line - 1))
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            Some(line) => SyntaxError {
                at,
                message: format!(
                    "`{}` is not TOML: {message}",
                    line.chars().take(60).collect::<String>()
                ),
            },
            None => SyntaxError { at, message: format!("not TOML: {message}") },
        }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(line: usize, column: usize) -> Option<Position> {
        Some(Position { line, column })
    }

    #[test]
    fn a_toml_value_knows_its_line_and_its_column_in_characters() {
        let (root, errors) = Spanned::from_toml("# ä\r\n[dns]\r\n\"ü\" = [1,\n  2]\n");
        assert!(errors.is_empty());
        let list = root.get("dns").and_then(|dns| dns.get("ü")).expect("the list");
        assert_eq!(list.at, position(3, 7));
        let Value::List(items) = &list.value else { panic!("{list:?}") };
        assert_eq!(
            items.iter().map(|item| item.at).collect::<Vec<_>>(),
            [position(3, 8), position(4, 3)]
        );
    }

    #[test]
    fn every_syntax_error_has_its_line() {
        let (_, errors) = Spanned::from_toml("a = \nb = 1\nb = 2\nc = \"x\n");
        let lines: Vec<_> = errors.iter().filter_map(|error| error.at).map(|at| at.line).collect();
        assert_eq!(lines, [1, 3, 4], "{errors:?}");
    }

    #[test]
    fn a_yaml_text_may_contain_several_documents() {
        assert_eq!(Spanned::from_yaml("a: 1\n---\nb: 2\n").expect("yaml").len(), 2);
        assert!(Spanned::from_yaml("a: [1\nb: 2").is_err_and(|error| error.at.is_some()));
    }
}
