//! `redirector verify` goes where an answer sends a client: the Location of a redirect, the realm
//! of a Bearer challenge.

use testbed::topology::INTERNAL_NAME;

use crate::{
    rig::Job,
    stage::{CONFIG, Server, Tls, ask, assert_cause},
};

/// The first finding with this code.
fn finding<'j>(json: &'j serde_json::Value, code: &str) -> &'j serde_json::Value {
    let findings = json["findings"].as_array().unwrap();
    findings.iter().find(|one| one["code"] == code).unwrap_or_else(|| panic!("{code}: {json}"))
}

#[test]
fn a_redirect_of_the_registry_is_followed() {
    let job = Job::with_config(CONFIG);
    let registry = job.registry();
    let ca = job.rig.customer.ca_path().display().to_string();
    let url = format!("https://{INTERNAL_NAME}/simple");
    let (json, finished) = ask(&job, &["verify", &url, "--ca", &ca]);
    assert_eq!(finished.status.code(), Some(0), "{}", finished.text());
    let followed = &json["followed"][0];
    let expected = (&"location".into(), &format!("{url}/").into(), &INTERNAL_NAME.into());
    assert_eq!((&followed["by"], &followed["url"], &followed["route"]), expected, "{json}");
    assert_eq!(followed["steps"][3]["detail"], "200 OK", "{json}");
    let command =
        format!("curl --connect-to {INTERNAL_NAME}:443:artifactory.public.company.net:443");
    assert_eq!(json["command"], format!("{command} {url}"));
    let asked: Vec<_> = registry.requests();
    for path in ["GET /simple HTTP", "GET /simple/ HTTP"] {
        assert!(asked.iter().any(|line| line.contains(path)), "{path}: {asked:?}");
    }
    let people = job.cli(&["verify", &format!("{INTERNAL_NAME}/simple"), "--ca", &ca]);
    assert!(people.stdout.contains(&format!("redirected to {url}/")), "{}", people.text());
}

#[test]
fn hosts_that_are_no_source_are_named() {
    let job = Job::with_config(CONFIG);
    let answer = |answer: &'static str| {
        Server::tls(&job, Tls { answer: Some(answer), ..Tls::of(INTERNAL_NAME) })
    };
    let verify =
        |ca: &str| ["verify", INTERNAL_NAME, "--timeout", "3", "--ca", ca].map(str::to_owned);
    {
        let (_server, ca) = answer(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://cdn.example.test/blob\r\n\r\n",
        );
        let arguments = verify(ca.to_str().unwrap());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let words = ["https://cdn.example.test/blob", "cdn.example.test is no source", "route add"];
        assert_cause(&job, &arguments, "unmapped_host", &words);
    }
    // A token server that is a source, whose route does not work.
    let (_server, ca) = answer(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer \
            realm=\"https://nowhere.internal.company.net/token\",service=\"registry\"\r\n\r\n",
    );
    let arguments = verify(ca.to_str().unwrap());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (json, finished) = ask(&job, &arguments);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.text());
    assert_eq!(finding(&json, "credentials_wanted")["prevents"], false);
    assert_eq!(finding(&json, "no_backends")["prevents"], true, "{json}");
    assert_eq!(json["followed"][0]["url"], "https://nowhere.internal.company.net/token");
    assert_eq!(json["followed"][0]["by"], "realm");
}
