//! Strongly connected components: the groups whose members all depend on each other.

use std::collections::BTreeMap;

/// The groups of two or more nodes that reach each other, each sorted.
pub(super) fn cycles<N: Ord + Copy>(edges: &BTreeMap<N, Vec<N>>) -> Vec<Vec<N>> {
    let mut nodes: Vec<N> =
        edges.iter().flat_map(|(from, to)| to.iter().chain([from])).copied().collect();
    nodes.sort_unstable();
    nodes.dedup();
    let reached: BTreeMap<N, Vec<N>> =
        nodes.iter().map(|node| (*node, reach(edges, *node))).collect();
    let mut groups: Vec<Vec<N>> = Vec::new();
    for node in &nodes {
        if groups.iter().any(|group| group.contains(node)) {
            continue;
        }
        let group: Vec<N> = reached[node]
            .iter()
            .filter(|other| **other == *node || reached[*other].contains(node))
            .copied()
            .collect();
        if group.len() > 1 {
            groups.push(group);
        }
    }
    groups
}

/// The nodes that can be reached from a node, which include itself only in a cycle; sorted.
fn reach<N: Ord + Copy>(edges: &BTreeMap<N, Vec<N>>, from: N) -> Vec<N> {
    let mut seen = Vec::new();
    let mut waiting = vec![from];
    while let Some(node) = waiting.pop() {
        for next in edges.get(&node).into_iter().flatten() {
            if !seen.contains(next) {
                seen.push(*next);
                waiting.push(*next);
            }
        }
    }
    seen.sort_unstable();
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_that_reach_each_other_are_cycles() {
        let edges = BTreeMap::from([(1, vec![2]), (2, vec![3]), (3, vec![2, 4]), (4, vec![5])]);
        assert_eq!(cycles(&edges), [vec![2, 3]]);
    }

    #[test]
    fn two_separate_cycles_are_two_groups() {
        let edges = BTreeMap::from([(1, vec![2]), (2, vec![1, 3]), (3, vec![4]), (4, vec![3])]);
        assert_eq!(cycles(&edges), [vec![1, 2], vec![3, 4]]);
    }
}
