//! Every way in which a job, a build or dockerd itself connects.

use anyhow::{Context as _, Result, ensure};
use executor_vm::Vm;
use testbed::topology::INTERNAL_NAME;

use crate::{
    checks::Checks,
    installed::{attached_is, attached_once_is},
};

/// A container, and who looks the name up for it.
const CONTAINERS: [(&str, &str); 3] = [
    ("docker run on the default bridge", "--network bridge"),
    ("docker run on a user network", "--network user"),
    ("docker run on the host's network", "--network host"),
];

/// Builds, by their builder and the network of `RUN`.
const BUILDS: [(&str, &str); 3] = [
    ("docker build (BuildKit)", "DOCKER_BUILDKIT=1 docker build --progress plain"),
    (
        "docker build (BuildKit) on the host's network",
        "DOCKER_BUILDKIT=1 docker build --progress plain --network host",
    ),
    ("docker build (classic)", "DOCKER_BUILDKIT=0 docker build"),
];

/// With what is attached now.
pub(crate) fn are_redirected(checks: &mut Checks, vm: &Vm) {
    checks.check("a service of the machine", || fetched(&vm.ok("bash /root/fetch")?));
    containers(checks, vm);
    for (name, command) in BUILDS {
        checks.check(name, || build(vm, command));
    }
    registry(checks, vm);
    compose(checks, vm);
    checks.check("after all jobs, the same parent is attached", || {
        attached_once_is(vm, "system.slice")
    });
}

/// With Docker's other cgroup driver.
pub(crate) fn are_redirected_with_cgroupfs(checks: &mut Checks, vm: &Vm) {
    checks.check("Docker restarts with the cgroup driver cgroupfs", || {
        let options = r#"{\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]}"#;
        vm.ok(&format!("echo \"{options}\" >/etc/docker/daemon.json"))?;
        vm.ok("systemctl restart docker")?;
        let driver = vm.ok("docker info --format '{{.CgroupDriver}}'")?;
        ensure!(driver == "cgroupfs", "the driver is {driver}");
        Ok(String::new())
    });
    containers(checks, vm);
    checks.check(BUILDS[0].0, || build(vm, BUILDS[0].1));
    checks.check("both parents are attached", || attached_is(vm, &["docker", "system.slice"]));
}

fn containers(checks: &mut Checks, vm: &Vm) {
    for (name, options) in CONTAINERS {
        checks.check(name, || {
            let line = fetched(&vm.ok(&format!("docker run --rm {options} job bash /fetch"))?)?;
            let is_dockers = line.starts_with("127.0.0.11 ");
            ensure!(is_dockers == options.ends_with("user"), "another resolver: {line}");
            Ok(line)
        });
    }
}

fn build(vm: &Vm, command: &str) -> Result<String> {
    let file = "FROM job\\nRUN [\\\"bash\\\", \\\"/fetch\\\"]\\n";
    fetched(&vm.ok(&format!("printf \"{file}\" | {command} --no-cache -"))?)
}

fn registry(checks: &mut Checks, vm: &Vm) {
    let image = format!("{INTERNAL_NAME}/team/job:1.0");
    checks.check("docker login", || {
        vm.ok(&format!(
            "echo secret | docker login --username team --password-stdin {INTERNAL_NAME}"
        ))
        .map(|_| String::new())
    });
    checks.check("docker push", || {
        vm.ok(&format!("docker tag job {image} && docker push --quiet {image}"))
    });
    checks.check("docker pull", || {
        vm.ok(&format!("docker rmi {image} >/root/removed && docker pull --quiet {image}"))
    });
    checks.check("docker build from an image of the registry", || {
        vm.ok(&format!("docker rmi {image}"))?;
        let build = "DOCKER_BUILDKIT=1 docker build --progress plain --pull --no-cache -";
        vm.ok(&format!("echo FROM {image} | {build}")).map(|_| String::new())
    });
}

fn compose(checks: &mut Checks, vm: &Vm) {
    checks.check("docker compose on its own network", || {
        let compose = "docker compose --file /root/compose.yaml --ansi never";
        let up = vm.ok(&format!(
            "{compose} up --exit-code-from job; status=$?; \
            {compose} down --timeout 1; exit $status"
        ))?;
        let line = fetched(&up)?;
        ensure!(line.starts_with("127.0.0.11 "), "another resolver: {line}");
        Ok(line)
    });
}

/// What the script `fetch` reports in a command's output.
fn fetched(output: &str) -> Result<String> {
    let found = output.lines().rev().find_map(|line| line.split_once("fetched: "));
    let (_, line) = found.with_context(|| format!("nothing was fetched: {output}"))?;
    Ok(line.to_owned())
}
