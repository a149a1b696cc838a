//! Which pods are redirected, as far as the API server has named them.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use crate::{
    config::PodSelector,
    control::api::PodsInfo,
    host,
    kubernetes::{Pod, Pods},
};

/// The pods of this node, from the task that follows them.
#[derive(Debug)]
pub(crate) struct PodScope {
    /// None outside Kubernetes, or without access to its API.
    receiver: Option<watch::Receiver<Option<Arc<Pods>>>>,
    pods: Option<Arc<Pods>>,
}

impl PodScope {
    pub(crate) fn new(receiver: Option<watch::Receiver<Option<Arc<Pods>>>>) -> Self {
        let mut scope = Self { receiver, pods: None };
        scope.take();
        scope
    }

    /// Returns when the pods are listed, or nobody lists them.
    pub(crate) async fn listed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            let _ = receiver.wait_for(Option::is_some).await;
        }
        self.take();
    }

    /// The pods, for others that need their names.
    pub(crate) fn receiver(&self) -> Option<watch::Receiver<Option<Arc<Pods>>>> {
        self.receiver.clone()
    }

    /// Returns when the pods have changed.
    pub(crate) async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver
            && receiver.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Takes the pods as they are now.
    pub(crate) fn take(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            self.pods = receiver.borrow_and_update().clone();
        }
    }

    /// Whether the cgroups of single pods are attached, instead of that of all pods.
    pub(crate) fn is_known(&self) -> bool {
        self.pods.is_some()
    }

    /// Whether the pod with this UID is redirected. One that the API server has not named yet waits
    /// for its name, unless the API server does not answer: an outage stops no job.
    pub(crate) fn selects(&self, selector: &PodSelector, uid: &str) -> bool {
        let Some(pods) = &self.pods else { return true };
        pods.objects.get(uid).map_or(pods.error.is_some(), |pod| is_selected(selector, pod))
    }

    /// The interfaces of this host that lead to pods that are not redirected.
    pub(crate) fn left_out_interfaces(&self, selector: &PodSelector) -> BTreeSet<u32> {
        let pods = self.pods.iter().flat_map(|pods| pods.objects.values());
        let left_out = pods.filter(|pod| !is_selected(selector, pod));
        let addresses = left_out.flat_map(|pod| &pod.addresses);
        addresses.filter_map(|address| host::interface_towards(*address).ok().flatten()).collect()
    }

    /// What `status` shows; none without access to the API.
    pub(crate) fn view(&self, selector: &PodSelector) -> Option<PodsInfo> {
        let pods = self.pods.as_ref()?;
        let selected = pods.objects.values().filter(|pod| is_selected(selector, pod)).count();
        let left_out = pods.objects.len() - selected;
        Some(PodsInfo { selected, left_out, error: pods.error.clone() })
    }
}

fn is_selected(selector: &PodSelector, pod: &Pod) -> bool {
    selector.selects(&pod.namespace, &pod.name, &pod.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(error: Option<&str>) -> PodScope {
        let pod = |uid: &str, namespace: &str| Pod {
            uid: uid.into(),
            namespace: namespace.into(),
            ..Pod::default()
        };
        let pods = [pod("job", "default"), pod("dns", "kube-system")];
        let objects = pods.map(|pod| (pod.uid.clone(), Arc::new(pod))).into();
        let pods = Pods { objects, error: error.map(str::to_owned) };
        PodScope { receiver: None, pods: Some(Arc::new(pods)) }
    }

    #[test]
    fn an_unknown_pod_waits_for_its_name_but_not_for_a_broken_api() {
        let selector = PodSelector::default();
        let decide =
            |scope: &PodScope| ["job", "dns", "new"].map(|uid| scope.selects(&selector, uid));
        assert_eq!(decide(&scope(None)), [true, false, false]);
        assert_eq!(decide(&scope(Some("no answer"))), [true, false, true]);
        assert_eq!(decide(&PodScope::new(None)), [true, true, true]);
        let view = scope(None).view(&selector);
        assert_eq!(view, Some(PodsInfo { selected: 1, left_out: 1, error: None }));
    }
}
