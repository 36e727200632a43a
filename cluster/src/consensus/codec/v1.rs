//! Version 1 of messages and records. Frozen: fields and variants keep their order; new variants go last.

use std::collections::{BTreeMap, BTreeSet};

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use bytes::Bytes;
use drystone_certs::NodeId;

use super::Malformed;
use crate::consensus::ids::{CommandId, GroupId, Proposal, ReplicaId};
use crate::consensus::raft::{
    self, AppendRequest, AppendResponse, LeaderId, Member, Membership, Payload, StoredMembership, TransferResponse,
};

/// Bytes without a copy on the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX).encode(encoder)?;
        encoder.writer().write(&self.0)
    }
}

impl<Context> Decode<Context> for Blob {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Vec::<u8>::decode(decoder).map(|bytes| Self(bytes.into()))
    }
}

bincode::impl_borrow_decode!(Blob);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LogId {
    pub term: u64,
    pub leader: u64,
    pub index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Vote {
    pub term: u64,
    pub candidate: u64,
    pub granted_by_majority: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MembershipRecord {
    /// One set of voters, or two while a change is under way.
    pub voters: Vec<Vec<u64>>,
    pub nodes: Vec<(u64, NodeId)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StoredMembershipRecord {
    pub log_id: Option<LogId>,
    pub membership: MembershipRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EntryBody {
    Blank,
    Command { id: CommandId, body: Blob },
    Membership(MembershipRecord),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    pub log_id: LogId,
    pub body: EntryBody,
}

/// A request to a replica, with its way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    pub group: GroupId,
    pub from: ReplicaId,
    pub to: ReplicaId,
    pub body: RequestBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RequestBody {
    Append { vote: Vote, previous: Option<LogId>, entries: Vec<Entry>, committed: Option<LogId> },
    Vote { vote: Vote, last: Option<LogId>, leadership_transfer: bool },
    PreVote { vote: Vote, last: Option<LogId>, leadership_transfer: bool },
    Transfer { vote: Vote, successor: ReplicaId, last: Option<LogId> },
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    Appended,
    AppendedUpTo(Option<LogId>),
    Conflict,
    HigherVote(Vote),
    Voted { vote: Vote, granted: bool, last: Option<LogId> },
    Transferring,
    TransferVoteChanged { expected: Vote, actual: Vote },
    TransferLogNotFlushed { expected: Option<LogId>, actual: Option<LogId> },
    SnapshotTaken { vote: Vote },
}

/// What precedes the chunks of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHead {
    pub group: GroupId,
    pub from: ReplicaId,
    pub to: ReplicaId,
    pub vote: Vote,
    pub last: Option<LogId>,
    pub membership: StoredMembershipRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SnapshotChunk {
    /// Keys, relative to a generation, and values.
    Pairs { sequence: u64, pairs: Vec<(Blob, Blob)> },
    /// How many pairs there were, and the BLAKE3 of all chunks before this one as they were sent.
    End { pair_count: u64, hash: [u8; 32] },
}

impl From<raft::LogId> for LogId {
    fn from(id: raft::LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogId> for raft::LogId {
    fn from(id: LogId) -> Self {
        Self { leader_id: LeaderId { term: id.term, node_id: id.leader }, index: id.index }
    }
}

impl From<raft::Vote> for Vote {
    fn from(vote: raft::Vote) -> Self {
        Self { term: vote.leader_id.term, candidate: vote.leader_id.node_id, granted_by_majority: vote.committed }
    }
}

impl From<Vote> for raft::Vote {
    fn from(vote: Vote) -> Self {
        Self { leader_id: LeaderId { term: vote.term, node_id: vote.candidate }, committed: vote.granted_by_majority }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().iter().map(|voters| voters.iter().copied().collect()).collect(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.node())).collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = Malformed;

    fn try_from(record: MembershipRecord) -> Result<Self, Malformed> {
        if record.voters.is_empty() && record.nodes.is_empty() {
            return Ok(Self::default());
        }
        let voters: Vec<BTreeSet<u64>> = record.voters.into_iter().map(|voters| voters.into_iter().collect()).collect();
        let nodes: BTreeMap<u64, Member> = record.nodes.into_iter().map(|(id, node)| (id, Member::new(node))).collect();
        Self::new(voters, nodes).map_err(|_| Malformed)
    }
}

impl From<&StoredMembership> for StoredMembershipRecord {
    fn from(stored: &StoredMembership) -> Self {
        Self { log_id: stored.log_id().map(Into::into), membership: stored.membership().into() }
    }
}

impl TryFrom<StoredMembershipRecord> for StoredMembership {
    type Error = Malformed;

    fn try_from(record: StoredMembershipRecord) -> Result<Self, Malformed> {
        Ok(Self::new(record.log_id.map(Into::into), record.membership.try_into()?))
    }
}

impl From<&raft::Entry> for Entry {
    fn from(entry: &raft::Entry) -> Self {
        let body = match &entry.payload {
            Payload::Blank => EntryBody::Blank,
            Payload::Normal(proposal) => EntryBody::Command { id: proposal.id, body: Blob(proposal.body.clone()) },
            Payload::Membership(membership) => EntryBody::Membership(membership.into()),
        };
        Self { log_id: entry.log_id.into(), body }
    }
}

impl TryFrom<Entry> for raft::Entry {
    type Error = Malformed;

    fn try_from(entry: Entry) -> Result<Self, Malformed> {
        let payload = match entry.body {
            EntryBody::Blank => Payload::Blank,
            EntryBody::Command { id, body } => Payload::Normal(Proposal { id, body: body.0 }),
            EntryBody::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(Self { log_id: entry.log_id.into(), payload })
    }
}

impl RequestBody {
    /// The wire form of an append.
    pub fn append(request: &AppendRequest) -> Self {
        Self::Append {
            vote: request.vote.into(),
            previous: request.prev_log_id.map(Into::into),
            entries: request.entries.iter().map(Into::into).collect(),
            committed: request.leader_commit.map(Into::into),
        }
    }
}

impl From<AppendResponse> for Reply {
    fn from(response: AppendResponse) -> Self {
        match response {
            AppendResponse::Success => Self::Appended,
            AppendResponse::PartialSuccess(upto) => Self::AppendedUpTo(upto.map(Into::into)),
            AppendResponse::Conflict => Self::Conflict,
            AppendResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<raft::VoteResponse> for Reply {
    fn from(response: raft::VoteResponse) -> Self {
        Self::Voted {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(Into::into),
        }
    }
}

impl From<TransferResponse> for Reply {
    fn from(response: TransferResponse) -> Self {
        use openraft::raft::TransferLeaderError;
        match response {
            Ok(()) => Self::Transferring,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Self::TransferVoteChanged { expected: expected.into(), actual: actual.into() }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Self::TransferLogNotFlushed { expected: expected.map(Into::into), actual: actual.map(Into::into) }
            }
        }
    }
}

impl Reply {
    /// As the answer to an append.
    pub fn into_append(self) -> Result<AppendResponse, Malformed> {
        match self {
            Self::Appended => Ok(AppendResponse::Success),
            Self::AppendedUpTo(upto) => Ok(AppendResponse::PartialSuccess(upto.map(Into::into))),
            Self::Conflict => Ok(AppendResponse::Conflict),
            Self::HigherVote(vote) => Ok(AppendResponse::HigherVote(vote.into())),
            _ => Err(Malformed),
        }
    }

    /// As the answer to a vote or pre-vote.
    pub fn into_vote(self) -> Result<raft::VoteResponse, Malformed> {
        match self {
            Self::Voted { vote, granted, last } => {
                Ok(raft::VoteResponse::new(raft::Vote::from(vote), last.map(Into::into), granted))
            }
            _ => Err(Malformed),
        }
    }

    /// As the answer to a transfer of leadership.
    pub fn into_transfer(self) -> Result<TransferResponse, Malformed> {
        use openraft::raft::TransferLeaderError;
        match self {
            Self::Transferring => Ok(Ok(())),
            Self::TransferVoteChanged { expected, actual } => {
                Ok(Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() }))
            }
            Self::TransferLogNotFlushed { expected, actual } => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(Into::into),
                actual: actual.map(Into::into),
            })),
            _ => Err(Malformed),
        }
    }
}
