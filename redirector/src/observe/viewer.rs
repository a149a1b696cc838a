//! Who may see the status page, which names commands and cgroups of tenants: clients on this host,
//! whatever the listener is bound to, and no page of another site in a browser on it.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// A client that may see the page, by its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewer(pub(super) IpAddr);

type Refusal = (StatusCode, &'static str);

const NOT_LOCAL: Refusal = (
    StatusCode::FORBIDDEN,
    "this page is for this host only: use `ssh -L` or `kubectl port-forward`\n",
);
const OTHER_HOST: Refusal = (
    StatusCode::MISDIRECTED_REQUEST,
    "this page is for `localhost` and this host's own address in the URL only\n",
);
const OTHER_SITE: Refusal = (StatusCode::FORBIDDEN, "another site may not read this\n");

impl<S: Sync> FromRequestParts<S> for Viewer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let ends = *parts.extensions.get::<Ends>().ok_or(NOT_LOCAL)?;
        check(ends, &parts.headers).map(Viewer)
    }
}

fn check(ends: Ends, headers: &HeaderMap) -> Result<IpAddr, Refusal> {
    let [peer, local] = [ends.peer, ends.local].map(|end| end.ip().to_canonical());
    if !peer.is_loopback() && peer != local {
        return Err(NOT_LOCAL);
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // A name that an attacker's DNS points here is another name.
    let host = text(header::HOST).unwrap_or_default();
    if headers.get_all(header::HOST).iter().count() != 1 || !is_own_host(host, local) {
        return Err(OTHER_HOST);
    }
    // Only opening the page itself may come from elsewhere, such as a link in a ticket.
    let is_navigation = text("sec-fetch-mode".try_into().expect("a name")) == Some("navigate");
    let site = text("sec-fetch-site".try_into().expect("a name"));
    let is_other_site = site.is_some_and(|site| site != "same-origin" && site != "none");
    let is_other_origin = text(header::ORIGIN)
        .is_some_and(|origin| origin.strip_prefix("http://").is_none_or(|origin| origin != host));
    if is_other_origin || (is_other_site && !is_navigation) {
        return Err(OTHER_SITE);
    }
    Ok(peer)
}

/// Whether the `Host` of a request is a loopback name or address, or `local`; any port, since a
/// forwarder has its own.
pub fn is_own_host(host: &str, local: IpAddr) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            (address, rest.strip_prefix(':').or(rest.is_empty().then_some("0")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("0")),
        },
    };
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let is_address = name
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback() || address.to_canonical() == local);
    is_address || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(peer: &str, local: &str, headers: &[(&str, &str)]) -> Option<StatusCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                header::HeaderName::try_from(*name).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        let end = |text: &str| SocketAddr::new(text.parse().expect("an address"), 9464);
        check(Ends { peer: end(peer), local: end(local) }, &map).err().map(|(status, _)| status)
    }

    #[test]
    fn only_this_host_sees_the_page_by_its_own_names() {
        for host in ["localhost", "LocalHost:8080", "127.0.0.1:9464", "127.3.2.1", "[::1]:9464"] {
            assert_eq!(judge("127.0.0.1", "127.0.0.1", &[("host", host)]), None, "{host}");
        }
        let node = "10.0.0.5";
        assert_eq!(judge(node, node, &[("host", "10.0.0.5:9464")]), None);
        assert_eq!(judge("::ffff:10.0.0.5", node, &[("host", "10.0.0.5:9464")]), None);
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST);
        for host in [
            "rebound.example",
            "rebound.example:9464",
            "localhost.example",
            "127.0.0.1.example",
            "localhost:80:80",
            "10.0.0.6",
            "[::1",
            "[::1]x",
            "",
        ] {
            assert_eq!(judge("127.0.0.1", node, &[("host", host)]), misdirected, "{host}");
        }
        assert_eq!(judge("127.0.0.1", node, &[]), misdirected);
        let twice = [("host", "localhost"), ("host", "rebound.example")];
        assert_eq!(judge("127.0.0.1", node, &twice), misdirected);
        let forbidden = Some(StatusCode::FORBIDDEN);
        assert_eq!(judge("10.0.0.6", node, &[("host", "10.0.0.5:9464")]), forbidden);
        assert_eq!(judge("10.0.0.6", node, &[("host", "localhost")]), forbidden);
    }

    #[test]
    fn other_sites_may_link_to_the_page_and_read_nothing() {
        let judge = |extra: &[(&str, &str)]| {
            judge("::1", "::1", &[&[("host", "localhost:9464")], extra].concat())
        };
        let forbidden = Some(StatusCode::FORBIDDEN);
        assert_eq!(judge(&[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(judge(&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]), None);
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!(judge(&link), None);
        for site in ["cross-site", "same-site"] {
            let read = [("sec-fetch-site", site), ("sec-fetch-mode", "cors")];
            assert_eq!(judge(&read), forbidden, "{site}");
        }
        assert_eq!(judge(&[("origin", "http://localhost:9464")]), None);
        for origin in ["http://localhost:1234", "https://evil.example", "null"] {
            assert_eq!(judge(&[("origin", origin)]), forbidden, "{origin}");
        }
    }
}
