//! The Helm chart: what Helm's engine says of it, what it renders with several values, and that
//! nothing in it or beside it is a copy that differs.

mod helm;
mod rules;

use std::{collections::BTreeSet, fs};

use helm::{Rendered, helm, lint, render, validate};
use serde_json::{Value, json};
use testbed::workspace;

/// The files of values in the chart's `ci`, each for another shape.
const VALUES: [&str; 4] = ["manifest", "everything", "cluster", "unload"];
/// The newest versions of Kubernetes, by their minor numbers.
const VERSIONS: std::ops::RangeInclusive<u32> = 29..=37;

fn read(path: &str) -> String {
    let path = workspace::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn agent(rendered: &Rendered) -> Value {
    rendered.of_kind("DaemonSet")["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn helm_lint_has_no_complaint() {
    let report = lint();
    assert_eq!(report["TotalChartsLinted"], 1, "{report}");
    assert_eq!(report["Errors"], Value::Null, "{report}");
    // Severity 1 is information: the chart has no icon.
    let worst = report["Messages"].as_array().unwrap().iter().map(|one| &one["Severity"]);
    assert!(worst.clone().all(|severity| *severity == 1), "{report}");
}

#[test]
fn the_manifest_is_what_the_chart_renders() {
    let manifest = read("deploy/daemonset.yaml");
    let (header, rest) = manifest.split_once("apiVersion").unwrap();
    let wanted = format!("{header}{}", render(Some("manifest")).text_without_tests());
    if std::env::var_os("REDIRECTOR_BLESS").is_some() {
        fs::write(workspace::root().join("deploy/daemonset.yaml"), &wanted).unwrap();
        return;
    }
    assert!(
        manifest == wanted,
        "deploy/daemonset.yaml differs from the chart at {:?}: REDIRECTOR_BLESS=1 cargo test -p \
            xtask --test chart",
        rest.lines().find(|line| !wanted.contains(line))
    );
}

/// Kustomize reads no file outside of its folder, so its bases are copies.
#[test]
fn the_bases_of_kustomize_are_what_the_chart_renders() {
    for (base, values) in [("base", "manifest"), ("cluster", "cluster"), ("unload", "unload")] {
        let base = format!("deploy/kustomize/{base}/redirector.yaml");
        let rendered = render(Some(values)).text_without_tests();
        if std::env::var_os("REDIRECTOR_BLESS").is_some() {
            fs::write(workspace::root().join(&base), &rendered).unwrap();
            continue;
        }
        assert!(
            read(&base) == rendered,
            "{base} differs from the chart: REDIRECTOR_BLESS=1 cargo test -p xtask --test chart"
        );
    }
}

#[test]
fn the_controller_has_the_least_rights_and_two_replicas() {
    assert!(render(None).objects_of_kind("Deployment").is_empty());
    let rendered = render(Some("cluster"));
    let spec = |kind: &str| {
        let named = rendered.objects_of_kind(kind).into_iter();
        let mut named =
            named.filter(|object| object["metadata"]["name"] == "redirector-controller");
        named.next().unwrap_or_else(|| panic!("no {kind}")).clone()
    };
    let deployment = spec("Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!((&pod["hostNetwork"], &pod["volumes"]), (&Value::Null, &Value::Null));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["args"], json!(["controller"]));
    assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(spec("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    let status = &spec("ClusterRole")["rules"];
    assert_eq!(status[0]["verbs"], json!(["list", "watch"]));
    assert_eq!(status[1]["resources"], json!(["redirectroutes/status"]));
    assert_eq!(status.as_array().map(Vec::len), Some(2));
    // The Lease is the chart's: the right to create one cannot be limited to a name, and a rendered
    // `spec` would reset its holder.
    assert_eq!(spec("Lease")["spec"], Value::Null);
    let own = &spec("Role")["rules"];
    let lease = json!({
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["redirector-controller"],
        "verbs": ["get", "update"]
    });
    assert_eq!((&own[2], own.as_array().map(Vec::len)), (&lease, Some(3)));
    let roles = rendered.objects_of_kind("Role");
    let agent = roles.iter().find(|role| role["metadata"]["name"] == "redirector").unwrap();
    let (group, slices) = (["redirector.dev"], ["redirectrouteslices"]);
    let rules = [
        json!({"apiGroups": group, "resources": slices, "verbs": ["list", "watch"]}),
        json!({"apiGroups": group, "resources": ["redirectnodes"], "verbs": ["create", "patch"]}),
    ];
    assert_eq!(agent["rules"], json!(rules));
    let refused = helm::try_render(&json!({
        "controller": {"enabled": true}, "api": {"enabled": false}
    }));
    assert!(refused.unwrap_err().contains("controller.enabled needs api.enabled"));
}

/// Where Kubernetes has such policies. Another test evaluates the expressions.
#[test]
fn an_agent_writes_the_report_of_its_own_node_only() {
    let kind = "ValidatingAdmissionPolicy";
    assert!(render(Some("cluster")).objects_of_kind(kind).is_empty());
    let rendered = render(Some("everything"));
    let policy = &rendered.objects_of_kind(kind)[0]["spec"];
    assert_eq!(
        policy["matchConstraints"]["resourceRules"][0]["resources"],
        json!(["redirectnodes"])
    );
    let bindings = rendered.objects_of_kind("ValidatingAdmissionPolicyBinding");
    assert_eq!(bindings[0]["spec"]["validationActions"], json!(["Deny"]));
}

/// The definitions are those of the binary, which stay after `helm uninstall`.
#[test]
fn the_custom_resources_are_rendered_and_kept() {
    let rendered = render(Some("cluster"));
    let definitions = rendered.objects_of_kind("CustomResourceDefinition");
    assert_eq!(definitions.len(), 3);
    for definition in definitions {
        let annotations = &definition["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep", "{definition}");
    }
}

#[test]
fn the_kustomizations_name_files_that_exist() {
    for (name, kind) in [
        ("base", "Kustomization"),
        ("cluster", "Kustomization"),
        ("component", "Component"),
        ("example", "Kustomization"),
        ("unload", "Kustomization"),
    ] {
        let folder = format!("deploy/kustomize/{name}");
        let file: Value =
            serde_yaml_ng::from_str(&read(&format!("{folder}/kustomization.yaml"))).unwrap();
        assert_eq!(file["kind"], kind, "{folder}");
        let paths = [&file["resources"], &file["components"]];
        let paths: Vec<_> = paths.iter().filter_map(|paths| paths.as_array()).flatten().collect();
        assert!(!paths.is_empty(), "{folder}");
        for path in paths {
            let path = workspace::root().join(&folder).join(path.as_str().unwrap());
            assert!(path.exists(), "{}", path.display());
        }
    }
    let example: Value =
        serde_yaml_ng::from_str(&read("deploy/kustomize/example/kustomization.yaml")).unwrap();
    let patch: Value =
        serde_yaml_ng::from_str(example["patches"][0]["patch"].as_str().unwrap()).unwrap();
    assert_eq!(patch[0]["path"], "/data/redirector.toml");
    let table: toml::Table = patch[0]["value"].as_str().unwrap().parse().unwrap();
    assert_eq!(table["routes"].as_array().map(Vec::len), Some(1));
    let rendered = render(Some("manifest"));
    assert!(rendered.of_kind("ConfigMap")["data"]["redirector.toml"].is_string());
    let image = agent(&rendered)["image"].as_str().unwrap().to_owned();
    assert!(image.starts_with(&format!("{}:", example["images"][0]["name"].as_str().unwrap())));
}

#[test]
fn the_example_of_a_network_policy_fits_the_schemas() {
    let policy: Value =
        serde_yaml_ng::from_str(&read("deploy/networkpolicy-example.yaml")).unwrap();
    for minor in VERSIONS {
        validate(std::slice::from_ref(&policy), minor).unwrap();
    }
}

#[test]
fn every_rendered_object_fits_the_schemas_of_kubernetes() {
    for values in VALUES {
        let rendered = render(Some(values));
        for minor in VERSIONS {
            let objects = rendered.of_kubernetes(minor);
            assert!(objects.len() >= 3, "{values}");
            validate(&objects, minor)
                .unwrap_or_else(|error| panic!("{values}, 1.{minor}: {error}"));
        }
    }
    let mut wrong = render(None).of_kubernetes(34);
    let daemonset = wrong.iter_mut().find(|object| object["kind"] == "DaemonSet").unwrap();
    daemonset["spec"]["template"]["spec"]["hostNetwerk"] = json!(true);
    let error = validate(&wrong, 34).unwrap_err();
    assert!(error.contains("hostNetwerk"), "{error}");
}

#[test]
fn the_configuration_has_the_values_with_their_types() {
    let values: Value = serde_yaml_ng::from_str(&read(&helm("ci/everything-values.yaml"))).unwrap();
    let rendered = render(Some("everything"));
    let text =
        rendered.of_kind("ConfigMap")["data"]["redirector.toml"].as_str().unwrap().to_owned();
    let table: toml::Table = text.parse().unwrap();
    let table = serde_json::to_value(table).unwrap();
    assert_eq!(table["routes"], values["routes"]);
    for (section, keys) in values["config"].as_object().unwrap() {
        for (key, value) in keys.as_object().unwrap() {
            assert_eq!(table[section][key], *value, "{section}.{key}");
        }
    }
    // A section that only the defaults have a key of is merged.
    assert_eq!(table["dns"]["listen"], json!(["169.254.20.53:53"]));
}

/// deploy/redirector.toml lists every key.
#[test]
fn the_schema_of_the_values_has_every_key_of_the_file() {
    let mut documented = BTreeSet::new();
    let mut section = String::new();
    for line in read("deploy/redirector.toml").lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.trim_start_matches('[').to_owned();
        } else if let Some((key, _)) = line.split_once('=')
            && key.trim().chars().all(|c| c.is_ascii_lowercase() || "_46".contains(c))
        {
            documented.insert(format!("{section}.{}", key.trim()));
        }
    }
    let schema: Value = serde_json::from_str(&read(&helm("values.schema.json"))).unwrap();
    let mut known = BTreeSet::new();
    let mut add = |section: &str, properties: &Value| {
        known.extend(properties.as_object().unwrap().keys().map(|key| format!("{section}.{key}")));
    };
    for (section, keys) in schema["properties"]["config"]["properties"].as_object().unwrap() {
        add(section, &keys["properties"]);
    }
    add("routes", &schema["properties"]["routes"]["items"]["properties"]);
    add("", &json!({"wildcards": schema["properties"]["wildcards"]}));
    assert_eq!(known, documented);
}

#[test]
fn values_that_the_schema_forbids_are_refused_by_name() {
    for (values, complaint) in [
        (json!({"confg": {}}), "confg"),
        (json!({"config": {"dns": {"ttl": "5"}}}), "ttl"),
        (json!({"routes": [{"source": "a.internal"}]}), "destination"),
        (json!({"image": {"digest": "latest"}}), "digest"),
        (json!({"metrics": {"podMonitor": {"enabled": true}}}), "metrics.onHostIP"),
    ] {
        let error = helm::try_render(&values).unwrap_err();
        assert!(error.contains(complaint), "{values}: {error}");
    }
}

#[test]
fn no_values_give_another_capability_or_mount() {
    let usual = agent(&render(None));
    assert_eq!(
        usual["securityContext"]["capabilities"],
        json!({"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "NET_BIND_SERVICE"]})
    );
    let everything = agent(&render(Some("everything")));
    let unload = render(Some("unload")).of_kind("DaemonSet")["spec"]["template"]["spec"].clone();
    assert_eq!(unload["initContainers"][0]["args"], json!(["unload", "--purge"]));
    for other in [&everything, &unload["initContainers"][0]] {
        assert_eq!(other["securityContext"], usual["securityContext"]);
        let mounts = usual["volumeMounts"].as_array().unwrap();
        assert_eq!(other["volumeMounts"].as_array().unwrap()[..mounts.len()], mounts[..]);
    }
    let (image, digest) = everything["image"].as_str().unwrap().split_once('@').unwrap();
    assert_eq!(image, "registry.example/tools/redirector");
    assert!(digest.starts_with("sha256:"));
}

/// A route that does not resolve makes `status` fail, and must neither stop a rollout nor restart
/// the agent.
#[test]
fn the_probes_ask_only_whether_the_pods_agent_is_ready() {
    let agent = agent(&render(None));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert_eq!(agent[probe]["exec"]["command"], json!(["redirector", "ready"]));
    }
}

/// The old pod ends when the new one is ready: both are on the node's network until then.
#[test]
fn an_upgrade_runs_a_second_pod_beside_the_first() {
    for values in [None, Some("everything")] {
        let rendered = render(values);
        let spec = rendered.of_kind("DaemonSet")["spec"].clone();
        let update = json!({"maxSurge": 1, "maxUnavailable": 0});
        assert_eq!(spec["updateStrategy"]["rollingUpdate"], update);
        assert_eq!(spec["minReadySeconds"], 10);
        let agent = agent(&rendered);
        assert_eq!((&agent["args"], &agent["ports"]), (&json!(["run", "--standby"]), &Value::Null));
    }
    let spec = render(Some("unload")).of_kind("DaemonSet")["spec"].clone();
    assert_eq!(spec["updateStrategy"]["rollingUpdate"], json!({"maxUnavailable": "100%"}));
}

#[test]
fn the_tools_are_privileged_only_where_they_are_asked_for() {
    let kinds = |rendered: &Rendered| rendered.objects_of_kind("DaemonSet").len();
    assert_eq!((kinds(&render(None)), kinds(&render(Some("unload")))), (1, 1));
    let everything = render(Some("everything"));
    assert_eq!(kinds(&everything), 2);
    let tools = &everything.named("redirector-tools")["spec"]["template"]["spec"];
    assert_eq!(tools["hostPID"], true);
    assert_eq!(tools["containers"][0]["securityContext"], json!({"privileged": true}));
    let spec = &everything.of_kind("DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(spec["hostPID"], Value::Null);
}

#[test]
fn the_authorities_come_from_the_host_or_a_config_map() {
    const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
    let mount_and_volume = |values: Value| {
        let text = helm::try_render(&values).unwrap();
        let rendered = Rendered::of(&text);
        let spec = rendered.of_kind("DaemonSet")["spec"]["template"]["spec"].clone();
        let find = |list: &Value, key: &str, value: &str| {
            list.as_array().unwrap().iter().find(|one| one[key] == value).cloned()
        };
        let mount = find(&spec["containers"][0]["volumeMounts"], "mountPath", BUNDLE);
        (mount, find(&spec["volumes"], "name", "ca-bundle"))
    };
    let (mount, volume) = mount_and_volume(json!({"caBundle": {"hostPath": "/etc/pki/b.crt"}}));
    assert_eq!(mount.unwrap()["subPath"], Value::Null);
    assert_eq!(volume.unwrap()["hostPath"], json!({"path": "/etc/pki/b.crt", "type": "File"}));
    let (mount, volume) = mount_and_volume(json!({"caBundle": {"configMap": "authorities"}}));
    assert_eq!(mount.unwrap()["subPath"], "ca.crt");
    assert_eq!(volume.unwrap()["configMap"]["name"], "authorities");
    assert_eq!(mount_and_volume(json!({})), (None, None));
}

#[test]
fn pods_have_what_the_values_add() {
    let values: Value = serde_yaml_ng::from_str(&read(&helm("ci/everything-values.yaml"))).unwrap();
    let rendered = render(Some("everything"));
    let template = |object: &Value| object["spec"]["template"]["spec"].clone();
    let spec = template(rendered.of_kind("DaemonSet"));
    let tools = template(rendered.named("redirector-tools"));
    let test = &rendered.named("redirector-test")["spec"];
    for pod in [&spec, &tools, test] {
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
        assert_eq!(pod["nodeSelector"]["pool"], "executors");
        assert_eq!(pod["tolerations"], values["tolerations"]);
    }
    let controller = template(rendered.objects_of_kind("Deployment")[0]);
    assert_eq!(controller["imagePullSecrets"], values["imagePullSecrets"]);
    assert_eq!(controller["tolerations"], values["controller"]["tolerations"]);
    let agent = agent(&rendered);
    for (list, added) in [
        (&agent["env"], &values["extraEnv"]),
        (&agent["volumeMounts"], &values["extraVolumeMounts"]),
        (&spec["volumes"], &values["extraVolumes"]),
    ] {
        assert!(list.as_array().unwrap().contains(&added[0]), "{list}");
    }
}

/// The pod declares no port, so the PodMonitor makes the address that the agent listens on.
#[test]
fn prometheus_scrapes_where_the_agent_listens() {
    let rendered = render(Some("everything"));
    let monitor = rendered.of_kind("PodMonitor");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let labels = &rendered.of_kind("DaemonSet")["spec"]["template"]["metadata"]["labels"];
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(labels[label], *value);
    }
    let address = json!({
        "sourceLabels": ["__meta_kubernetes_pod_host_ip"],
        "replacement": "$1:9464",
        "targetLabel": "__address__"
    });
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["interval"], &endpoint["relabelings"][1]), (&json!("30s"), &address));
    let agent = agent(&rendered);
    let env = agent["env"].as_array().unwrap();
    let position = |name: &str| env.iter().position(|variable| variable["name"] == name).unwrap();
    // A variable may use those before it.
    let (host, admin) = (position("HOST_IP"), position("REDIRECTOR_AGENT_ADMIN"));
    assert!(host < admin);
    assert_eq!(env[host]["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
    assert_eq!(env[admin]["value"], "$(HOST_IP):9464");
}

#[test]
fn the_role_has_what_the_values_ask_for_and_no_more() {
    let rules = |rendered: &Rendered| {
        let roles = rendered.objects_of_kind("ClusterRole");
        let agent = roles.iter().find(|role| role["metadata"]["name"] == "redirector");
        agent.map(|role| role["rules"].clone())
    };
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]});
    let nodes = json!({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]});
    assert_eq!(rules(&render(None)), Some(json!([pods])));
    assert_eq!(rules(&render(Some("everything"))), Some(json!([pods, nodes])));
    let spec =
        |rendered: &Rendered| rendered.of_kind("DaemonSet")["spec"]["template"]["spec"].clone();
    assert_eq!(spec(&render(None))["automountServiceAccountToken"], true);
    let without = helm::try_render(&json!({"api": {"enabled": false}})).unwrap();
    for rendered in [Rendered::of(&without), render(Some("unload"))] {
        assert_eq!(rules(&rendered), None);
        assert!(rendered.objects_of_kind("ClusterRoleBinding").is_empty());
        assert_eq!(spec(&rendered)["automountServiceAccountToken"], false);
    }
}

#[test]
fn rules_and_dashboard_are_those_of_the_repository() {
    let rendered = render(Some("everything"));
    let rules: Value = serde_yaml_ng::from_str(&read("deploy/alerts.yaml")).unwrap();
    assert_eq!(rendered.of_kind("PrometheusRule")["spec"], rules);
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana-dashboard.json")).unwrap();
    let text = rendered.named("redirector-dashboard")["data"]["redirector.json"].clone();
    assert_eq!(serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap(), dashboard);
}

#[test]
fn without_routes_the_file_says_that_there_are_none() {
    let rendered = render(None);
    let text = rendered.of_kind("ConfigMap")["data"]["redirector.toml"].as_str().unwrap();
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["routes"].as_array().map(Vec::len), Some(0), "{text}");
}

#[test]
fn notes_and_test_name_what_is_installed() {
    let rendered = render(Some("manifest"));
    for line in ["exec ds/redirector -- redirector verify NAME", "verify NAME --pid PID"] {
        assert!(rendered.notes.contains(line), "{}", rendered.notes);
    }
    assert!(rendered.notes.contains("explain \"artifactory.internal.company.net\""));
    let notes = render(Some("everything")).notes;
    let label = "namespace kube-system pod-security.kubernetes.io/enforce=privileged";
    assert!(notes.contains(&format!("kubectl label {label}")), "{notes}");
    let test = rendered.named("redirector-test");
    assert_eq!(test["metadata"]["annotations"]["helm.sh/hook"], "test");
    assert_eq!(test["spec"]["containers"][0]["args"], json!(["status"]));
}
