//! The namespaces and names of the pods in which processes connect, by their cgroups.

use std::{collections::HashMap, path::Path, sync::Arc};

use tokio::sync::watch;

use crate::{control::api::PodName, datapath::pod_uid, kubernetes::Pods};

/// Pods that are remembered, including those that are gone.
const MAX_REMEMBERED: usize = 4096;

/// The known pods of this node.
#[derive(Debug, Default)]
pub(crate) struct PodNames {
    /// None outside Kubernetes, or without access to its API.
    receiver: Option<watch::Receiver<Option<Arc<Pods>>>>,
    /// By UID: a pod that is gone keeps its name for its last events.
    known: HashMap<String, PodName>,
}

impl PodNames {
    pub(crate) fn new(mut receiver: Option<watch::Receiver<Option<Arc<Pods>>>>) -> Self {
        // The one that it was cloned from may have seen the list already.
        receiver.iter_mut().for_each(watch::Receiver::mark_changed);
        Self { receiver, known: HashMap::new() }
    }

    /// The pod that a cgroup belongs to.
    pub(crate) fn of(&mut self, cgroup: &Path) -> Option<PodName> {
        let receiver = self.receiver.as_mut()?;
        if receiver.has_changed().unwrap_or(false) {
            let pods = receiver.borrow_and_update().clone();
            remember(&mut self.known, pods.as_deref());
        }
        let uid = cgroup.iter().filter_map(|part| pod_uid(part.to_str()?)).next_back()?;
        self.known.get(&uid).cloned()
    }
}

fn remember(known: &mut HashMap<String, PodName>, pods: Option<&Pods>) {
    let Some(pods) = pods else { return };
    if known.len() + pods.objects.len() > MAX_REMEMBERED {
        known.clear();
    }
    known.extend(pods.objects.iter().map(|(uid, pod)| {
        let name = PodName { namespace: pod.namespace.clone(), name: pod.name.clone() };
        (uid.clone(), name)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::Pod;

    const UID: &str = "0f3a7c52-9d1e-4b6a-8c2f-7e5d4a3b2c1d";

    #[test]
    fn a_pod_that_is_gone_keeps_its_name() {
        let pod = Pod {
            uid: UID.into(),
            namespace: "jobs".into(),
            name: "sg-executor-job-1".into(),
            ..Pod::default()
        };
        let pods = Pods { objects: [(UID.to_owned(), Arc::new(pod))].into(), error: None };
        let (sender, receiver) = watch::channel(None);
        let mut names = PodNames::new(Some(receiver));
        let path = format!("/sys/fs/cgroup/kubepods/besteffort/pod{UID}/container");
        assert_eq!(names.of(Path::new(&path)), None);
        for pods in [pods, Pods { objects: std::collections::BTreeMap::new(), error: None }] {
            sender.send_replace(Some(Arc::new(pods)));
            let found = names.of(Path::new(&path)).expect("a name");
            assert_eq!(found.to_string(), "jobs/sg-executor-job-1");
        }
        assert_eq!(names.of(Path::new("/sys/fs/cgroup/docker/1")), None);
        assert_eq!(PodNames::default().of(Path::new(&path)), None);
    }
}
