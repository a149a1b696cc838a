//! Source names: the internal name that executors ask for, exact, `*.zone` or `**.zone`.

use std::{fmt, str::FromStr, sync::Arc};

/// An internal name, exact (`artifactory.internal.company.net`) or with one leading wildcard label.
///
/// Always lower case and without the final dot. `*.a.b` matches names with one more label
/// (`x.a.b`, as in RFC 9525 section 6.3), `**.a.b` those with at least one more (`x.a.b`,
/// `y.x.a.b`); neither matches `a.b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName {
    /// The name without its wildcard. Shared: a full pool's names stand in a dozen tables each.
    name: Arc<str>,
    wildcard: Option<Wildcard>,
}

/// What a wildcard stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wildcard {
    /// `*`: one label.
    OneLabel,
    /// `**`: one label or more.
    AnyDepth,
}

impl Wildcard {
    /// The label, as it is written.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OneLabel => "*",
            Self::AnyDepth => "**",
        }
    }

    /// What the key `wildcards` of a file of routes states about `*`.
    pub fn of_key(value: &str) -> Option<Self> {
        match value {
            "one_label" => Some(Self::OneLabel),
            "any_depth" => Some(Self::AnyDepth),
            _ => None,
        }
    }
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
    /// `*` anywhere but in the whole first label.
    #[error(
        "`{0}`: a wildcard stands alone as the first label: write it as in \
            `*.internal.company.net`, or `**.internal.company.net` for names of any depth"
    )]
    Wildcard(String),
    /// An address where a name belongs.
    #[error("`{0}` is an address: write the name that executors ask for")]
    Address(String),
    /// A last label that is a number: libc takes such a name for an IPv4 address, in one of the
    /// forms of inet_aton (`127.1`, `0x7f000001`), and asks no DNS.
    #[error(
        "`{0}` ends in a number, so clients take it for an IPv4 address and ask no DNS: write the \
            name that executors ask for"
    )]
    Number(String),
    /// RFC 6761 section 6.3.
    #[error(
        "`{0}`: `localhost` and names below it are this host's own loopback, and clients ask no \
            DNS for them: write the name that executors ask for"
    )]
    Localhost(String),
}

impl SourceName {
    /// The name in lower case, without a wildcard and without the final dot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is `*.name` or `**.name`.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard.is_some()
    }

    /// The wildcard, if it has one.
    pub fn wildcard(&self) -> Option<Wildcard> {
        self.wildcard
    }

    /// The other wildcard of the zone; an exact name itself.
    pub fn sibling(&self) -> Self {
        let wildcard = self.wildcard.map(|wildcard| match wildcard {
            Wildcard::OneLabel => Wildcard::AnyDepth,
            Wildcard::AnyDepth => Wildcard::OneLabel,
        });
        Self { name: Arc::clone(&self.name), wildcard }
    }

    /// What is meant where `*.zone` matches names of any depth, as before `**.zone` existed.
    pub fn with_deep_wildcard(self) -> Self {
        Self { wildcard: self.wildcard.map(|_| Wildcard::AnyDepth), ..self }
    }

    /// Whether a client that asks for `name`, in lower case and without the final dot, gets this
    /// source's answer, unless another source that matches it has a greater precedence.
    pub fn matches(&self, name: &str) -> bool {
        let Some(wildcard) = self.wildcard else { return *self.name == *name };
        let above = name.strip_suffix(&*self.name).and_then(|above| above.strip_suffix('.'));
        above.is_some_and(|above| {
            !above.is_empty() && (wildcard == Wildcard::AnyDepth || !above.contains('.'))
        })
    }

    /// Orders the sources that match a name: the exact one is the greatest, then the wildcard of
    /// the longest zone, `*` before `**`.
    pub fn precedence(&self) -> (bool, usize, bool) {
        (self.wildcard.is_none(), self.name.len(), self.wildcard == Some(Wildcard::OneLabel))
    }
}

impl FromStr for SourceName {
    type Err = SourceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.parse::<std::net::IpAddr>().is_ok() {
            return Err(SourceNameError::Address(text.into()));
        }
        let whole = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (wildcard, name) = match whole.split_once('.') {
            Some(("*", rest)) => (Some(Wildcard::OneLabel), rest),
            Some(("**", rest)) => (Some(Wildcard::AnyDepth), rest),
            _ => (None, whole.as_str()),
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
            None => match name.rsplit('.').next() {
                Some("localhost") => Err(SourceNameError::Localhost(text.into())),
                Some(last) if is_number(last) => Err(SourceNameError::Number(text.into())),
                _ => Ok(Self { name: name.into(), wildcard }),
            },
        }
    }
}

/// Whether inet_aton takes a part of an address for a number: decimal, octal, or hexadecimal. No
/// name of the public DNS ends in one (RFC 3696 section 2).
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
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
        match self.wildcard {
            Some(wildcard) => write!(f, "{}.{}", wildcard.label(), self.name),
            None => f.write_str(&self.name),
        }
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
        let deep: SourceName = "**.b".parse().expect("a wildcard");
        assert_eq!((deep.wildcard(), deep.name()), (Some(Wildcard::AnyDepth), "b"));
        assert_eq!(deep.to_string(), "**.b");
        assert_eq!(name.with_deep_wildcard().to_string(), "**.internal.company.net");
        for wrong in ["a*.b", "*.*.b", "**.*.b", "a.*.b", "***.b", "**"] {
            assert_eq!(wrong.parse::<SourceName>(), Err(SourceNameError::Wildcard(wrong.into())));
        }
    }

    #[test]
    fn one_star_matches_one_label_and_two_any_depth() {
        let matches = |source: &str, name: &str| {
            source.parse::<SourceName>().expect("a source").matches(name)
        };
        for (name, star, stars) in [
            ("x.a.b", true, true),
            ("y.x.a.b", false, true),
            ("a.b", false, false),
            (".a.b", false, false),
            ("xa.b", false, false),
            ("x.a.b.c", false, false),
        ] {
            assert_eq!((matches("*.a.b", name), matches("**.a.b", name)), (star, stars), "{name}");
        }
        assert!(matches("a.b", "a.b") && !matches("a.b", "x.a.b"));
        let order = ["**.b", "*.b", "**.a.b", "*.a.b", "x.a.b"];
        let order = order.map(|text| text.parse::<SourceName>().expect("a source").precedence());
        assert!(order.is_sorted_by(|one, other| one < other));
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

    #[test]
    fn what_libc_takes_for_an_address_is_no_source() {
        let refused = |text: &str| text.parse::<SourceName>().expect_err(text);
        for text in [
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "0177.0.0.1",
            "127.0.0.01",
            "10.0.0.0x9",
            "1.2.3.4.",
            "*.0.0.1",
            "a.256",
        ] {
            assert_eq!(refused(text), SourceNameError::Number(text.into()));
        }
        for text in ["localhost", "LocalHost.", "db.localhost", "*.localhost"] {
            assert_eq!(refused(text), SourceNameError::Localhost(text.into()));
        }
        for text in ["1.a", "localhost.internal", "0x", "0xfg", "127.1e", "my-localhost", "3com"] {
            assert!(text.parse::<SourceName>().is_ok(), "{text}");
        }
    }

    #[test]
    fn this_hosts_libc_agrees_about_what_is_an_address() {
        for text in ["127.1", "127.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "10.0.0.0x9"] {
            let name = std::ffi::CString::new(text).expect("no zero byte");
            let mut address = libc::in_addr { s_addr: 0 };
            // SAFETY: both point to what the function expects.
            let is_address = unsafe { libc_inet_aton(name.as_ptr(), &raw mut address) };
            assert!(is_address != 0 && text.parse::<SourceName>().is_err(), "{text}");
        }
    }

    unsafe extern "C" {
        #[link_name = "inet_aton"]
        fn libc_inet_aton(text: *const libc::c_char, to: *mut libc::in_addr) -> libc::c_int;
    }
}
