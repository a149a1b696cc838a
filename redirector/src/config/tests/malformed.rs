//! Malformed configurations: each mistake that a person makes, with the line, the key and the
//! remedy that the error must have.

use std::path::Path;

use crate::config::parse;

fn problems(text: &str) -> Vec<String> {
    match parse(text, Path::new("f"), &|_| None) {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

/// A file with one mistake, and what its one problem begins with and contains.
fn assert_refused(text: &str, begins: &str, remedy: &str) {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
    assert!(problems[0].starts_with(begins), "{text}\ngave {}\nnot {begins}", problems[0]);
    assert!(problems[0].contains(remedy), "{text}\ngave {}\nwithout {remedy}", problems[0]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    for (text, begins, remedy) in [
        ("[agnt]\nstate_dir = \"/x\"", "f:1:2: key `agnt`:", "did you mean `agent`?"),
        (
            "[agent]\n\nstatedir = \"/x\"",
            "f:3:1: key `agent.statedir`:",
            "did you mean `state_dir`?",
        ),
        (
            "[dns]\nlisten = [\"127.0.0.1:53\"]\nupstream = [\"system\"]",
            "f:3:1: key `dns.upstream`:",
            "did you mean `upstreams`?",
        ),
        (
            "[dns]\nxyz = 1",
            "f:2:1: key `dns.xyz`:",
            "known are `listen`, `upstreams`, `intercept`, `intercept_resolvers`, `clients`, \
                `real_address_clients`, `ttl`",
        ),
        (
            "[health]\ntimeout = \"3s\"",
            "f:2:1: key `health.timeout`:",
            "did you mean `connect_timeout`?",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"b\"\nport = [\"443\"]",
            "f:4:1: key `routes[0].port`:",
            "did you mean `ports`?",
        ),
        (
            "[[route]]\nsource = \"a\"\ndestination = \"b\"",
            "f:1:3: key `route`:",
            "did you mean `routes`?",
        ),
        ("listen = [\"127.0.0.1:53\"]", "f:1:1: key `listen`:", "did you mean `dns.listen`?"),
        ("[routes.a]\nsource = \"a\"", "f:1:2: key `routes`:", "write `[[routes]]`"),
    ] {
        assert_refused(text, begins, remedy);
    }
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_an_example() {
    for (text, begins, remedy) in [
        ("agent = 3", "f:1:9: key `agent`:", "expected a table, not the number 3"),
        (
            "[[agent]]\nadmin = \"off\"",
            "f:1:1: key `agent`:",
            "write `[agent]`, in single brackets",
        ),
        (
            "[routes]\nsource = \"a\"\ndestination = \"b\"",
            "f:1:1: key `routes`:",
            "write `[[routes]]`, in double brackets",
        ),
        (
            "routes = \"a\"",
            "f:1:10: key `routes`:",
            "expected a list of tables, not the text \"a\"",
        ),
        ("routes = [\"a\"]", "f:1:11: key `routes[0]`:", "expected a table, not the text \"a\""),
        (
            "[agent]\nstate_dir = 7",
            "f:2:13: key `agent.state_dir`:",
            "expected a text such as `\"/var/lib/redirector\"`, not the number 7",
        ),
        (
            "[agent]\nadmin = false",
            "f:2:9: key `agent.admin`:",
            "`\"127.0.0.1:9464\"` or `\"off\"`, not `false`",
        ),
        (
            "[attach]\ncgroups = \"auto\"",
            "f:2:11: key `attach.cgroups`:",
            "expected a list such as `[\"auto\"]`, not the text \"auto\"",
        ),
        (
            "[attach]\ncgroups = [\"auto\", 1]",
            "f:2:20: key `attach.cgroups[1]`:",
            "expected a text, as in `[\"auto\"]`, not the number 1",
        ),
        (
            "[pool]\nguard = \"yes\"",
            "f:2:9: key `pool.guard`:",
            "expected `true` or `false`, without quotes, not the text \"yes\"",
        ),
        (
            "[dns]\nttl = \"30\"",
            "f:2:7: key `dns.ttl`:",
            "expected a whole number such as `30`, in seconds, not the text \"30\"",
        ),
        ("[dns]\nttl = 30.5", "f:2:7: key `dns.ttl`:", "not the number 30.5"),
        (
            "[dns]\nttl = 99999999999999999999",
            "f:2:7: key `dns.ttl`:",
            "not the number 99999999999999999999",
        ),
        (
            "[dns]\nintercept = true",
            "f:2:13: key `dns.intercept`:",
            "expected a text or a list such as `\"auto\"`, not `true`",
        ),
        (
            "[dns]\nlisten = 1979-05-27",
            "f:2:10: key `dns.listen`:",
            "not the date or time 1979-05-27",
        ),
        (
            "[health]\nconnect_timeout = 3",
            "f:2:19: key `health.connect_timeout`:",
            "expected a text such as `\"3s\"`, not the number 3",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = 3",
            "f:3:15: key `routes[0].destination`:",
            "expected a text or a list such as",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"b\"\nports = 443",
            "f:4:9: key `routes[0].ports`:",
            "expected a list such as `[\"443\", \"80:8080\"]`",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"b\"\nports = [[443]]",
            "f:4:10: key `routes[0].ports[0]`:",
            "not a list",
        ),
    ] {
        assert_refused(text, begins, remedy);
    }
}

#[test]
fn an_invalid_agent_or_attach_value_is_refused_with_a_remedy() {
    let long = format!("[agent]\nrun_dir = \"/{}\"", "x".repeat(100));
    for (text, begins, remedy) in [
        (
            "[agent]\nstate_dir = \"var/lib\"",
            "f:2:13: key `agent.state_dir`: `var/lib` is not an absolute path",
            "begin it with `/`",
        ),
        (
            "[agent]\nbpffs = \"/sys/../x\"",
            "f:2:9: key `agent.bpffs`: `/sys/../x` goes up by `..`",
            "write the path without it",
        ),
        (
            "[agent]\nstate_dir = \"\"",
            "f:2:13: key `agent.state_dir`: `` is not an absolute path",
            "begin it with `/`",
        ),
        (
            long.as_str(),
            "f:2:11: key `agent.run_dir`: `/xxx",
            "longer than a unix socket's 107 bytes: write a shorter path",
        ),
        ("[agent]\nadmin = \"none\"", "f:2:9: key `agent.admin`: `none` is not known", "or `off`"),
        (
            "[agent]\nadmin = \"127.0.0.1\"",
            "f:2:9: key `agent.admin`: `127.0.0.1` has no port",
            "write `127.0.0.1:9464`",
        ),
        (
            "[agent]\nadmin = \"localhost:9464\"",
            "f:2:9: key `agent.admin`: `localhost:9464` is not an address with a port",
            "write one such as",
        ),
        (
            "[attach]\ncgroups = []",
            "f:2:11: key `attach.cgroups`: is an empty list",
            "write `[\"auto\"]`",
        ),
        (
            "[attach]\ncgroups = [\n  \"docker\",\n  \"../x\",\n]",
            "f:4:3: key `attach.cgroups[1]`: `../x` goes up",
            "without it",
        ),
        (
            "[attach]\ncgroups = [\"\"]",
            "f:2:12: key `attach.cgroups[0]`: is empty",
            "`\"kubepods.slice\"`",
        ),
        (
            "[attach]\ncgroups = [\"kubernetes\", \"dockr\"]",
            "f:2:26: key `attach.cgroups[1]`: `dockr` is not a preset: did you mean `docker`?",
            "write `/dockr`",
        ),
        (
            "[attach]\ncgroups = [\"auto\", \"auto\"]",
            "f:2:20: key `attach.cgroups[1]`: `auto` stands here twice",
            "remove one",
        ),
        (
            "[attach]\ninterfaces = []",
            "f:2:14: key `attach.interfaces`: is an empty list",
            "write `\"off\"`",
        ),
        (
            "[attach]\ninterfaces = [\"!veth*\"]",
            "f:2:14: key `attach.interfaces`: has nothing but exclusions",
            "write `\"auto\"`",
        ),
        (
            "[attach]\ninterfaces = [\"auto\", \"off\"]",
            "f:2:23: key `attach.interfaces[1]`: `off` excludes every other value",
            "write `interfaces = \"off\"`",
        ),
        (
            "[attach]\ninterfaces = [\"auto\", \"!\"]",
            "f:2:23: key `attach.interfaces[1]`: is empty",
            "`\"veth*\"`",
        ),
        (
            "[attach]\ninterfaces = \"/sys/class/net\"",
            "f:2:14: key `attach.interfaces`: `/sys/class/net` can't be an interface's name",
            "at most 15 bytes, without `/`",
        ),
        (
            "[attach]\ninterfaces = [\"veth[\"]",
            "f:2:15: key `attach.interfaces[0]`: `veth[` is not a glob",
            "`[[]`",
        ),
    ] {
        assert_refused(text, begins, remedy);
    }
}

#[test]
fn an_invalid_pool_is_refused_with_a_valid_one() {
    let crowded = format!(
        "[pool]\nipv4 = \"10.0.0.0/30\"{}",
        ["a", "b", "c"]
            .map(|name| format!("\n[[routes]]\nsource = \"{name}\"\ndestination = \"lb\""))
            .concat()
    );
    for (text, begins, remedy) in [
        (
            "[pool]\nipv4 = \"198.18.0.0\"",
            "f:2:8: key `pool.ipv4`: `198.18.0.0/32` is too small",
            "write a prefix length of /30 or less",
        ),
        (
            "[pool]\nipv4 = \"198.18.0.0/31\"",
            "f:2:8: key `pool.ipv4`: `198.18.0.0/31` is too small",
            "/30 or less",
        ),
        (
            "[pool]\nipv4 = \"10.0.0.0/8\"",
            "f:2:8: key `pool.ipv4`: `10.0.0.0/8` is too wide",
            "/16 or more",
        ),
        (
            "[pool]\nipv4 = \"198.18.0.5/16\"",
            "f:2:8: key `pool.ipv4`: `198.18.0.5/16` has bits set",
            "write `198.18.0.0/16`",
        ),
        (
            "[pool]\nipv4 = \"198.18.0.0/33\"",
            "f:2:8: key `pool.ipv4`: `198.18.0.0/33` is not a network",
            "such as `10.1.0.0/16`",
        ),
        (
            "[pool]\nipv4 = \"127.0.0.0/16\"",
            "f:2:8: key `pool.ipv4`: `127.0.0.0/16` overlaps `127.0.0.0/8`, which is loopback",
            "such as `198.18.0.0/16`",
        ),
        (
            "[pool]\nipv4 = \"fd00::/112\"",
            "f:2:8: key `pool.ipv4`: `fd00::/112` is an IPv6 network",
            "this one as `pool.ipv6`",
        ),
        (
            "[pool]\nipv6 = \"10.0.0.0/16\"",
            "f:2:8: key `pool.ipv6`: `10.0.0.0/16` is an IPv4 network",
            "such as `fd00:198:18::/112`",
        ),
        (
            "[pool]\nipv6 = \"fd00::/64\"",
            "f:2:8: key `pool.ipv6`: `fd00::/64` has not as many addresses",
            "write a prefix length of /112",
        ),
        (
            "[pool]\nipv4 = \"10.0.0.0/24\"\nipv6 = \"fd00::/112\"",
            "f:3:8: key `pool.ipv6`:",
            "write a prefix length of /120",
        ),
        (
            crowded.as_str(),
            "f:2:8: key `pool.ipv4`: `10.0.0.0/30` has 2 addresses for 3 routes",
            "write a shorter prefix length",
        ),
        (
            "[pool]\nipv4 = \"10.0.0.0/16\"\n[dns]\nlisten = [\"10.0.3.4:53\"]",
            "f:4:11: key `dns.listen[0]`: `10.0.3.4` is in the pool",
            "or move `pool`",
        ),
        (
            "[pool]\nipv4 = \"10.0.0.0/16\"\n[dns]\nupstreams = [\"10.0.3.4\"]",
            "f:4:14: key `dns.upstreams[0]`: `10.0.3.4` is in the pool",
            "or move `pool`",
        ),
    ] {
        assert_refused(text, begins, remedy);
    }
}

#[test]
fn an_invalid_dns_or_health_value_is_refused_with_a_remedy() {
    for (text, begins, remedy) in [
        (
            "[dns]\nlisten = [\"169.254.20.53\"]",
            "f:2:11: key `dns.listen[0]`: `169.254.20.53` has no port",
            "write `169.254.20.53:53`",
        ),
        (
            "[dns]\nlisten = [\"fd00::53\"]",
            "f:2:11: key `dns.listen[0]`: `fd00::53` has no port",
            "write `[fd00::53]:53`",
        ),
        (
            "[dns]\nlisten = [\"127.0.0.1:99999\"]",
            "f:2:11: key `dns.listen[0]`: `99999` in `127.0.0.1:99999` is not a port",
            "1 to 65535",
        ),
        (
            "[dns]\nlisten = [\"0.0.0.0:53\"]",
            "f:2:11: key `dns.listen[0]`: `0.0.0.0` is not the address of one host",
            "write one such as",
        ),
        (
            "[dns]\nlisten = [\"127.0.0.1:53\", \"127.0.0.1:53\"]",
            "f:2:27: key `dns.listen[1]`: `127.0.0.1:53` stands here twice",
            "remove one",
        ),
        (
            "[dns]\nlisten = [\"lo:53\"]",
            "f:2:11: key `dns.listen[0]`: `lo:53` is not an address with a port",
            "write one such as",
        ),
        (
            "[dns]\nupstreams = []",
            "f:2:13: key `dns.upstreams`: is an empty list",
            "write `[\"system\"]`",
        ),
        (
            "[dns]\nupstreams = [\"dns.google\"]",
            "f:2:14: key `dns.upstreams[0]`: `dns.google` is not known",
            "write `system`, or",
        ),
        (
            "[dns]\nupstreams = [\"8.8.8.8:0\"]",
            "f:2:14: key `dns.upstreams[0]`: `0` in `8.8.8.8:0` is not a port",
            "1 to 65535",
        ),
        (
            "[dns]\nupstreams = [\"169.254.20.53\"]",
            "f:2:14: key `dns.upstreams[0]`: `169.254.20.53:53` is in `dns.listen`",
            "the resolver behind it",
        ),
        (
            "[dns]\nintercept = \"yes\"",
            "f:2:13: key `dns.intercept`: `yes` is not known",
            "write `auto`, `packets`, `sockets` or `off`",
        ),
        (
            "[dns]\nintercept = \"on\"",
            "f:2:13: key `dns.intercept`: `on` is no longer known",
            "write `auto`, which answers mapped names by packet, or `sockets`",
        ),
        (
            "[dns]\nintercept = [\"10.96.0.10\"]",
            "f:2:13: key `dns.intercept`: takes no resolvers any more",
            "list them in `dns.intercept_resolvers`, and write `intercept = \"sockets\"`",
        ),
        (
            "[dns]\nintercept = \"sockets\"\nintercept_resolvers = [\"10.96.0.10:53\"]",
            "f:3:24: key `dns.intercept_resolvers[0]`: `10.96.0.10:53` is not an IP address",
            "write one such as",
        ),
        (
            "[dns]\nintercept = \"sockets\"\nintercept_resolvers = [\"169.254.20.53\"]",
            "f:3:24: key `dns.intercept_resolvers[0]`: `169.254.20.53` is in `dns.listen`",
            "remove it here",
        ),
        (
            "[dns]\nintercept = \"sockets\"\nintercept_resolvers = [\"10.0.0.1\", \"10.0.0.2\", \
                \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \"10.0.0.6\", \"10.0.0.7\", \
                \"10.0.0.8\", \"10.0.0.9\"]",
            "f:3:23: key `dns.intercept_resolvers`: lists 9 resolvers, and at most 8 have a port",
            "remove some",
        ),
        (
            "[dns]\nlisten = []\nintercept = \"sockets\"",
            "f:3:13: key `dns.intercept`: `sockets` needs `dns.listen`",
            "that executors can reach",
        ),
        (
            "[dns]\nclients = [\"all\"]",
            "f:2:12: key `dns.clients[0]`: `all` is not known",
            "write `local`, or a network",
        ),
        (
            "[dns]\nclients = []",
            "f:2:11: key `dns.clients`: is an empty list",
            "write `[\"local\"]`, networks, or both",
        ),
        (
            "[dns]\nreal_address_clients = [\"10.61.0.1/16\"]",
            "f:2:25: key `dns.real_address_clients[0]`: `10.61.0.1/16` has bits set",
            "write `10.61.0.0/16`",
        ),
        (
            "[dns]\nttl = -1",
            "f:2:7: key `dns.ttl`: `-1` is out of range",
            "write 0 to 86400, in seconds",
        ),
        (
            "[health]\nconnect_timeout = \"3\"",
            "f:2:19: key `health.connect_timeout`: `3` has no unit",
            "write `3s` for seconds",
        ),
        (
            "[health]\nconnect_timeout = \"soon\"",
            "f:2:19: key `health.connect_timeout`: `soon` is not a duration",
            "such as `3s`, `500ms` or `2m`",
        ),
        (
            "[health]\nconnect_timeout = \"5m\"",
            "f:2:19: key `health.connect_timeout`: `5m` is out of range",
            "write 100ms to 120s",
        ),
        (
            "[health]\nprobe_interval = \"0s\"",
            "f:2:18: key `health.probe_interval`: `0s` is out of range",
            "write 100ms to 3600s",
        ),
    ] {
        assert_refused(text, begins, remedy);
    }
}

/// A route to `lb`, with more lines; they begin at line 4.
fn route(more: &str) -> String {
    format!("[[routes]]\nsource = \"a\"\ndestination = \"lb\"\n{more}")
}

#[test]
fn an_invalid_route_is_refused_with_a_remedy() {
    let numbers =
        |count: usize| (1..=count).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
    let addresses = (0..65).map(|n| format!("\"203.0.113.{n}\"")).collect::<Vec<_>>().join(", ");
    let many = format!("[[routes]]\nsource = \"a\"\ndestination = [{addresses}]");
    for (text, begins, remedy) in [
        (
            "[[routes]]\ndestination = \"lb\"",
            "f:1:1: key `routes[0].source`: is missing",
            "write the internal name, such as",
        ),
        (
            "[[routes]]\nsource = \"a\"",
            "f:1:1: key `routes[0].destination`: is missing",
            "write the load balancer's name",
        ),
        (
            "[[routes]]\nsource = \"a..b\"\ndestination = \"lb\"",
            "f:2:10: key `routes[0].source`: `` in `a..b` is not a DNS label",
            "1 to 63",
        ),
        (
            "[[routes]]\nsource = \"a.*.b\"\ndestination = \"lb\"",
            "f:2:10: key `routes[0].source`: `a.*.b`: a wildcard stands alone",
            "as in `*.",
        ),
        (
            "[[routes]]\nsource = \"10.0.0.1\"\ndestination = \"lb\"",
            "f:2:10: key `routes[0].source`: `10.0.0.1` is an address",
            "the name that",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"lb:8443\"",
            "f:3:15: key `routes[0].destination`: `lb:8443` has a port",
            "as in `443:8443`",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"https://lb\"",
            "f:3:15: key `routes[0].destination`: `https://lb` is a URL",
            "host name alone",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = []",
            "f:3:15: key `routes[0].destination`: is an empty list",
            "at least one address",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = [\"lb\"]",
            "f:3:16: key `routes[0].destination[0]`: `lb` is not an IP address",
            "without brackets",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = [\"203.0.113.7\",\n\"203.0.113.7\"]",
            "f:4:1: key `routes[0].destination[1]`: `203.0.113.7` stands here twice",
            "remove one",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"203.0.113.777\"",
            "f:3:15: key `routes[0].destination`: `203.0.113.777` is neither",
            "write one such as",
        ),
        (
            many.as_str(),
            "f:3:15: key `routes[0].destination`: has 65 addresses",
            "write at most 64",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = [\"198.18.3.4\"]",
            "f:3:16: key `routes[0].destination[0]`: `198.18.3.4` is in the pool",
            "write a real one",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = \"::ffff:203.0.113.7\"",
            "f:3:15: key `routes[0].destination`:",
            "write `203.0.113.7`",
        ),
        (
            &route("ports = [\"80:8080:1\"]"),
            "f:4:10: key `routes[0].ports[0]`: `80:8080:1` is not a port or a pair",
            "write `443`, or `80:8080`",
        ),
        (&route("ports = [443, 0]"), "f:4:15: key `routes[0].ports[1]`: `0`: port 0", "1 to 65535"),
        (
            &route("ports = [\"443\", \"443:8443\"]"),
            "f:4:17: key `routes[0].ports[1]`: client port 443 stands here twice",
            "remove one",
        ),
        (
            &route("ports = []"),
            "f:4:9: key `routes[0].ports`: is an empty list",
            "leave it out for all ports",
        ),
        (
            &route(&format!("ports = [{}]", numbers(17))),
            "f:4:9: key `routes[0].ports`: has 17 ports",
            "write at most 16",
        ),
        (
            &route("resolver = \"dns.google\""),
            "f:4:12: key `routes[0].resolver`: `dns.google` is not an address",
            "write one such as",
        ),
        (
            &route("source_ips = [\"198.51.100.x\"]"),
            "f:4:15: key `routes[0].source_ips[0]`: `198.51.100.x` is not an IP address",
            "write one",
        ),
        (
            &route("source_ips = [\"198.51.100.1\", \"198.51.100.1\"]"),
            "f:4:31: key `routes[0].source_ips[1]`: `198.51.100.1` stands",
            "remove one",
        ),
        (
            &route("source_ips = [\"198.18.0.9\"]"),
            "f:4:15: key `routes[0].source_ips[0]`: `198.18.0.9` is in the pool",
            "write a real one",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = [\"203.0.113.7\"]\nsource_ips = \
                [\"2001:db8::1\"]",
            "f:4:14: key `routes[0].source_ips`: has no IPv4 address for destination `203.0.113.7`",
            "add one",
        ),
        (
            "[[routes]]\nsource = \"a\"\ndestination = [\"203.0.113.7\"]\nsource_ips = \
                [\"198.51.100.1\", \"2001:db8::1\"]",
            "f:4:31: key `routes[0].source_ips[1]`: `2001:db8::1` is IPv6, and no destination \
                address is",
            "remove it",
        ),
        (
            &route("on_no_backend = \"drop\""),
            "f:4:17: key `routes[0].on_no_backend`: `drop` is not known",
            "write `refuse`",
        ),
        (
            &route("idle_timeout = \"1s\""),
            "f:4:16: key `routes[0].idle_timeout`: `1s` is out of range",
            "write 5s to 32767s",
        ),
        (
            &route("idle_timeout = \"350\""),
            "f:4:16: key `routes[0].idle_timeout`: `350` has no unit",
            "write `350s`",
        ),
    ] {
        assert_refused(text, begins, remedy);
    }
}

#[test]
fn an_unknown_meaning_of_wildcards_is_refused() {
    assert_refused(
        "wildcards = \"both\"\n",
        "f:1:13: key `wildcards`: `both` is not known",
        "write `one_label` or `any_depth`",
    );
    let route = "source = \"*.a.b\"\ndestination = \"lb\"";
    let same = format!("[[routes]]\n{route}\n[[routes]]\n{}", route.replace("*.", "**."));
    assert_refused(&same, "f:5:10: key `routes[1].source`: `**.a.b` is the source of", "remove");
}

#[test]
fn a_duplicate_source_is_refused_with_both_lines() {
    for (one, other) in [("a.b", "a.b"), ("a.b", "A.B."), ("*.a.b", "*.A.b")] {
        let text = format!(
            "[[routes]]\nsource = \"{one}\"\ndestination = \"lb\"\n\n[[routes]]\nsource = \
                \"{other}\"\ndestination = \"lb\"\n"
        );
        let begins = format!(
            "f:6:10: key `routes[1].source`: `{other}` is the source of `routes[0]` (f:1:1) already"
        );
        assert_refused(&text, &begins, "remove one of the two");
    }
    // These overlap, and the longer one wins: that is what wildcards are for.
    let nested = ["a.b.c", "*.b.c", "*.c"]
        .map(|source| format!("[[routes]]\nsource = \"{source}\"\ndestination = \"lb\"\n"))
        .concat();
    assert_eq!(parse(&nested, Path::new("f"), &|_| None).expect("accepted").routes.len(), 3);
}

#[test]
fn invalid_toml_is_refused_with_its_lines_and_nothing_else() {
    assert_refused(
        "[dns]\nttl = \n",
        "f:2:7: `ttl =` is not TOML: ",
        "string values must be quoted",
    );
    assert_refused(
        "[[routes]]\nsource = a.internal",
        "f:2:10: `source = a.internal` is not TOML: ",
        "string values must be quoted",
    );
    assert_refused("[dns]\nttl = 1\nttl = 2", "f:3:1: `ttl = 2` is not TOML", "duplicate key");
    assert_refused("[dns\nttl = 1", "f:1:5: `[dns` is not TOML: ", "unclosed table, expected `]`");
    let several =
        problems("[dns]\nttl = \nlisten = [\"x\"\n[pool]\nipv4 = \"198.18.0.0/16\nunknown = 1");
    assert!(
        several.len() > 1 && several.iter().all(|problem| !problem.contains("key `")),
        "{several:#?}"
    );
}

#[test]
fn every_problem_is_reported_at_once_in_file_order() {
    let text = r#"
[agent]
admin = "x"
stat_dir = "/x"
[pool]
ipv4 = "10.0.0.1/16"
[dns]
listen = ["127.0.0.1", "127.0.0.1:53", 7]
ttl = "x"
[[routes]]
source = "a"
destination = "lb:1"
ports = ["443", "x", "80:", "443:1"]
source_ips = "198.51.100.1"
idle_timeout = "3"
[[routes]]
source = "A"
surce = "b"
"#;
    let problems = problems(text);
    let starts: Vec<_> =
        problems.iter().map(|problem| problem.split("`: ").next().unwrap_or_default()).collect();
    assert_eq!(
        starts,
        [
            "f:3:9: key `agent.admin",
            "f:4:1: key `agent.stat_dir",
            "f:6:8: key `pool.ipv4",
            "f:8:11: key `dns.listen[0]",
            "f:8:40: key `dns.listen[2]",
            "f:9:7: key `dns.ttl",
            "f:12:15: key `routes[0].destination",
            "f:13:17: key `routes[0].ports[1]",
            "f:13:22: key `routes[0].ports[2]",
            "f:13:29: key `routes[0].ports[3]",
            "f:14:14: key `routes[0].source_ips",
            "f:15:16: key `routes[0].idle_timeout",
            "f:16:1: key `routes[1].destination",
            "f:17:10: key `routes[1].source",
            "f:18:1: key `routes[1].surce",
        ],
        "{problems:#?}"
    );
}
