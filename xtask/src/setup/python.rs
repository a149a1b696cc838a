//! Python packages in private environments, separate from the machine's.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context as _;
use testbed::{capture, packages::PYPI, workspace};

use crate::progress::Step;

/// Written last: the requirements of a complete environment.
const STAMP: &str = "requirements.txt";

/// A private environment.
#[derive(Debug)]
pub(super) struct Environment {
    home: PathBuf,
    /// Its content, for messages.
    content: String,
    requirements: String,
    options: &'static [&'static str],
}

/// The environments that are not complete.
pub(super) fn missing() -> Vec<Environment> {
    [Environment::of_the_test_bed(), Environment::of_the_chart()]
        .into_iter()
        .filter(|environment| !environment.is_complete())
        .collect()
}

/// Whether Python can make an environment; Debian has a separate package for that.
pub(super) fn can_make() -> bool {
    capture::capture(Command::new("python3").args(["-c", "import ensurepip, venv"]), |_| {})
        .is_ok_and(|finished| finished.status.success())
}

impl Environment {
    fn of_the_test_bed() -> Self {
        Self {
            home: workspace::python_home(),
            content: PYPI.join(", "),
            requirements: PYPI.join("\n"),
            options: &[],
        }
    }

    /// Pinned by hash: Helm's package is not from Helm's authors. It asks for a newer Python than
    /// Debian's, and works with it.
    fn of_the_chart() -> Self {
        Self {
            home: workspace::chart_python_home(),
            content: "Helm's engine and Kubernetes' schemas".to_owned(),
            requirements: include_str!("../../tests/chart/requirements.txt").to_owned(),
            options: &[
                "--require-hashes",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--ignore-requires-python",
            ],
        }
    }

    fn is_complete(&self) -> bool {
        fs::read_to_string(self.home.join(STAMP)).is_ok_and(|stamp| stamp == self.requirements)
    }

    /// What it is, and where.
    pub(super) fn description(&self) -> String {
        format!("a Python environment with {} in {}", self.content, self.home.display())
    }

    /// Removes what is there, and makes it.
    pub(super) fn install(&self) -> anyhow::Result<()> {
        let Self { home, content, requirements, options } = self;
        let step = Step::start(format!("installing {content} from PyPI"));
        if home.exists() {
            fs::remove_dir_all(home)
                .with_context(|| format!("failed to remove {}", home.display()))?;
        }
        capture::run(Command::new("python3").args(["-m", "venv"]).arg(home), |line| {
            step.note(line);
        })?;
        let file = tempfile::NamedTempFile::new().context("failed to make a file")?;
        fs::write(file.path(), requirements).context("failed to write the requirements")?;
        capture::run(
            Command::new(home.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(*options)
                .arg("-r")
                .arg(file.path()),
            |line| step.note(line),
        )?;
        let stamp = home.join(STAMP);
        fs::write(&stamp, requirements)
            .with_context(|| format!("failed to write {}", stamp.display()))?;
        step.done_with(&home.display().to_string());
        Ok(())
    }
}
