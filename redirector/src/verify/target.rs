//! A name with a port, or a URL, and the route that serves it.

use std::{fmt, str::FromStr};

use crate::{control::api::RouteView, route::SourceName};

/// The ports at which Git servers speak SSH.
pub(super) const SSH_PORTS: [u16; 2] = [22, 7999];

/// What a client asks for: `NAME[:PORT][/PATH]`, or the same as a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, in lower case and without the final dot.
    pub name: String,
    /// The port; by default that of the scheme, else 443.
    pub port: u16,
    /// Whether the name was written with a final dot: resolvers then use no search list.
    pub is_absolute: bool,
    /// The scheme, if one was written.
    pub scheme: Option<Scheme>,
    /// The path with its query.
    pub path: String,
}

/// What is spoken on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// SSH, as Git uses it.
    Ssh,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Ssh];

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Ssh => 22,
        }
    }
}

impl Target {
    /// What a server refers to by a URL, which may be relative to this target's.
    ///
    /// # Errors
    /// When it is no such URL: the name of its host if it has one, else the reason.
    pub fn join(&self, reference: &str) -> Result<Self, String> {
        if reference.contains("://") {
            return reference.parse();
        }
        let scheme = self.scheme.unwrap_or(Scheme::Https).name();
        if let Some(authority) = reference.strip_prefix("//") {
            return format!("{scheme}://{authority}").parse();
        }
        let path = match reference.strip_prefix('/') {
            Some(_) => reference.to_owned(),
            None => {
                let folder = self.path.split('?').next().and_then(|path| path.rsplit_once('/'));
                format!("{}/{reference}", folder.map_or("", |(folder, _)| folder))
            }
        };
        Ok(Self { path: checked_path(&path)?, ..self.clone() })
    }

    /// As a URL.
    pub fn url(&self) -> String {
        let scheme =
            self.scheme.unwrap_or(if self.port == 80 { Scheme::Http } else { Scheme::Https });
        let port =
            if self.port == scheme.port() { String::new() } else { format!(":{}", self.port) };
        format!("{}://{}{port}{}", scheme.name(), self.name, self.path)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            None if self.path == "/" => write!(f, "{}:{}", self.name, self.port),
            _ => f.write_str(&self.url()),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let known =
                    Scheme::ALL.into_iter().find(|one| scheme.eq_ignore_ascii_case(one.name()));
                let unknown =
                    || format!("`{scheme}://` is not followed: write https://, http:// or ssh://");
                (Some(known.ok_or_else(unknown)?), rest)
            }
            None => (None, text),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        // `git@NAME:PATH` is how scp and Git write it.
        let scheme = scheme.or(user.map(|_| Scheme::Ssh));
        let (name, port) = match host.split_once(':') {
            Some((name, path)) if user.is_some() && path.parse::<u16>().is_err() => (name, None),
            Some((name, port)) => (name, Some(parse_port(port)?)),
            None => (host, None),
        };
        let source: SourceName =
            name.parse().map_err(|error: crate::route::SourceNameError| error.to_string())?;
        if source.is_wildcard() {
            return Err(format!(
                "`{source}` stands for many names: give one that it matches, such as `registry.{}`",
                source.name()
            ));
        }
        Ok(Self {
            name: source.name().to_owned(),
            port: port.unwrap_or_else(|| scheme.unwrap_or(Scheme::Https).port()),
            is_absolute: name.ends_with('.'),
            scheme,
            path: checked_path(path)?,
        })
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port > 0);
    port.ok_or_else(|| format!("`{text}` is not a port (1 to 65535)"))
}

/// A path that begins with `/`, without a fragment, as a request line can have it.
fn checked_path(path: &str) -> Result<String, String> {
    let path = path.split('#').next().unwrap_or_default();
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`{path}` is no path of a URL: percent-encode it"));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("{slash}{path}"))
}

/// The route that serves `name`: the exact one, else the longest wildcard, as DNS answers.
pub fn route_for<'r>(name: &str, routes: &'r [RouteView]) -> Option<&'r RouteView> {
    let precedence = |route: &'r RouteView| {
        let source = route.source.as_ref().filter(|source| source.matches(name))?;
        Some((source.precedence(), route))
    };
    let matching = routes.iter().filter_map(precedence);
    matching.max_by_key(|(precedence, _)| *precedence).map(|(_, route)| route)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_target_is_a_name_and_port_443_by_default() {
        let git = Target {
            name: "git.internal".into(),
            port: 443,
            is_absolute: true,
            scheme: None,
            path: "/".into(),
        };
        assert_eq!(target("Git.Internal."), git);
        assert_eq!(target("git.internal:22"), Target { port: 22, is_absolute: false, ..git });
        for wrong in ["git.internal:0", "git.internal:x", "*.internal", "10.0.0.1", "", "ftp://a.b"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_may_be_a_url_or_have_a_path() {
        let read = |text: &str| {
            let Target { name, port, scheme, path, .. } = target(text);
            (name, port, scheme, path)
        };
        let name = || "a.internal".to_owned();
        let https = Some(Scheme::Https);
        assert_eq!(read("https://a.internal"), (name(), 443, https, "/".into()));
        assert_eq!(
            read("HTTPS://u:p@A.internal:8443/v2/?a=b#c"),
            (name(), 8443, https, "/v2/?a=b".into())
        );
        assert_eq!(read("http://a.internal?x"), (name(), 80, Some(Scheme::Http), "/?x".into()));
        assert_eq!(read("a.internal:8443/v2/"), (name(), 8443, None, "/v2/".into()));
        let ssh = Some(Scheme::Ssh);
        assert_eq!(
            read("ssh://git@a.internal:7999/p/r.git"),
            (name(), 7999, ssh, "/p/r.git".into())
        );
        assert_eq!(read("git@a.internal:p/r.git"), (name(), 22, ssh, "/r.git".into()));
        assert!("https://a.internal/a b".parse::<Target>().is_err());
    }

    #[test]
    fn a_reference_is_read_relative_to_the_target() {
        let base = target("https://a.internal:8443/v2/list?n=1");
        let joined = |reference: &str| base.join(reference).map(|target| target.url());
        assert_eq!(joined("https://cdn.net/x").as_deref(), Ok("https://cdn.net/x"));
        assert_eq!(joined("//cdn.net/x").as_deref(), Ok("https://cdn.net/x"));
        assert_eq!(joined("/ui/").as_deref(), Ok("https://a.internal:8443/ui/"));
        assert_eq!(joined("next").as_deref(), Ok("https://a.internal:8443/v2/next"));
        assert!(joined("https://10.0.0.1/").is_err());
        assert_eq!(target("a.internal").to_string(), "a.internal:443");
        assert_eq!(target("a.internal:80/x").to_string(), "http://a.internal/x");
    }
}
