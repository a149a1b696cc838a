//! What a server answers to `redirector verify`, and what a browser asks the status page.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::uri::Authority;
use redirector::{
    observe::is_own_host,
    verify::{Target, read_banner, read_references},
};

/// The first byte selects what the rest is: an HTTP answer, an SSH server's first lines, a target,
/// or a Host header.
pub fn http(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => references(rest),
        1 => banner(rest),
        2 => target(&String::from_utf8_lossy(rest)),
        _ => host(&String::from_utf8_lossy(rest)),
    }
}

/// Where an answer leads is part of it, and relative to the target that was asked.
fn references(answer: &[u8]) {
    let asked: Target = "https://a.internal:8443/v2/list?n=1".parse().expect("a target");
    let text = String::from_utf8_lossy(answer);
    let Some(references) = read_references(answer) else { return };
    assert!(text.starts_with("HTTP/"), "{text:?} is no HTTP");
    for (_, reference) in references {
        assert!(text.contains(&reference) && !reference.contains('\n'), "{reference:?}");
        if let Ok(target) = asked.join(&reference) {
            check_target(&target);
        }
    }
}

/// A banner is one of the lines.
fn banner(sent: &[u8]) {
    let Some(banner) = read_banner(sent) else { return };
    assert!(banner.starts_with("SSH-") && !banner.contains('\n'), "{banner:?}");
    assert!(String::from_utf8_lossy(sent).contains(&banner), "{banner:?}");
}

/// A target is refused with a reason, or written back as itself.
fn target(text: &str) {
    match text.parse::<Target>() {
        Ok(target) => check_target(&target),
        Err(error) => assert!(!error.is_empty(), "refused without a reason"),
    }
}

fn check_target(target: &Target) {
    let url = target.url();
    assert!(url.bytes().all(|byte| byte.is_ascii_graphic()) && target.port > 0, "{url:?}");
    let again: Result<Target, String> = url.parse();
    assert_eq!(again.map(|again| again.url()), Ok(url));
}

/// A header names this host only as `localhost` or by one of its addresses.
fn host(header: &str) {
    let own = IpAddr::from([10, 0, 0, 5]);
    if is_own_host(header, own) {
        let authority: Authority = header.parse().unwrap_or_else(|_| panic!("{header:?}"));
        let name = authority.host().trim_matches(['[', ']']);
        let is_own = |address: IpAddr| address.is_loopback() || address.to_canonical() == own;
        let is_address = name.parse().is_ok_and(is_own);
        assert!(is_address || name.eq_ignore_ascii_case("localhost"), "{header:?} names this host");
    }
    let port = header.len().to_le_bytes()[0].into();
    for address in [own, Ipv4Addr::LOCALHOST.into()] {
        assert!(is_own_host(&SocketAddr::new(address, port).to_string(), own));
    }
}
