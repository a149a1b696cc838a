//! The commands of docs/onboarding.md print what the page shows, at each step of the platform that
//! was done or forgotten.

use testbed::topology::INTERNAL_NAME;

use crate::{
    rig::Job,
    stage::{Server, Tls},
};

const PAGE: &str = include_str!("../../../../docs/onboarding.md");
const ROUTE: &str = "\
[[routes]]
source = \"artifactory.internal.company.net\"
destination = \"artifactory.public.company.net\"
ports = [\"443\"]
";

/// Replaces the number between `before` and `after` wherever it is.
fn with_number(text: &str, before: &str, after: &str, number: &str) -> String {
    let mut parts = text.split(before);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let is_it = rest.len() < part.len() && rest.starts_with(after);
        replaced.push_str(before);
        replaced.push_str(if is_it { number } else { "" });
        replaced.push_str(if is_it { rest } else { part });
    }
    replaced
}

/// Runs `redirector` with these words on the node. The page must have the command with its output,
/// but for what differs between runs.
#[track_caller]
fn assert_page_shows(job: &Job, line: &str) {
    let finished = job.cli(&line.split(' ').collect::<Vec<_>>());
    let mut text = finished.text();
    if !text.contains("203.0.113.7") {
        text = text.replace("203.0.113.8", "203.0.113.7");
    }
    let text = with_number(&text, "redirector-verify-", "\n", "4711");
    let text = with_number(&text, " in ", " ms", "1");
    let text = with_number(&text, "refused after ", " ms", "1");
    let text = with_number(&text, "no answer in time after ", " ms", "2700");
    let text = with_number(&text, "(answer ", " of 3", "1");
    let text = with_number(&text, "from 198.51.100.1:", " ", "40000");
    let block = format!("```console\nnode# redirector {line}\n{text}```\n");
    assert!(PAGE.contains(&block), "docs/onboarding.md lacks this:\n{block}");
}

#[test]
fn onboarding_without_names() {
    let job = Job::with_config("routes = []\n");
    assert_page_shows(&job, "verify artifactory.internal.company.net");
    let add = "route add artifactory.internal.company.net";
    assert_page_shows(&job, &format!("{add} nowhere.public.company.net --port 443"));
    assert_page_shows(&job, "verify artifactory.internal.company.net --until connect");
    let set = "route set artifactory.internal.company.net";
    assert_page_shows(&job, &format!("{set} --destination artifactory.public.company.net"));
}

#[test]
fn onboarding_without_a_load_balancer() {
    let mut job = Job::with_config(ROUTE);
    job.balancers.iter_mut().for_each(|balancer| balancer.stop().unwrap());
    assert_page_shows(&job, "verify artifactory.internal.company.net --until connect");
}

#[test]
fn onboarding_without_the_allowlist() {
    let job = Job::with_config(ROUTE);
    for address in [[203, 0, 113, 7], [203, 0, 113, 8]] {
        job.rig.customer.silence(address.into()).unwrap();
    }
    assert_page_shows(&job, "verify artifactory.internal.company.net --timeout 3");
}

#[test]
fn onboarding_up_to_the_secret() {
    let job = Job::with_config(ROUTE);
    let authority = job.rig.node.sandbox().home().join("ca.pem");
    {
        let (_server, ca) = Server::tls(&job, Tls::of("artifactory.public.company.net"));
        std::fs::copy(ca, &authority).unwrap();
        assert_page_shows(&job, "verify artifactory.internal.company.net --until tls --ca ca.pem");
    }
    {
        let (_server, _) = Server::tls(&job, Tls::of(INTERNAL_NAME));
        assert_page_shows(&job, "verify artifactory.internal.company.net --timeout 5");
    }
    {
        let answer = Some("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
        let (_server, ca) = Server::tls(&job, Tls { answer, ..Tls::of(INTERNAL_NAME) });
        std::fs::copy(ca, &authority).unwrap();
        assert_page_shows(&job, "verify artifactory.internal.company.net --timeout 6 --ca ca.pem");
    }
    let _registry = job.registry();
    std::fs::copy(job.rig.customer.ca_path(), &authority).unwrap();
    assert_page_shows(&job, "verify artifactory.internal.company.net --ca ca.pem");
}
