//! The names under which nodes know each other in certificates.
//!
//! One function writes the name, one reads it; nothing else in the house spells it out.

use crate::ids::{ClusterId, NodeId};

/// The DNS name that stands in a node's certificate and that its peers dial:
/// `<node-id>.node.<cluster-id>.internal`. It is never resolved.
pub fn server_name(cluster: ClusterId, node: NodeId) -> String {
    format!("{node}.{}", node_domain(cluster))
}

/// Reads a name made by [`server_name`]; `None` for any other text.
pub fn parse_server_name(name: &str) -> Option<(ClusterId, NodeId)> {
    let mut labels = name.split('.');
    let node = labels.next()?.parse().ok()?;
    if labels.next()? != "node" {
        return None;
    }
    let cluster = labels.next()?.parse().ok()?;
    (labels.next()? == "internal" && labels.next().is_none()).then_some((cluster, node))
}

/// The DNS domain of all nodes of a cluster: the only one its authority may certify.
pub(crate) fn node_domain(cluster: ClusterId) -> String {
    format!("node.{cluster}.internal")
}

/// The URI that says the same as [`server_name`] to people and to other tools.
pub(crate) fn node_uri(cluster: ClusterId, node: NodeId) -> String {
    format!("spiffe://{cluster}.internal/node/{node}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_server_name_reads_back() {
        let (cluster, node) = (ClusterId::from_bytes([7; 16]), NodeId::from_bytes([9; 8]));
        let name = server_name(cluster, node);
        assert_eq!(name, "0909090909090909.node.07070707070707070707070707070707.internal");
        assert_eq!(parse_server_name(&name), Some((cluster, node)));
    }

    #[test]
    fn other_names_are_not_server_names() {
        let cluster = ClusterId::from_bytes([7; 16]);
        for name in [
            "",
            "localhost",
            "0909090909090909.node.07070707070707070707070707070707.internal.",
            "0909090909090909.node.07070707070707070707070707070707.internal.evil",
            "0909090909090909.peer.07070707070707070707070707070707.internal",
            "09.node.07070707070707070707070707070707.internal",
            &format!("*.node.{cluster}.internal"),
        ] {
            assert_eq!(parse_server_name(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(name in ".{0,200}") {
            if let Some((cluster, node)) = parse_server_name(&name) {
                prop_assert_eq!(server_name(cluster, node), name);
            }
        }
    }
}
