//! Messages and records: what was released stays readable, and nothing that arrives can break a replica.

use bytes::Bytes;
use drystone_certs::NodeId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::consensus::codec::v1::{
    Blob, Entry, EntryBody, LogId, MembershipRecord, Reply, Request, RequestBody, SnapshotChunk, SnapshotHead,
    StoredMembershipRecord, Vote,
};
use crate::consensus::codec::{decode, encode};
use crate::consensus::raft::{self, StoredMembership};
use crate::consensus::{CommandId, GroupId, ReplicaId};

const LOG_ID: LogId = LogId { term: 2, leader: 7, index: 300 };
const VOTE: Vote = Vote { term: 3, candidate: 7, granted_by_majority: true };

fn membership() -> MembershipRecord {
    MembershipRecord {
        voters: vec![vec![7, 8]],
        nodes: vec![(7, NodeId::from_bytes([1; 8])), (8, NodeId::from_bytes([2; 8]))],
    }
}

fn command() -> Entry {
    let body = Blob(Bytes::from_static(b"ab"));
    Entry { log_id: LOG_ID, body: EntryBody::Command { id: CommandId([9; 16]), body } }
}

fn request(body: RequestBody) -> Request {
    Request { group: GroupId(3), from: ReplicaId(7), to: ReplicaId(8), body }
}

fn check_golden<const COUNT: usize>(golden: [(Bytes, String); COUNT]) {
    for (encoded, bytes) in golden {
        assert_eq!(hex::encode(&encoded), bytes);
    }
}

/// The bytes of both nodes of `membership`.
fn node_bytes() -> String {
    "0207010101010101010108".to_owned() + &"02".repeat(8)
}

// Released bytes. A change here is a new version, not an edit.

#[test]
fn version_1_of_records_has_these_bytes() {
    let (id, nodes) = ("09".repeat(16), node_bytes());
    check_golden([
        (encode(&ReplicaId(7)), "0107".to_owned()),
        (encode(&LOG_ID), "010207fb2c01".to_owned()),
        (encode(&VOTE), "01030701".to_owned()),
        (encode(&command()), format!("010207fb2c0101{id}026162")),
        (encode(&Entry { log_id: LOG_ID, body: EntryBody::Blank }), "010207fb2c0100".to_owned()),
        (
            encode(&Entry { log_id: LOG_ID, body: EntryBody::Membership(membership()) }),
            format!("010207fb2c010201020708{nodes}"),
        ),
    ]);
}

#[test]
fn version_1_of_requests_has_these_bytes() {
    let id = "09".repeat(16);
    check_golden([
        (
            encode(&request(RequestBody::Append {
                vote: VOTE,
                previous: None,
                entries: vec![command()],
                committed: Some(LOG_ID),
            })),
            format!("0103070800030701000102 07fb2c0101{id}026162010207fb2c01").replace(' ', ""),
        ),
        (
            encode(&request(RequestBody::Vote { vote: VOTE, last: Some(LOG_ID), leadership_transfer: true })),
            "0103070801030701010207fb2c0101".to_owned(),
        ),
        (
            encode(&request(RequestBody::PreVote { vote: VOTE, last: None, leadership_transfer: false })),
            "01030708020307010000".to_owned(),
        ),
        (
            encode(&request(RequestBody::Transfer { vote: VOTE, successor: ReplicaId(8), last: None })),
            "01030708030307010800".to_owned(),
        ),
    ]);
}

#[test]
fn version_1_of_replies_has_these_bytes() {
    check_golden([
        (encode(&Reply::Appended), "0100".to_owned()),
        (encode(&Reply::AppendedUpTo(Some(LOG_ID))), "0101010207fb2c01".to_owned()),
        (encode(&Reply::Conflict), "0102".to_owned()),
        (encode(&Reply::HigherVote(VOTE)), "0103030701".to_owned()),
        (encode(&Reply::Voted { vote: VOTE, granted: true, last: None }), "01040307010100".to_owned()),
        (encode(&Reply::Transferring), "0105".to_owned()),
        (encode(&Reply::TransferVoteChanged { expected: VOTE, actual: VOTE }), "0106030701030701".to_owned()),
        (encode(&Reply::TransferLogNotFlushed { expected: None, actual: None }), "01070000".to_owned()),
        (encode(&Reply::SnapshotTaken { vote: VOTE }), "0108030701".to_owned()),
    ]);
}

#[test]
fn version_1_of_snapshots_has_these_bytes() {
    let nodes = node_bytes();
    check_golden([
        (
            encode(&SnapshotHead {
                group: GroupId(3),
                from: ReplicaId(7),
                to: ReplicaId(8),
                vote: VOTE,
                last: Some(LOG_ID),
                membership: StoredMembershipRecord { log_id: None, membership: membership() },
            }),
            format!("01030708030701010207fb2c010001020708{nodes}"),
        ),
        (
            encode(&SnapshotChunk::Pairs {
                sequence: 1,
                pairs: vec![(Blob(Bytes::from_static(b"k")), Blob(Bytes::from_static(b"v")))],
            }),
            "01000101016b0176".to_owned(),
        ),
        (encode(&SnapshotChunk::End { pair_count: 1, hash: [5; 32] }), "010101".to_owned() + &"05".repeat(32)),
    ]);
}

fn any_log_id() -> impl Strategy<Value = LogId> {
    any::<(u64, u64, u64)>().prop_map(|(term, leader, index)| LogId { term, leader, index })
}

fn any_vote() -> impl Strategy<Value = Vote> {
    any::<(u64, u64, bool)>().prop_map(|(term, candidate, granted_by_majority)| Vote {
        term,
        candidate,
        granted_by_majority,
    })
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let body = prop_oneof![
        Just(EntryBody::Blank),
        (any::<[u8; 16]>(), vec(any::<u8>(), 0..200))
            .prop_map(|(id, body)| EntryBody::Command { id: CommandId(id), body: Blob(body.into()) }),
        Just(EntryBody::Membership(membership())),
    ];
    (any_log_id(), body).prop_map(|(log_id, body)| Entry { log_id, body })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), versioned in any::<bool>()) {
        let mut bytes = bytes;
        if versioned && let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        if let Ok(entry) = decode::<Entry>(&bytes) {
            drop(raft::Entry::try_from(entry));
        }
        if let Ok(head) = decode::<SnapshotHead>(&bytes) {
            drop(StoredMembership::try_from(head.membership));
        }
        drop(decode::<Request>(&bytes));
        drop(decode::<SnapshotChunk>(&bytes));
        if let Ok(reply) = decode::<Reply>(&bytes) {
            drop(reply.clone().into_append());
            drop(reply.clone().into_vote());
            drop(reply.into_transfer());
        }
    }

    #[test]
    fn an_append_comes_back_as_it_went(
        vote in any_vote(),
        previous in option::of(any_log_id()),
        entries in vec(any_entry(), 0..5),
        committed in option::of(any_log_id()),
        flip in any::<prop::sample::Index>(),
    ) {
        let request = request(RequestBody::Append { vote, previous, entries, committed });
        let bytes = encode(&request);
        prop_assert_eq!(&decode::<Request>(&bytes).unwrap(), &request);
        let cut = flip.index(bytes.len());
        prop_assert!(decode::<Request>(&bytes[..cut]).is_err(), "a part of a message was taken for a message");
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(decode::<Request>(&longer).is_err(), "bytes were left over");
    }

    #[test]
    fn an_entry_survives_the_library_and_back(entry in any_entry()) {
        let there = raft::Entry::try_from(entry.clone()).unwrap();
        prop_assert_eq!(Entry::from(&there), entry);
    }
}

#[test]
fn other_versions_are_refused() {
    assert!(decode::<Reply>(&[0, 0]).is_err());
    assert!(decode::<Reply>(&[2, 0]).is_err());
    assert!(decode::<Reply>(&[]).is_err());
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // A body that claims 2^60 bytes.
    let mut bytes = vec![1, 2, 7, 5, 1];
    bytes.extend_from_slice(&[9; 16]);
    bytes.push(253);
    bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(decode::<Entry>(&bytes).is_err());
}

#[test]
fn a_membership_without_its_nodes_is_refused() {
    let record = MembershipRecord { voters: vec![vec![1, 2]], nodes: vec![(1, NodeId::from_bytes([1; 8]))] };
    assert!(raft::Membership::try_from(record).is_err());
    let record = MembershipRecord { voters: vec![vec![]], nodes: vec![] };
    assert!(raft::Membership::try_from(record).is_err());
}
