//! The words of `attach.cgroups` that stand for the cgroups of a product.

use std::fmt;

/// What runs jobs, or fetches what they need. Which cgroups it uses here is up to the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// Pods, whatever the runtime, the cgroup driver and the distribution.
    Kubernetes,
    /// Containers of Docker, also of a Docker in a pod; with systemd, all services of the host.
    Docker,
    /// Containers of Podman, rootless ones included.
    Podman,
    /// Steps of builds.
    Buildkit,
    /// Services of CI runners and of Sourcegraph's executor.
    CiRunners,
    /// The services that pull images.
    ImagePulls,
}

impl Preset {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 6] = [
        Self::Kubernetes,
        Self::Docker,
        Self::Podman,
        Self::Buildkit,
        Self::CiRunners,
        Self::ImagePulls,
    ];

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildkit => "buildkit",
            Self::CiRunners => "ci-runners",
            Self::ImagePulls => "image-pulls",
        }
    }

    /// The preset with this word.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == word)
    }

    /// The preset that a person most likely meant by a word that is none. A path or a glob means
    /// itself.
    pub(super) fn nearest(word: &str) -> Option<&'static str> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !word.bytes().all(is_word) {
            return None;
        }
        let word = word.to_ascii_lowercase().replace('_', "-");
        let words = Self::ALL.into_iter().map(Self::as_str).chain(["auto"]);
        let near = words.map(|known| (strsim::damerau_levenshtein(&word, known), known));
        near.min().filter(|(distance, known)| *distance <= known.len() / 4 + 1).map(|near| near.1)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_nearly_a_preset_is_meant_as_one() {
        for (word, meant) in [
            ("kubernets", Some("kubernetes")),
            ("Docker", Some("docker")),
            ("dockers", Some("docker")),
            ("podmna", Some("podman")),
            ("build-kit", Some("buildkit")),
            ("ci_runners", Some("ci-runners")),
            ("image-pull", Some("image-pulls")),
            ("aut", Some("auto")),
            ("/kubernets", None),
            ("kubepods", None),
            ("kubepods.slice", None),
            ("docker*", None),
            ("jobs", None),
            ("executors", None),
        ] {
            assert_eq!(Preset::nearest(word), meant, "{word}");
        }
    }
}
