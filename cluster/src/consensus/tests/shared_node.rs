//! Replicas of one group on one node: on a single-node cluster the drives are the domains.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drystone_certs::NodeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::harness::{CountingMap, GROUP, node_id, parse, replica, within};
use crate::beat::Beat;
use crate::consensus::{
    BoxFuture, CommandId, ConsensusNetwork, Group, GroupConfig, GroupId, GroupParts, HandleError, MemberRole, Members,
    NetworkError, ReplicaId, StartMode, addressee,
};
use crate::kv::{Executor, LogMetrics, LogWriter, MemoryKv};

/// A node that asks each message for which of its replicas it is.
#[derive(Default)]
struct OneNode {
    groups: Mutex<BTreeMap<ReplicaId, Group>>,
    last: Mutex<Option<Bytes>>,
}

impl ConsensusNetwork for OneNode {
    fn call(&self, _: NodeId, _: GroupId, message: Bytes, _: Duration) -> BoxFuture<'_, Result<Bytes, NetworkError>> {
        *self.last.lock().unwrap() = Some(message.clone());
        let wanted = addressee(&message).unwrap();
        let target = self.groups.lock().unwrap().get(&wanted).cloned();
        Box::pin(async move {
            let target = target.ok_or(NetworkError::Unreachable)?;
            target.handle(message).await.map_err(|_| NetworkError::Refused)
        })
    }

    fn send_snapshot(
        &self,
        _: NodeId,
        _: GroupId,
        _: Bytes,
        _: mpsc::Receiver<Bytes>,
        _: Duration,
    ) -> BoxFuture<'_, Result<Bytes, NetworkError>> {
        Box::pin(async { Err(NetworkError::Refused) })
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_of_a_group_on_one_node_agree_and_refuse_each_others_messages() {
    let node = Arc::new(OneNode::default());
    let members: Members = (0..3).map(|index| (replica(index), (node_id(0), MemberRole::Voter))).collect();
    let mut groups = Vec::new();
    let mut writers = Vec::new();
    for index in 0..3 {
        let kv = Arc::new(MemoryKv::new());
        let executor = Executor::Tasks { sync_delay: Duration::from_millis(1) };
        let writer = LogWriter::start(Arc::<MemoryKv>::clone(&kv), executor, LogMetrics::unregistered()).unwrap();
        let mut config = GroupConfig::new(GROUP, replica(index), members.clone(), StartMode::Create);
        config.preferred_leader = Some(replica(0));
        let parts = GroupParts {
            kv,
            log_writer: writer.clone(),
            state_machine: Arc::new(CountingMap),
            network: Arc::<OneNode>::clone(&node),
            rng_seed: u64::try_from(index).unwrap(),
            beat: Beat::new(Instant::now(), Duration::ZERO),
        };
        let group = Group::start(config, parts).await.unwrap();
        node.groups.lock().unwrap().insert(replica(index), group.clone());
        groups.push(group);
        writers.push(writer);
    }
    assert_eq!(groups[2].wait_leader(within(20)).await, Ok((replica(0), node_id(0))));
    for number in 1..=20 {
        let id = CommandId([number; 16]);
        let answer = groups[0].propose(id, Bytes::from(format!("{number}=x")), within(10)).await.unwrap();
        assert_eq!(parse(&answer), u64::from(number));
    }
    // The followers hear of the last commit with the next heartbeat.
    let wanted = groups[0].status().applied;
    let end = within(10);
    while !groups.iter().all(|group| group.status().applied >= wanted) {
        assert!(Instant::now() < end, "a replica on the same node was left behind");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for group in &groups {
        assert_eq!(group.view().get(b"count").unwrap().as_deref(), Some(&b"20"[..]));
    }
    let message = node.last.lock().unwrap().clone().unwrap();
    let wanted = addressee(&message).unwrap();
    for (index, group) in groups.iter().enumerate().filter(|(index, _)| replica(*index) != wanted) {
        let refused = group.handle(message.clone()).await;
        assert!(matches!(refused, Err(HandleError::Misrouted { to, .. }) if to == wanted), "{index}: {refused:?}");
    }
    // The network holds the groups and the groups hold the network.
    node.groups.lock().unwrap().clear();
    for group in &groups {
        group.shutdown().await;
    }
    for writer in &writers {
        writer.shutdown().await;
    }
}
