//! Source names: the internal name that executors ask for, exact or `*.suffix`.

use std::{fmt, str::FromStr, sync::Arc};

/// An internal name, exact (`artifactory.internal.company.net`) or with one leading wildcard label
/// (`*.internal.company.net`).
///
/// Always lower case and without the final dot. A wildcard matches names with at least one more
/// label: `*.a.b` matches `x.a.b` and `y.x.a.b`, not `a.b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName {
    /// The name without `*.`. Shared: a full pool's names stand in a dozen tables each.
    name: Arc<str>,
    wildcard: bool,
}

/// Why a text is not a source name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceNameError {
    /// Nothing is left of the text.
    #[error(
        "is empty: write the DNS name that executors ask for, such as \
            `artifactory.internal.company.net`"
    )]
    Empty,
    /// RFC 1035 section 2.3.4.
    #[error(
        "`{0}` is {len} characters long: write a DNS name, which has at most 253",
        len = .0.len()
    )]
    TooLong(String),
    /// A label that is empty, longer than 63 characters, or has a character that host names do not
    /// have.
    #[error(
        "`{label}` in `{name}` is not a DNS label: write 1 to 63 letters, digits, `-` or `_` \
            between the dots"
    )]
    Label {
        /// The label.
        label: String,
        /// The whole name.
        name: String,
    },
    /// `*` anywhere but as the whole first label.
    #[error(
        "`{0}`: a wildcard stands alone as the first label: write it as in `*.internal.company.net`"
    )]
    Wildcard(String),
    /// An address where a name belongs.
    #[error("`{0}` is an address: write the name that executors ask for")]
    Address(String),
}

impl SourceName {
    /// The name in lower case, without `*.` and without the final dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is `*.name`.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl FromStr for SourceName {
    type Err = SourceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(SourceNameError::Address(text.into()));
        }
        let whole = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (wildcard, name) = match whole.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, whole.as_str()),
        };
        if name.is_empty() {
            return Err(SourceNameError::Empty);
        }
        if name.contains('*') {
            return Err(SourceNameError::Wildcard(text.into()));
        }
        if whole.len() > 253 {
            return Err(SourceNameError::TooLong(text.into()));
        }
        match name.split('.').find(|label| !is_label(label)) {
            Some(label) => Err(SourceNameError::Label { label: label.into(), name: text.into() }),
            None => Ok(Self { name: name.into(), wildcard }),
        }
    }
}

/// RFC 1035 section 2.3.1, with the underscore that internal names do have.
pub(super) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

impl serde::Serialize for SourceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SourceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_in_lower_case_without_the_final_dot() {
        let name: SourceName = "Artifactory.Internal.Company.NET.".parse().expect("a name");
        assert_eq!(name.to_string(), "artifactory.internal.company.net");
        assert!(!name.is_wildcard());
    }

    #[test]
    fn a_wildcard_is_the_whole_first_label_and_nothing_else() {
        let name: SourceName = "*.internal.company.net".parse().expect("a wildcard");
        assert!(name.is_wildcard());
        assert_eq!(name.name(), "internal.company.net");
        assert_eq!(name.to_string(), "*.internal.company.net");
        for wrong in ["a*.b", "*.*.b", "a.*.b", "**.b"] {
            assert_eq!(wrong.parse::<SourceName>(), Err(SourceNameError::Wildcard(wrong.into())));
        }
    }

    #[test]
    fn an_invalid_name_is_refused_with_the_reason() {
        assert_eq!("".parse::<SourceName>(), Err(SourceNameError::Empty));
        assert_eq!("*.".parse::<SourceName>(), Err(SourceNameError::Wildcard("*.".into())));
        assert_eq!(
            "203.0.113.7".parse::<SourceName>(),
            Err(SourceNameError::Address("203.0.113.7".into()))
        );
        assert!(matches!("a..b".parse::<SourceName>(), Err(SourceNameError::Label { .. })));
        assert!(matches!("-a.b".parse::<SourceName>(), Err(SourceNameError::Label { .. })));
        assert!(matches!("a b.c".parse::<SourceName>(), Err(SourceNameError::Label { .. })));
        assert!(matches!(
            format!("{}.b", "a".repeat(64)).parse::<SourceName>(),
            Err(SourceNameError::Label { .. })
        ));
        assert!(matches!("a.".repeat(200).parse::<SourceName>(), Err(SourceNameError::TooLong(_))));
    }
}
