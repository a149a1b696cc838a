//! Which pods are redirected, as far as the API server names them.

use std::collections::BTreeMap;

use super::globs::is_match;

/// Which pods of the node are redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSelector {
    /// Globs of namespaces. One with `!` leaves namespaces out; without any other, all others are
    /// selected.
    pub namespaces: Vec<String>,
    /// Globs of names.
    pub names: Vec<String>,
    /// `key=value`; a pod is selected if it has one of them, or one of the names. Without names and
    /// labels every pod of the namespaces is.
    pub labels: Vec<String>,
}

impl Default for PodSelector {
    fn default() -> Self {
        Self { namespaces: vec!["!kube-system".into()], names: Vec::new(), labels: Vec::new() }
    }
}

impl PodSelector {
    /// Whether a pod is redirected.
    pub fn selects(&self, namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let matches = |globs: &[String], text: &str| globs.iter().any(|glob| is_match(glob, text));
        let has_label = |label: &String| {
            label
                .split_once('=')
                .is_some_and(|(key, value)| labels.get(key).is_some_and(|found| found == value))
        };
        self.admits(namespace)
            && (self.names.is_empty() && self.labels.is_empty()
                || matches(&self.names, name)
                || self.labels.iter().any(has_label))
    }

    fn admits(&self, namespace: &str) -> bool {
        let (excluded, included): (Vec<&String>, Vec<&String>) =
            self.namespaces.iter().partition(|glob| glob.starts_with('!'));
        !excluded.iter().any(|glob| is_match(&glob[1..], namespace))
            && (included.is_empty() || included.iter().any(|glob| is_match(glob, namespace)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &PodSelector, namespace: &str, name: &str, label: Option<&str>) -> bool {
        let label = label.and_then(|label| label.split_once('='));
        let labels = label.map(|(key, value)| (key.to_owned(), value.to_owned()));
        selector.selects(namespace, name, &labels.into_iter().collect())
    }

    #[test]
    fn by_default_only_the_systems_pods_are_left_out() {
        let all = PodSelector::default();
        assert!(selects(&all, "default", "sg-executor-job-batches-7", None));
        assert!(!selects(&all, "kube-system", "coredns-1", Some("k8s-app=kube-dns")));
    }

    #[test]
    fn a_name_or_a_label_selects_within_the_namespaces() {
        let selector = PodSelector {
            namespaces: vec!["exec*".into(), "!executors-old".into()],
            names: vec!["sg-executor-job-*".into()],
            labels: vec!["app=executor".into()],
        };
        for (namespace, name, label, selected) in [
            ("executors", "sg-executor-job-1", None, true),
            ("executors", "executor-0", Some("app=executor"), true),
            ("executors", "executor-0", Some("app=executors"), false),
            ("executors", "other", None, false),
            ("executors-old", "sg-executor-job-1", None, false),
            ("default", "sg-executor-job-1", None, false),
        ] {
            assert_eq!(selects(&selector, namespace, name, label), selected, "{namespace}/{name}");
        }
    }
}
