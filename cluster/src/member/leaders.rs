//! Who leads which group, as far as this node has heard. Only a hint: a wrong one costs a hop, never a wrong answer.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::consensus::GroupId;
use crate::ids::NodeId;

/// Hints, shared by all workers of a node.
#[derive(Debug, Default)]
pub(crate) struct Leaders(RwLock<BTreeMap<GroupId, NodeId>>);

impl Leaders {
    /// The last known leader.
    pub(crate) fn get(&self, group: GroupId) -> Option<NodeId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&group).copied()
    }

    /// Remembers who led.
    pub(crate) fn learn(&self, group: GroupId, leader: NodeId) {
        if self.get(group) != Some(leader) {
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(group, leader);
        }
    }

    /// Forgets a hint that proved wrong, unless another has taken its place.
    pub(crate) fn forget(&self, group: GroupId, leader: NodeId) {
        let mut leaders = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if leaders.get(&group) == Some(&leader) {
            leaders.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_hint_is_not_forgotten_for_an_older_one() {
        let (leaders, old, new) = (Leaders::default(), NodeId::from_bytes([1; 8]), NodeId::from_bytes([2; 8]));
        leaders.learn(GroupId(3), old);
        leaders.learn(GroupId(3), new);
        leaders.forget(GroupId(3), old);
        assert_eq!(leaders.get(GroupId(3)), Some(new));
        leaders.forget(GroupId(3), new);
        assert_eq!(leaders.get(GroupId(3)), None);
    }
}
