//! Runs Helm's engine and the schemas' checker, which `cargo xtask setup` installs.

use std::{fs, path::PathBuf, process::Command};

use serde::Deserialize as _;
use serde_json::Value;
use testbed::workspace;

/// The line above the notes in what `helm.py` prints.
const NOTES: &str = "=== NOTES\n";

/// What an installation would create.
pub(crate) struct Rendered {
    text: String,
    objects: Vec<Value>,
    pub(crate) notes: String,
}

/// The path of a file of the chart in the repository.
pub(crate) fn helm(path: &str) -> String {
    format!("deploy/helm/redirector/{path}")
}

fn chart() -> PathBuf {
    workspace::root().join("deploy/helm/redirector")
}

fn tool(program: &str) -> Command {
    let path = workspace::chart_python_home().join("bin").join(program);
    assert!(path.is_file(), "{} is missing: run `cargo xtask setup`", path.display());
    Command::new(path)
}

/// The program's output, or what it complains about.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}

fn engine(verb: &str) -> Command {
    let mut command = tool("python");
    command
        .arg(workspace::root().join("xtask/tests/chart/helm.py"))
        .arg(verb)
        .arg(chart())
        .env("HELM_DRIVER", "memory");
    command
}

/// The report of `helm lint`.
pub(crate) fn lint() -> Value {
    serde_json::from_str(&output(&mut engine("lint")).unwrap()).unwrap()
}

/// Renders with the defaults, or with a file of the chart's `ci`.
pub(crate) fn render(values: Option<&str>) -> Rendered {
    let mut command = engine("render");
    command.args(values.map(|values| chart().join(format!("ci/{values}-values.yaml"))));
    Rendered::of(&output(&mut command).unwrap())
}

/// Renders with these values.
pub(crate) fn try_render(values: &Value) -> Result<String, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values.to_string()).unwrap();
    output(engine("render").arg(file.path()))
}

/// Checks objects against the schemas of Kubernetes 1.`minor`, unknown fields included.
pub(crate) fn validate(objects: &[Value], minor: u32) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tool("kubernetes-validate");
    command.args(["--strict", "-k", &format!("1.{minor}")]);
    for (index, object) in objects.iter().enumerate() {
        let path = folder.path().join(format!("{index}.yaml"));
        fs::write(&path, object.to_string()).unwrap();
        command.arg(path);
    }
    output(&mut command)
}

impl Rendered {
    /// What the engine printed.
    pub(crate) fn of(output: &str) -> Self {
        let (text, notes) = output.split_once(NOTES).unwrap();
        let objects = serde_yaml_ng::Deserializer::from_str(text)
            .map(|document| Value::deserialize(document).unwrap())
            .filter(|object| !object.is_null())
            .collect();
        Self { text: text.to_owned(), objects, notes: notes.to_owned() }
    }

    /// The first object of a kind.
    pub(crate) fn of_kind(&self, kind: &str) -> &Value {
        self.objects
            .iter()
            .rfind(|object| object["kind"] == kind && object["metadata"]["name"] == "redirector")
            .unwrap_or_else(|| panic!("no {kind} was rendered"))
    }

    /// Every object of a kind.
    pub(crate) fn objects_of_kind(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The object with this name.
    pub(crate) fn named(&self, name: &str) -> &Value {
        self.objects
            .iter()
            .find(|object| object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {name} was rendered"))
    }

    /// The objects that Kubernetes 1.`minor` itself knows. The chart asks for the version of a
    /// policy before it makes one.
    pub(crate) fn of_kubernetes(&self, minor: u32) -> Vec<Value> {
        let own = |object: &&Value| {
            let version = object["apiVersion"].as_str().unwrap();
            let is_newer = minor < 30 && version.starts_with("admissionregistration.k8s.io/");
            !is_newer && !version.starts_with("monitoring.coreos.com/")
        };
        self.objects.iter().filter(own).cloned().collect()
    }

    /// The text without Helm's remarks and hooks, and without blank lines.
    pub(crate) fn text_without_tests(&self) -> String {
        let documents = self.text.split("---\n").map(|document| {
            let lines = document.lines().map(str::trim_end);
            lines
                .filter(|line| !line.is_empty() && !line.starts_with("# Source: "))
                .fold(String::new(), |text, line| text + line + "\n")
        });
        let documents: Vec<String> = documents
            .filter(|document| !document.is_empty() && !document.contains("helm.sh/hook"))
            .collect();
        documents.join("---\n")
    }
}
