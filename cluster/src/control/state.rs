//! How commands change the control state.
//!
//! Tables by leading byte: 1 buckets by name, 2 access keys by id, 3 the topology, 4 instances by node, 5 names of
//! buckets by id, 6 that the first access key was installed, 7 the latest attempt at a bucket's deletion by id.

use super::command::{AccessKeyRecord, BucketPhase, BucketRecord, ControlAnswer, ControlCommand};
use super::query;
use crate::ids::{BucketId, DeletionAttempt, InstanceId, NodeId};
use crate::state::{StateError, StateRead, StateWrite, put_record};
use crate::store::BucketName;
use crate::topology::{Topology, encode_snapshot};

pub(super) const BUCKETS: u8 = 1;
pub(super) const ACCESS_KEYS: u8 = 2;
pub(super) const TOPOLOGY: u8 = 3;
pub(super) const INSTANCES: u8 = 4;
pub(super) const BUCKET_NAMES: u8 = 5;
const FIRST_KEY: u8 = 6;
const DELETION_ATTEMPTS: u8 = 7;

pub(super) fn table_key(table: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(table);
    key.extend_from_slice(rest);
    key
}

/// Every id has one name, so the name need not be part of it.
pub(super) fn deletion_key(id: BucketId) -> Vec<u8> {
    table_key(DELETION_ATTEMPTS, &id.0.to_be_bytes())
}

pub(super) fn bucket_key(name: &BucketName) -> Vec<u8> {
    table_key(BUCKETS, name.as_str().as_bytes())
}

/// Applies an encoded [`ControlCommand`] and returns the encoded [`ControlAnswer`]. Total and deterministic: bytes that
/// are no known command change nothing and are answered with [`ControlAnswer::Unsupported`].
///
/// # Errors
/// The state could not be read: the replica must drop the transaction and stop.
pub fn apply(state: &mut dyn StateWrite, command: &[u8]) -> Result<Vec<u8>, StateError> {
    let answer = match ControlCommand::decode(command) {
        Err(_) => ControlAnswer::Unsupported,
        // Decoding checks the form of a name, not its rules.
        Ok(command) if names_no_bucket(&command) => ControlAnswer::Invalid,
        Ok(command) => answer(state, command)?,
    };
    Ok(answer.encode())
}

fn names_no_bucket(command: &ControlCommand) -> bool {
    match command {
        ControlCommand::CreateBucket { name, .. }
        | ControlCommand::BeginBucketDeletion { name, .. }
        | ControlCommand::FinishBucketDeletion { name, .. }
        | ControlCommand::ResumeBucketDeletion { name, .. }
        | ControlCommand::CancelBucketDeletion { name, .. } => BucketName::new(name.as_str()).is_err(),
        ControlCommand::PutAccessKey { .. }
        | ControlCommand::DeleteAccessKey { .. }
        | ControlCommand::PutTopology { .. }
        | ControlCommand::RememberInstance { .. }
        | ControlCommand::InstallFirstKey { .. } => false,
    }
}

fn answer(state: &mut dyn StateWrite, command: ControlCommand) -> Result<ControlAnswer, StateError> {
    match command {
        ControlCommand::CreateBucket { name, id, created_ms } => create_bucket(state, &name, id, created_ms),
        ControlCommand::BeginBucketDeletion { name, id } => begin_deletion(state, &name, id),
        ControlCommand::ResumeBucketDeletion { name, id, interrupted } => {
            resume_deletion(state, &name, id, interrupted)
        }
        ControlCommand::CancelBucketDeletion { name, id, attempt } => cancel_deletion(state, &name, id, attempt),
        ControlCommand::FinishBucketDeletion { name, id, attempt } => finish_deletion(state, &name, id, attempt),
        ControlCommand::PutAccessKey { id, record } => put_access_key(state, &id, &record),
        ControlCommand::DeleteAccessKey { id } => delete_access_key(state, &id),
        ControlCommand::PutTopology { expected_epoch, topology } => put_topology(state, expected_epoch, &topology),
        ControlCommand::RememberInstance { node, instance } => remember_instance(state, node, instance),
        ControlCommand::InstallFirstKey { id, record } => install_first_key(state, &id, &record),
    }
}

fn create_bucket(
    state: &mut dyn StateWrite,
    name: &BucketName,
    id: BucketId,
    created_ms: u64,
) -> Result<ControlAnswer, StateError> {
    match query::bucket(state, name)? {
        Some(BucketRecord { phase: BucketPhase::Deleting, .. }) => return Ok(ControlAnswer::BucketBusy),
        Some(record) if record.id == id => return Ok(ControlAnswer::BucketCreated(record)),
        Some(record) => return Ok(ControlAnswer::BucketExists(record)),
        None => {}
    }
    let id_key = table_key(BUCKET_NAMES, &id.0.to_be_bytes());
    if state.get(&id_key)?.is_some() {
        // Another bucket has this very id: the proposer draws again.
        return Ok(ControlAnswer::BucketBusy);
    }
    let record = BucketRecord { id, created_ms, phase: BucketPhase::Live };
    put_record(state, bucket_key(name), &record);
    put_record(state, id_key, name);
    Ok(ControlAnswer::BucketCreated(record))
}

/// Only one deleter can begin: each of them seals shards and opens them again, so two at once would undo each other.
fn begin_deletion(state: &mut dyn StateWrite, name: &BucketName, id: BucketId) -> Result<ControlAnswer, StateError> {
    match query::bucket(state, name)?.filter(|record| record.id == id) {
        Some(record @ BucketRecord { phase: BucketPhase::Live, .. }) => {
            put_record(state, bucket_key(name), &BucketRecord { phase: BucketPhase::Deleting, ..record });
            next_attempt(state, id)
        }
        Some(BucketRecord { phase: BucketPhase::Deleting, .. }) => Ok(ControlAnswer::BucketBusy),
        None => Ok(ControlAnswer::NoSuchBucket),
    }
}

fn resume_deletion(
    state: &mut dyn StateWrite,
    name: &BucketName,
    id: BucketId,
    interrupted: DeletionAttempt,
) -> Result<ControlAnswer, StateError> {
    match deleting(state, name, id, interrupted)? {
        Ok(_) => next_attempt(state, id),
        Err(refusal) => Ok(refusal),
    }
}

/// Numbers are never used again while the bucket exists, also not after a deletion was cancelled: its shards remember.
fn next_attempt(state: &mut dyn StateWrite, id: BucketId) -> Result<ControlAnswer, StateError> {
    let attempt = query::deletion_attempt(state, id)?.next();
    put_record(state, deletion_key(id), &attempt);
    Ok(ControlAnswer::DeletionBegun { attempt })
}

fn cancel_deletion(
    state: &mut dyn StateWrite,
    name: &BucketName,
    id: BucketId,
    attempt: DeletionAttempt,
) -> Result<ControlAnswer, StateError> {
    match deleting(state, name, id, attempt)? {
        Ok(record) => put_record(state, bucket_key(name), &BucketRecord { phase: BucketPhase::Live, ..record }),
        Err(refusal) => return Ok(refusal),
    }
    Ok(ControlAnswer::Done)
}

fn finish_deletion(
    state: &mut dyn StateWrite,
    name: &BucketName,
    id: BucketId,
    attempt: DeletionAttempt,
) -> Result<ControlAnswer, StateError> {
    if let Err(refusal) = deleting(state, name, id, attempt)? {
        return Ok(refusal);
    }
    state.delete(bucket_key(name));
    state.delete(table_key(BUCKET_NAMES, &id.0.to_be_bytes()));
    state.delete(deletion_key(id));
    Ok(ControlAnswer::Done)
}

/// The bucket of this name and id, if this attempt is deleting it; else why not.
fn deleting(
    state: &dyn StateRead,
    name: &BucketName,
    id: BucketId,
    attempt: DeletionAttempt,
) -> Result<Result<BucketRecord, ControlAnswer>, StateError> {
    let is_meant = |record: &BucketRecord| record.id == id && record.phase == BucketPhase::Deleting;
    let Some(record) = query::bucket(state, name)?.filter(is_meant) else {
        return Ok(Err(ControlAnswer::NoSuchBucket));
    };
    let is_latest = query::deletion_attempt(state, id)? == attempt;
    Ok(if is_latest { Ok(record) } else { Err(ControlAnswer::DeletionTakenOver) })
}

fn put_access_key(state: &mut dyn StateWrite, id: &str, record: &AccessKeyRecord) -> Result<ControlAnswer, StateError> {
    match query::access_key(state, id)? {
        Some(current) if current != *record => return Ok(ControlAnswer::AccessKeyExists),
        _ => put_record(state, table_key(ACCESS_KEYS, id.as_bytes()), record),
    }
    Ok(ControlAnswer::Done)
}

fn install_first_key(
    state: &mut dyn StateWrite,
    id: &str,
    record: &AccessKeyRecord,
) -> Result<ControlAnswer, StateError> {
    if state.get(&[FIRST_KEY])?.is_some() {
        return Ok(ControlAnswer::Done);
    }
    state.put(vec![FIRST_KEY], id.as_bytes().to_vec());
    put_access_key(state, id, record)
}

fn delete_access_key(state: &mut dyn StateWrite, id: &str) -> Result<ControlAnswer, StateError> {
    let key = table_key(ACCESS_KEYS, id.as_bytes());
    if state.get(&key)?.is_none() {
        return Ok(ControlAnswer::NoSuchAccessKey);
    }
    if query::access_key_count(state)? == 1 {
        return Ok(ControlAnswer::LastAccessKey);
    }
    state.delete(key);
    Ok(ControlAnswer::Done)
}

fn put_topology(
    state: &mut dyn StateWrite,
    expected_epoch: u64,
    topology: &Topology,
) -> Result<ControlAnswer, StateError> {
    let current = query::topology(state)?;
    if current.as_ref() == Some(topology) {
        return Ok(ControlAnswer::Done);
    }
    let epoch = current.as_ref().map_or(0, |current| current.epoch);
    if epoch != expected_epoch {
        return Ok(ControlAnswer::EpochMismatch { current: epoch });
    }
    let invalid = |problem: String| Ok(ControlAnswer::InvalidTopology { problem });
    if topology.epoch != expected_epoch.saturating_add(1) {
        return invalid(format!("epoch {} does not follow {expected_epoch}", topology.epoch));
    }
    if let Some(current) = current {
        if topology.cluster != current.cluster {
            return invalid(format!("it is of cluster {}, this is {}", topology.cluster, current.cluster));
        }
        if topology.shard_count != current.shard_count {
            return invalid("the number of index shards is fixed".to_owned());
        }
        if topology.next_replica < current.next_replica {
            return invalid("replica ids would be given out again".to_owned());
        }
    }
    if let Err(problem) = topology.check() {
        return invalid(problem.to_string());
    }
    state.put(vec![TOPOLOGY], encode_snapshot(topology));
    Ok(ControlAnswer::Done)
}

fn remember_instance(
    state: &mut dyn StateWrite,
    node: NodeId,
    instance: InstanceId,
) -> Result<ControlAnswer, StateError> {
    if let Some(remembered) = query::instance(state, node)? {
        let same = remembered == instance;
        return Ok(if same { ControlAnswer::Done } else { ControlAnswer::InstanceMismatch { remembered } });
    }
    if !query::topology(state)?.is_some_and(|topology| topology.nodes.contains_key(&node)) {
        return Ok(ControlAnswer::NoSuchNode);
    }
    put_record(state, table_key(INSTANCES, node.as_bytes()), &instance);
    Ok(ControlAnswer::Done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Blob;
    use crate::state::MemoryState;
    use crate::topology::tests::cluster;

    fn name(text: &str) -> BucketName {
        BucketName::new(text).unwrap()
    }

    fn run(state: &mut MemoryState, command: &ControlCommand) -> ControlAnswer {
        ControlAnswer::decode(&apply(state, &command.encode()).unwrap()).unwrap()
    }

    fn create(text: &str, id: u64) -> ControlCommand {
        ControlCommand::CreateBucket { name: name(text), id: BucketId(id), created_ms: 5 }
    }

    fn live(id: u64) -> BucketRecord {
        BucketRecord { id: BucketId(id), created_ms: 5, phase: BucketPhase::Live }
    }

    #[test]
    fn a_bucket_is_created_once() {
        let mut state = MemoryState::new();
        assert_eq!(run(&mut state, &create("one", 1)), ControlAnswer::BucketCreated(live(1)));
        assert_eq!(run(&mut state, &create("one", 1)), ControlAnswer::BucketCreated(live(1)));
        assert_eq!(run(&mut state, &create("one", 2)), ControlAnswer::BucketExists(live(1)));
        assert_eq!(run(&mut state, &create("two", 1)), ControlAnswer::BucketBusy);
        assert_eq!(query::bucket(&state, &name("one")).unwrap(), Some(live(1)));
        assert_eq!(query::bucket_name(&state, BucketId(1)).unwrap(), Some(name("one")));
    }

    #[test]
    fn a_bucket_being_deleted_exists_until_the_deletion_is_finished() {
        let mut state = MemoryState::new();
        let (name, id) = (name("one"), BucketId(1));
        run(&mut state, &create("one", 1));
        let begin = ControlCommand::BeginBucketDeletion { name: name.clone(), id };
        let finish = |attempt| ControlCommand::FinishBucketDeletion { name: name.clone(), id, attempt };
        let cancel = |attempt| ControlCommand::CancelBucketDeletion { name: name.clone(), id, attempt };
        let [first, second] = [1, 2].map(DeletionAttempt);
        assert_eq!(run(&mut state, &finish(first)), ControlAnswer::NoSuchBucket);
        assert_eq!(run(&mut state, &begin), ControlAnswer::DeletionBegun { attempt: first });
        let deleting = BucketRecord { phase: BucketPhase::Deleting, ..live(1) };
        assert_eq!(query::bucket(&state, &name).unwrap(), Some(deleting.clone()));
        assert_eq!(query::buckets(&state).unwrap(), [(name.clone(), deleting.clone())]);
        assert_eq!(query::deleting_buckets(&state).unwrap(), [(name.clone(), deleting)]);
        assert_eq!(run(&mut state, &create("one", 2)), ControlAnswer::BucketBusy);
        assert_eq!(run(&mut state, &cancel(first)), ControlAnswer::Done);
        assert_eq!(query::bucket(&state, &name).unwrap(), Some(live(1)));
        assert_eq!(run(&mut state, &begin), ControlAnswer::DeletionBegun { attempt: second });
        assert_eq!(run(&mut state, &finish(second)), ControlAnswer::Done);
        assert_eq!(run(&mut state, &create("one", 2)), ControlAnswer::BucketCreated(live(2)));
        assert_eq!(run(&mut state, &begin), ControlAnswer::NoSuchBucket);
    }

    #[test]
    fn a_deletion_has_one_owner_and_ends_once() {
        let mut state = MemoryState::new();
        let (name, id) = (name("one"), BucketId(1));
        let begin = |id| ControlCommand::BeginBucketDeletion { name: name.clone(), id };
        let [first, second] = [1, 2].map(DeletionAttempt);
        let finish = |id| ControlCommand::FinishBucketDeletion { name: name.clone(), id, attempt: first };
        let cancel = |id| ControlCommand::CancelBucketDeletion { name: name.clone(), id, attempt: first };
        run(&mut state, &create("one", 1));
        assert_eq!(run(&mut state, &cancel(id)), ControlAnswer::NoSuchBucket);
        assert_eq!(run(&mut state, &begin(BucketId(2))), ControlAnswer::NoSuchBucket);
        assert_eq!(run(&mut state, &begin(id)), ControlAnswer::DeletionBegun { attempt: first });
        let begun = state.clone();
        assert_eq!(run(&mut state, &begin(id)), ControlAnswer::BucketBusy);
        assert_eq!(run(&mut state, &begin(BucketId(2))), ControlAnswer::NoSuchBucket);
        assert_eq!(run(&mut state, &cancel(BucketId(2))), ControlAnswer::NoSuchBucket);
        assert_eq!(run(&mut state, &finish(BucketId(2))), ControlAnswer::NoSuchBucket);
        assert_eq!(state, begun);
        assert_eq!(run(&mut state, &cancel(id)), ControlAnswer::Done);
        assert_eq!(run(&mut state, &cancel(id)), ControlAnswer::NoSuchBucket);
        assert_eq!(run(&mut state, &finish(id)), ControlAnswer::NoSuchBucket);
        assert_eq!(query::bucket(&state, &name).unwrap(), Some(live(1)));
        assert_eq!(run(&mut state, &begin(id)), ControlAnswer::DeletionBegun { attempt: second });
        assert_eq!(run(&mut state, &finish(id)), ControlAnswer::DeletionTakenOver);
        let finish = ControlCommand::FinishBucketDeletion { name: name.clone(), id, attempt: second };
        assert_eq!(run(&mut state, &finish), ControlAnswer::Done);
        assert_eq!(run(&mut state, &cancel(id)), ControlAnswer::NoSuchBucket);
        assert_eq!(query::buckets(&state).unwrap(), []);
    }

    #[test]
    fn who_lost_a_deletion_to_another_can_neither_finish_nor_cancel_nor_take_it_back() {
        let mut state = MemoryState::new();
        let (name, id) = (name("one"), BucketId(1));
        let [first, second] = [1, 2].map(DeletionAttempt);
        let resume = |interrupted| ControlCommand::ResumeBucketDeletion { name: name.clone(), id, interrupted };
        let finish = |attempt| ControlCommand::FinishBucketDeletion { name: name.clone(), id, attempt };
        run(&mut state, &create("one", 1));
        assert_eq!(run(&mut state, &resume(first)), ControlAnswer::NoSuchBucket);
        run(&mut state, &ControlCommand::BeginBucketDeletion { name: name.clone(), id });
        assert_eq!(run(&mut state, &resume(first)), ControlAnswer::DeletionBegun { attempt: second });
        let taken_over = state.clone();
        let cancel = ControlCommand::CancelBucketDeletion { name: name.clone(), id, attempt: first };
        for late in [resume(first), finish(first), cancel] {
            assert_eq!(run(&mut state, &late), ControlAnswer::DeletionTakenOver);
        }
        assert_eq!(state, taken_over);
        assert_eq!(run(&mut state, &finish(second)), ControlAnswer::Done);
        assert_eq!(query::deletion_attempt(&state, id).unwrap(), DeletionAttempt::default());
    }

    #[test]
    fn access_keys_come_and_go() {
        let mut state = MemoryState::new();
        let record = |note: &str| AccessKeyRecord { sealed: Blob::default(), created_ms: 1, note: note.to_owned() };
        let (done, exists) = (ControlAnswer::Done, ControlAnswer::AccessKeyExists);
        for (id, note, answer) in
            [("B", "old", &done), ("A", "other", &done), ("B", "old", &done), ("B", "new", &exists)]
        {
            let put = ControlCommand::PutAccessKey { id: id.to_owned(), record: record(note) };
            assert_eq!(run(&mut state, &put), *answer);
        }
        assert_eq!(query::access_key(&state, "B").unwrap(), Some(record("old")));
        assert_eq!(query::access_key_count(&state).unwrap(), 2);
        let ids: Vec<String> = query::access_keys(&state).unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["A", "B"]);
        let delete = ControlCommand::DeleteAccessKey { id: "B".to_owned() };
        assert_eq!(run(&mut state, &delete), ControlAnswer::Done);
        assert_eq!(run(&mut state, &delete), ControlAnswer::NoSuchAccessKey);
        assert_eq!(query::access_key(&state, "B").unwrap(), None);
        let last = ControlCommand::DeleteAccessKey { id: "A".to_owned() };
        assert_eq!(run(&mut state, &last), ControlAnswer::LastAccessKey);
        assert_eq!(query::access_key(&state, "A").unwrap(), Some(record("other")));
    }

    #[test]
    fn a_first_key_that_was_deleted_does_not_come_back() {
        let mut state = MemoryState::new();
        let record = |note: &str| AccessKeyRecord { sealed: Blob::default(), created_ms: 1, note: note.to_owned() };
        let install = |id: &str, note| ControlCommand::InstallFirstKey { id: id.to_owned(), record: record(note) };
        assert_eq!(run(&mut state, &install("A", "first")), ControlAnswer::Done);
        assert_eq!(query::access_key(&state, "A").unwrap(), Some(record("first")));
        let installed = state.clone();
        assert_eq!(run(&mut state, &install("A", "again")), ControlAnswer::Done);
        assert_eq!(run(&mut state, &install("B", "another")), ControlAnswer::Done);
        assert_eq!(state, installed);
        let put = ControlCommand::PutAccessKey { id: "C".to_owned(), record: record("second") };
        assert_eq!(run(&mut state, &put), ControlAnswer::Done);
        let delete = ControlCommand::DeleteAccessKey { id: "A".to_owned() };
        assert_eq!(run(&mut state, &delete), ControlAnswer::Done);
        assert_eq!(run(&mut state, &install("A", "first")), ControlAnswer::Done);
        let ids: Vec<String> = query::access_keys(&state).unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["C"]);
    }

    #[test]
    fn a_topology_follows_only_its_predecessor() {
        let mut state = MemoryState::new();
        let first = cluster(&[None; 3], 1);
        let put = |expected_epoch, topology: &Topology| ControlCommand::PutTopology {
            expected_epoch,
            topology: topology.clone(),
        };
        assert_eq!(run(&mut state, &put(0, &first)), ControlAnswer::Done);
        assert_eq!(run(&mut state, &put(0, &first)), ControlAnswer::Done);
        let mut second = Topology { epoch: 2, ..first.clone() };
        assert_eq!(run(&mut state, &put(0, &second)), ControlAnswer::EpochMismatch { current: 1 });
        second.shards[0].clear();
        assert!(matches!(run(&mut state, &put(1, &second)), ControlAnswer::InvalidTopology { .. }));
        let skipping = Topology { epoch: 3, ..first.clone() };
        assert!(matches!(run(&mut state, &put(1, &skipping)), ControlAnswer::InvalidTopology { .. }));
        let foreign = Topology { epoch: 2, cluster: crate::ids::ClusterId::from_bytes([0; 16]), ..first.clone() };
        assert!(matches!(run(&mut state, &put(1, &foreign)), ControlAnswer::InvalidTopology { .. }));
        let second = Topology { epoch: 2, ..first };
        assert_eq!(run(&mut state, &put(1, &second)), ControlAnswer::Done);
        assert_eq!(query::topology(&state).unwrap(), Some(second));
    }

    #[test]
    fn a_node_has_one_life() {
        let mut state = MemoryState::new();
        let topology = cluster(&[None; 3], 1);
        let node = *topology.nodes.keys().next().unwrap();
        let remember =
            |node, byte| ControlCommand::RememberInstance { node, instance: InstanceId::from_bytes([byte; 16]) };
        assert_eq!(run(&mut state, &remember(node, 1)), ControlAnswer::NoSuchNode);
        run(&mut state, &ControlCommand::PutTopology { expected_epoch: 0, topology });
        assert_eq!(run(&mut state, &remember(node, 1)), ControlAnswer::Done);
        assert_eq!(run(&mut state, &remember(node, 1)), ControlAnswer::Done);
        let remembered = InstanceId::from_bytes([1; 16]);
        assert_eq!(run(&mut state, &remember(node, 2)), ControlAnswer::InstanceMismatch { remembered });
        assert_eq!(query::instance(&state, node).unwrap(), Some(remembered));
    }

    #[test]
    fn a_bucket_name_that_is_none_is_refused() {
        let mut state = MemoryState::new();
        let mut bytes = create("abc", 1).encode();
        bytes[3] = b'A';
        assert_eq!(apply(&mut state, &bytes).unwrap(), ControlAnswer::Invalid.encode());
        assert_eq!(state, MemoryState::new());
    }

    #[test]
    fn unknown_commands_change_nothing() {
        let mut state = MemoryState::new();
        for bytes in [&[][..], &[1], &[1, 99], &[2, 0], &[0xff; 40]] {
            assert_eq!(apply(&mut state, bytes).unwrap(), ControlAnswer::Unsupported.encode());
        }
        assert_eq!(state, MemoryState::new());
    }

    proptest! {
        #[test]
        fn arbitrary_commands_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut state = MemoryState::new();
            let mut bytes = vec![1, body.first().copied().unwrap_or(0) % 9];
            bytes.extend_from_slice(&body);
            prop_assert!(ControlAnswer::decode(&apply(&mut state, &bytes).unwrap()).is_ok());
        }
    }
}
