//! What a good configuration means, where it comes from, and that it comes back as it was.

mod any_text;
mod generated;
mod malformed;

use std::{path::Path, time::Duration};

use super::*;
use crate::route::{Destination, OnNoBackend};

/// The file that is shipped.
const SHIPPED: &str = include_str!("../../../../deploy/redirector.toml");

fn without_environment(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("test.toml"), &|_| None)
}

fn config(text: &str) -> Config {
    without_environment(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The configuration of `text` below the given variables.
fn below(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = |name: &str| {
        variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    };
    parse(text, Path::new("test.toml"), &environment)
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("\u{feff}# nothing\r\n"), Config::default());
}

#[test]
fn the_shipped_file_shows_the_defaults_and_one_essential_route() {
    let shipped = config(SHIPPED);
    let routes = config(
        "[[routes]]\nsource = \"artifactory.internal.company.net\"\ndestination = \
            \"artifactory.public.company.net\"",
    )
    .routes;
    assert_eq!(shipped, Config { routes, ..Config::default() });
    assert!(SHIPPED.contains("\nguard = true") || SHIPPED.contains("guard = true"));
}

#[test]
fn the_shipped_file_shows_every_key_and_its_examples_are_valid() {
    // Each `# key = value` of the file is an example; a comment is prose and has no ` = `.
    let uncommented: Vec<_> = SHIPPED
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
        .collect();
    let config = config(&uncommented.join("\n"));
    let route = &config.routes[0];
    assert_eq!(route.ports.to_string(), "443, 80:8080");
    assert_eq!(route.resolver, Some(([10, 0, 0, 2], 53).into()));
    assert_eq!(route.source_ips.len(), 2);
    assert_eq!(route.on_no_backend, OnNoBackend::Refuse);
    assert_eq!(route.idle_timeout, Some(Duration::from_secs(350)));
    assert_eq!(config.pool.ipv6.map(|ipv6| ipv6.to_string()).as_deref(), Some("fd00:198:18::/112"));
    // What can be configured is what the effective configuration has; the shipped file must show
    // all of it.
    for key in config
        .effective_toml()
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
    {
        assert!(
            uncommented
                .iter()
                .any(|line| line.split('=').next().is_some_and(|shown| shown.trim() == key)),
            "`{key}` is not shown"
        );
    }
}

#[test]
fn a_file_that_does_not_state_it_has_wildcards_of_any_depth() {
    let route = "[[routes]]\nsource = \"*.a\"\ndestination = \"lb\"\n";
    for (key, source, warned) in [
        ("", "**.a", true),
        ("wildcards = \"any_depth\"\n", "**.a", false),
        ("wildcards = \"one_label\"\n", "*.a", false),
    ] {
        let config = config(&format!("{key}{route}"));
        assert_eq!(config.routes[0].source.to_string(), source);
        assert_eq!(!config.old_wildcards.is_empty(), warned, "{key}");
        let effective = super::parse(&config.effective_toml(), Path::new("f"), &|_| None);
        assert_eq!(effective.expect("valid").routes, config.routes);
    }
    let warned = config(route).old_wildcards;
    let warning = crate::route::import::old_wildcards_warning(Path::new("f"), &warned);
    assert!(warning.expect("one").starts_with("f: `*.a`: read as `**.a`"));
}

#[test]
fn every_key_sets_its_field() {
    let text = r#"
        wildcards = "one_label"
        [agent]
        state_dir = "/data/state"
        run_dir = "/data/run"
        bpffs = "/data/bpf"
        admin = "off"
        [attach]
        cgroups = ["auto", "ci-runners", "kubepods.slice", "system.slice/docker-*.scope", "/docker"]
        namespaces = ["executors", "!executors-*"]
        pod_names = ["sg-executor-job-*"]
        pod_labels = ["app=executor"]
        interfaces = ["auto", "tap*", "!veth0"]
        [pool]
        ipv4 = "10.99.0.0/24"
        ipv6 = "fd00:99::/120"
        guard = false
        [dns]
        listen = ["127.0.0.1:5353", "[fd00::53]:53"]
        upstreams = ["10.0.0.2", "system", "[fd00::2]:5353"]
        intercept = "sockets"
        intercept_resolvers = ["10.96.0.10", "fd00::10"]
        clients = ["local", "203.0.113.0/24"]
        real_address_clients = ["10.61.0.0/16", "192.0.2.1", "fd00:61::/64"]
        ttl = 0
        [health]
        connect_timeout = "500ms"
        probe_interval = "1m"
        eject_on_reset = false
        [datapath]
        debug_log = true
        [[routes]]
        source = "*.Internal.Company.net."
        destination = ["203.0.113.7", "2001:db8::7"]
        ports = [443, "80:8080"]
        resolver = "10.0.0.9"
        source_ips = ["198.51.100.1", "2001:db8:1::1"]
        on_no_backend = "pass"
        idle_timeout = "350s"
        "#;
    let config = config(text);
    assert_eq!(config.agent.control_socket(), Path::new("/data/run/control.sock"));
    assert_eq!(
        (config.agent.admin, config.agent.state_dir, config.agent.bpffs),
        (None, "/data/state".into(), "/data/bpf".into())
    );
    let pattern = |text: &str| CgroupSpec::Pattern(text.into());
    assert_eq!(
        config.attach.cgroups,
        [
            CgroupSpec::Auto,
            CgroupSpec::Preset(Preset::CiRunners),
            pattern("kubepods.slice"),
            pattern("system.slice/docker-*.scope"),
            pattern("/docker")
        ]
    );
    assert_eq!(
        config.attach.pods,
        PodSelector {
            namespaces: vec!["executors".into(), "!executors-*".into()],
            names: vec!["sg-executor-job-*".into()],
            labels: vec!["app=executor".into()],
        }
    );
    assert_eq!(
        config.attach.interfaces,
        [
            InterfaceSpec::Auto,
            InterfaceSpec::Pattern("tap*".into()),
            InterfaceSpec::Except("veth0".into())
        ]
    );
    assert_eq!((config.pool.size(), config.pool.guard), (256, false));
    assert_eq!(
        config.dns.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["127.0.0.1:5353", "[fd00::53]:53"]
    );
    let server = |text: &str| Upstream::Server(text.parse().expect("an address"));
    assert_eq!(
        config.dns.upstreams,
        [server("10.0.0.2:53"), Upstream::System, server("[fd00::2]:5353")]
    );
    assert_eq!(config.dns.intercept, Intercept::Sockets);
    assert_eq!(
        config.dns.intercept_resolvers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.96.0.10", "fd00::10"]
    );
    assert!(matches!(config.dns.clients[..], [DnsClients::Local, DnsClients::Network(_)]));
    assert_eq!(config.dns.real_address_clients.len(), 3);
    assert_eq!((config.dns.ttl, config.health.connect_timeout), (0, Duration::from_millis(500)));
    assert_eq!(config.health.probe_interval, Duration::from_secs(60));
    assert!(!config.health.eject_on_reset);
    assert!(config.datapath.logs_decisions());
    let route = &config.routes[0];
    assert_eq!(route.source.to_string(), "*.internal.company.net");
    assert!(config.old_wildcards.is_empty());
    assert!(
        matches!(&route.destination, Destination::Addresses(addresses) if addresses.len() == 2)
    );
    assert_eq!((route.ports.destination(80), route.ports.destination(22)), (Some(8080), None));
    assert_eq!(
        (route.on_no_backend, route.idle_timeout),
        (OnNoBackend::Pass, Some(Duration::from_secs(350)))
    );
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    for text in [
        "",
        SHIPPED,
        "[agent]\nadmin = \"off\"\n[pool]\nipv6 = \"fd00::/112\"\n[dns]\nintercept = \
            \"sockets\"\nintercept_resolvers = [\"10.96.0.10\"]\nlisten = [\"[::1]:53\"]",
        "[dns]\nlisten = []\nintercept = \"off\"\n[health]\nconnect_timeout = \"1500ms\"",
        "wildcards = \"one_label\"\n[[routes]]\nsource = \"a\"\n\
            destination = [\"203.0.113.7\"]\nports = [443, \
            \"80:8080\"]\n[[routes]]\nsource = \"*.a\"\ndestination = \"lb\"\nidle_timeout = \
            \"2m\"\non_no_backend = \"pass\"",
    ] {
        let first = config(text);
        assert_eq!(config(&first.effective_toml()), first, "{}", first.effective_toml());
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let variables = [
        ("REDIRECTOR_AGENT_STATE_DIR", "/data"),
        ("REDIRECTOR_AGENT_ADMIN", "off"),
        ("REDIRECTOR_ATTACH_CGROUPS", "docker, kubepods"),
        ("REDIRECTOR_POOL_GUARD", "false"),
        ("REDIRECTOR_POOL_IPV4", "10.9.0.0/16"),
        ("REDIRECTOR_DNS_LISTEN", "127.0.0.1:53,127.0.0.2:53"),
        ("REDIRECTOR_DNS_INTERCEPT", "sockets"),
        ("REDIRECTOR_DNS_INTERCEPT_RESOLVERS", "10.96.0.10,10.96.0.11"),
        ("REDIRECTOR_DNS_TTL", "5"),
        ("REDIRECTOR_HEALTH_CONNECT_TIMEOUT", "1s"),
        // What Kubernetes sets for a service called redirector must not matter.
        ("REDIRECTOR_SERVICE_HOST", "10.0.0.1"),
        ("REDIRECTOR_PORT", "tcp://10.0.0.1:9464"),
    ];
    let config = below(
        "[agent]\nstate_dir = \"/file\"\nrun_dir = \"/file\"\n[dns]\nttl = \"not even a number\"",
        &variables,
    )
    .expect("a configuration");
    assert_eq!(
        (config.agent.state_dir, config.agent.run_dir, config.agent.admin),
        ("/data".into(), "/file".into(), None)
    );
    assert_eq!(
        config.attach.cgroups,
        [CgroupSpec::Preset(Preset::Docker), CgroupSpec::Pattern("kubepods".into())]
    );
    assert_eq!((config.pool.ipv4.to_string().as_str(), config.pool.guard), ("10.9.0.0/16", false));
    assert_eq!(config.dns.listen.len(), 2);
    assert_eq!(config.dns.intercept, Intercept::Sockets);
    assert_eq!(config.dns.intercept_resolvers.len(), 2);
    assert_eq!((config.dns.ttl, config.health.connect_timeout), (5, Duration::from_secs(1)));
}

#[test]
fn a_resolver_in_the_old_variable_is_refused() {
    let errors = below("", &[("REDIRECTOR_DNS_INTERCEPT", "10.96.0.10")]).expect_err("refused");
    assert!(errors.to_string().contains("`dns.intercept_resolvers`"), "{errors}");
}

#[test]
fn an_empty_variable_is_none() {
    let config =
        below("[dns]\nttl = 7", &[("REDIRECTOR_DNS_TTL", ""), ("REDIRECTOR_DNS_LISTEN", "")])
            .expect("a configuration");
    assert_eq!((config.dns.ttl, config.dns.listen), (7, Dns::default().listen));
}

#[test]
fn a_bad_value_in_the_environment_names_the_variable() {
    let variables = [
        ("REDIRECTOR_DNS_LISTEN", "127.0.0.1"),
        ("REDIRECTOR_DNS_TTL", "soon"),
        ("REDIRECTOR_POOL_GUARD", "maybe"),
    ];
    let errors = below("[pool]\nipv4 = \"x\"", &variables).expect_err("four problems").to_string();
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(
        lines,
        [
            "environment variable REDIRECTOR_POOL_GUARD: key `pool.guard`: expected `true` or \
                `false`, without quotes, not the text \"maybe\"",
            "environment variable REDIRECTOR_DNS_TTL: key `dns.ttl`: expected a whole number such \
                as `30`, in seconds, not the text \"soon\"",
            "environment variable REDIRECTOR_DNS_LISTEN: key `dns.listen[0]`: `127.0.0.1` has no \
                port: write `127.0.0.1:53`",
            "test.toml:2:8: key `pool.ipv4`: `x` is not a network: write an address and a prefix \
                length such as `10.1.0.0/16`",
        ]
    );
}

#[test]
fn a_missing_file_is_reported_with_the_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("redirector.toml");
    let error = load(&path).expect_err("no file").to_string();
    assert!(
        error.starts_with(&format!("{}: there is no such file: write one", path.display())),
        "{error}"
    );
    assert!(error.contains("--config") && error.contains("REDIRECTOR_CONFIG"), "{error}");
    let error = load(directory.path()).expect_err("a directory").to_string();
    assert!(error.contains("failed to read the configuration"), "{error}");
    std::fs::write(&path, b"[agent]\n# caf\xe9\n").expect("written");
    let error = load(&path).expect_err("not UTF-8").to_string();
    assert!(error.contains("line 2 is not UTF-8"), "{error}");
}

#[test]
fn the_flag_names_the_file() {
    assert_eq!(path(Some("/elsewhere.toml".into())), Path::new("/elsewhere.toml"));
}

#[test]
fn twenty_thousand_routes_are_read_without_waiting() {
    let route = |n: u32| {
        format!(
            "[[routes]]\nsource = \"host{n}.internal\"\ndestination = \"lb{n}.public\"\nports = \
                [443]\n"
        )
    };
    let text: String = (0..20_000).map(route).collect();
    let wrong = text.replace("lb", "lb:");
    // Of this thread alone: other tests run beside it.
    let began = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    assert_eq!(config(&text).routes.len(), 20_000);
    assert_eq!(
        without_environment(&wrong).expect_err("each of them is wrong").problems.len(),
        20_000
    );
    let ended = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = ended.tv_sec - began.tv_sec;
    // What must never come is a search for each route, or each problem, through all the others.
    assert!(seconds < 30, "{seconds} s");
}
