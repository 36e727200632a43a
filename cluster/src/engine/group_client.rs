//! Finds the leader of a group and asks it, until it answers or the deadline is over.
//!
//! A command keeps its id through all retries, so it is applied once whichever leader it reaches. A read
//! is repeated freely. Below quorum the caller gets a typed refusal within the deadline, never a guess.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drystone_transport::{Class, Peers};
use tokio::time::{Instant, sleep, timeout_at};

use crate::codec::{Blob, encode};
use crate::consensus::GroupId;
use crate::detector::PeerState;
use crate::ids::{CommandId, NodeId, ShardIndex};
use crate::member::Member;
use crate::peer::{Fault, Method, Proposal};
use crate::store::{StoreError, Unavailable};
use crate::topology::Role;

/// How long a request looks for a leader that answers. Longer than an election (3 s at most) and its detection, so that
/// the loss of one node is a pause, not an error; short enough that clients below quorum hear 503 soon.
pub(crate) const DECISION_DEADLINE: Duration = Duration::from_secs(8);
/// How long one attempt may take before another replica is asked. Asking again is safe: reads change nothing, and a
/// command is recognised by its id. Shorter than the transport takes to notice a dead peer (5 s), longer than a loaded
/// leader needs.
pub(crate) const ATTEMPT_DEADLINE: Duration = Duration::from_secs(2);
/// Pause before asking again where nobody knows a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Asks groups from one worker.
#[derive(Clone)]
pub(crate) struct GroupClient {
    member: Arc<Member>,
    peers: Peers,
}

impl GroupClient {
    pub(crate) fn new(member: Arc<Member>, peers: Peers) -> Self {
        Self { member, peers }
    }

    /// Proposes an encoded command and returns the encoded answer of the state machine. Dropped midway, the command
    /// may or may not take effect, once.
    pub(crate) async fn propose(&self, group: GroupId, command: Vec<u8>) -> Result<Bytes, StoreError> {
        let id = self.member.randomness().with(CommandId::random);
        let command = Bytes::from(command);
        let remote = encode(&Proposal { group: group.0, id, command: Blob(command.clone()) });
        let method = if group == GroupId::CONTROL { Method::ControlPropose } else { Method::IndexPropose };
        let local = || self.member.propose(group, id, command.clone(), ATTEMPT_DEADLINE);
        self.ask(group, method, Bytes::from(remote), local).await
    }

    /// Sends a read to the leader of `group`; `local` serves it if this node leads.
    pub(crate) async fn read<F>(
        &self,
        group: GroupId,
        method: Method,
        request: Bytes,
        local: impl Fn() -> F,
    ) -> Result<Bytes, StoreError>
    where
        F: Future<Output = Result<Bytes, Fault>>,
    {
        self.ask(group, method, request, local).await
    }

    async fn ask<F>(
        &self,
        group: GroupId,
        method: Method,
        request: Bytes,
        local: impl Fn() -> F,
    ) -> Result<Bytes, StoreError>
    where
        F: Future<Output = Result<Bytes, Fault>>,
    {
        let deadline = Instant::now() + DECISION_DEADLINE;
        let mut search = LeaderSearch::new(&self.member, group);
        loop {
            let node = search.next(&self.member);
            let attempt = async {
                if node == self.member.node() { local().await } else { self.ask_peer(node, method, &request).await }
            };
            let until = deadline.min(Instant::now() + ATTEMPT_DEADLINE);
            let fault = match timeout_at(until, attempt).await {
                Ok(Ok(answer)) => {
                    self.member.leaders().learn(group, node);
                    return Ok(answer);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Unreachable { reason: "no answer".to_owned(), may_have_acted: true },
            };
            tracing::debug!(%group, %node, %fault, "a group did not answer");
            search.note(node, &fault);
            match &fault {
                Fault::NotLeader { leader: Some(leader) } => self.member.leaders().learn(group, *leader),
                _ => self.member.leaders().forget(group, node),
            }
            if let Some(error) = final_error(&fault) {
                return Err(error);
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(search.into_error());
            }
            if search.should_pause() {
                sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn ask_peer(&self, node: NodeId, method: Method, request: &Bytes) -> Result<Bytes, Fault> {
        self.peers
            .call(node, Class::Data, method.number(), request.clone(), ATTEMPT_DEADLINE)
            .await
            .map_err(Fault::from)
    }
}

/// The nodes that vote in a group, in the order they are asked.
fn voters(member: &Member, group: GroupId) -> Vec<NodeId> {
    let topology = member.topology();
    match group {
        GroupId::CONTROL => {
            let voters = topology.control.iter().filter(|replica| replica.role == Role::Voter);
            voters.map(|replica| replica.node).collect()
        }
        GroupId(number) => topology.shard(ShardIndex(number - 1)).iter().map(|replica| replica.node).collect(),
    }
}

/// Faults that asking again cannot mend.
fn final_error(fault: &Fault) -> Option<StoreError> {
    match fault {
        Fault::State { reason } => Some(StoreError::Internal(reason.clone())),
        Fault::CommandTooLarge => Some(StoreError::Internal("the command is too large for the log".to_owned())),
        Fault::Malformed { reason } => Some(StoreError::Internal(format!("a peer refused a message: {reason}"))),
        _ => None,
    }
}

/// Whom to ask next: who is said to lead, unless it just proved silent; else the replicas in turn, those first whose
/// nodes live.
struct LeaderSearch {
    group: GroupId,
    replicas: Vec<NodeId>,
    /// Who is said to lead by the last answer.
    hint: Option<NodeId>,
    silent: BTreeSet<NodeId>,
    answering: BTreeSet<NodeId>,
    asked: Option<NodeId>,
    next: usize,
    hops: usize,
}

impl LeaderSearch {
    fn new(member: &Member, group: GroupId) -> Self {
        let mut replicas = voters(member, group);
        replicas.sort_by_key(|node| *node != member.node() && member.detector().state(*node) != PeerState::Alive);
        Self {
            group,
            replicas,
            hint: None,
            silent: BTreeSet::new(),
            answering: BTreeSet::new(),
            asked: None,
            next: 0,
            hops: 0,
        }
    }

    fn next(&mut self, member: &Member) -> NodeId {
        self.hops += 1;
        let said = self.hint.take().or_else(|| member.leader_of(self.group));
        let worth_asking = |node: &NodeId| !self.silent.contains(node) && self.asked != Some(*node);
        let node = said.filter(worth_asking).unwrap_or_else(|| self.next_replica());
        self.asked = Some(node);
        node
    }

    fn next_replica(&mut self) -> NodeId {
        if self.replicas.iter().all(|node| self.silent.contains(node)) {
            self.silent.clear();
        }
        for _ in 0..self.replicas.len() {
            let node = self.replicas[self.next % self.replicas.len()];
            self.next += 1;
            if !self.silent.contains(&node) {
                return node;
            }
        }
        self.replicas[0]
    }

    fn note(&mut self, node: NodeId, fault: &Fault) {
        if matches!(fault, Fault::Unreachable { .. } | Fault::NotServing | Fault::NoReplica) {
            self.silent.insert(node);
        } else {
            self.answering.insert(node);
        }
        if let Fault::NotLeader { leader } = fault {
            self.hint = *leader;
        }
    }

    /// After everybody had a say, or where nobody knows better, the groups need time to elect.
    fn should_pause(&self) -> bool {
        let no_better = self.hint.is_none_or(|hint| Some(hint) == self.asked || self.silent.contains(&hint));
        self.hops.is_multiple_of(self.replicas.len() + 1) || (no_better && self.hops >= self.replicas.len())
    }

    fn into_error(self) -> StoreError {
        let group = match self.group {
            GroupId::CONTROL => "control".to_owned(),
            GroupId(number) => format!("shard {}", number - 1),
        };
        let needed = self.replicas.len() / 2 + 1;
        Unavailable::NoQuorum { group, reachable: self.answering.len().min(needed), needed }.into()
    }
}
