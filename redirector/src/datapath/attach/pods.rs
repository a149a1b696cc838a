//! The cgroups of single pods below those that the kubelet makes for all.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::datapath::attach::globs::subfolders;

/// Levels between the kubelet's cgroup and a pod's: the class of its quality of service.
const LEVELS: usize = 2;

/// The UID in `pod<uid>` (cgroupfs) or `kubepods-burstable-pod<uid>.slice` (systemd, which writes
/// `_` for `-`).
pub fn pod_uid(directory: &str) -> Option<String> {
    let name = directory.strip_suffix(".slice").unwrap_or(directory);
    let from = name.rfind("pod").filter(|&at| at == 0 || name[..at].ends_with('-'))?;
    let uid = name[from + 3..].replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uid.then_some(uid)
}

/// The pods' directories below the kubelet's cgroup, and those in which they appear.
#[derive(Debug, Default)]
pub(super) struct PodCgroups {
    /// With their UIDs.
    pub(super) pods: Vec<(String, PathBuf)>,
    /// The kubelet's cgroup and those of the classes.
    pub(super) parents: Vec<PathBuf>,
}

impl PodCgroups {
    /// # Errors
    ///
    /// If it is unknown which there are.
    pub(super) fn below(kubelet: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let mut level = vec![kubelet.to_owned()];
        for _ in 0..LEVELS {
            let folders: Vec<_> =
                level.iter().map(|at| subfolders(at)).collect::<Result<_, _>>()?;
            found.parents.append(&mut level);
            for folder in folders.into_iter().flatten() {
                match folder.file_name().and_then(|name| pod_uid(&name.to_string_lossy())) {
                    Some(uid) => found.pods.push((uid, folder)),
                    None => level.push(folder),
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UID: &str = "0f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";

    #[test]
    fn pods_are_found_in_every_class_and_driver() {
        let mount = tempfile::tempdir().expect("a directory");
        let slice = UID.replace('-', "_");
        for folder in [
            format!("kubepods/pod{UID}/container"),
            format!("kubepods/burstable/pod{UID}/container"),
            "kubepods/besteffort".to_owned(),
            format!("kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-1.scope"),
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice"
            ),
        ] {
            fs::create_dir_all(mount.path().join(folder)).expect("made");
        }
        let below = |kubelet| PodCgroups::below(&mount.path().join(kubelet)).expect("known");
        let cgroupfs = below("kubepods");
        assert_eq!((cgroupfs.pods.len(), cgroupfs.parents.len()), (2, 3));
        let systemd = below("kubepods.slice");
        assert_eq!((systemd.pods.len(), systemd.parents.len()), (2, 2));
        assert!(cgroupfs.pods.iter().chain(&systemd.pods).all(|(uid, _)| uid == UID));
        assert!(below("none").pods.is_empty());
    }

    #[test]
    fn only_the_name_of_a_pods_directory_has_a_uid() {
        for name in ["kubepods", "podjob", "kubepods-burstable.slice", "pod", "container"] {
            assert_eq!(pod_uid(name), None, "{name}");
        }
        // A static pod has the hash of its manifest.
        let hash = "0123456789abcdef".repeat(2);
        assert_eq!(pod_uid(&format!("pod{hash}")), Some(hash));
    }
}
