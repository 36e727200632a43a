//! Sealing, unsealing and dropping buckets: a shard's part in a bucket's deletion (`engine/buckets.rs`).

use super::upload::{self, OpenUploads};
use crate::ids::{BucketId, DeletionAttempt};
use crate::index::command::{BucketSeal, BucketStatus, IndexAnswer};
use crate::index::{keys, query};
use crate::state::{StateError, StateRead, StateWrite, put_record};

/// Whether writes to the bucket must be refused.
pub(super) fn is_closed(state: &dyn StateRead, bucket: BucketId) -> Result<bool, StateError> {
    Ok(query::bucket_status(state, bucket)? != BucketStatus::Open)
}

pub(super) fn seal(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    attempt: DeletionAttempt,
) -> Result<IndexAnswer, StateError> {
    mark(state, bucket, BucketSeal { status: BucketStatus::Sealed, attempt }, |latest| latest < attempt)
}

/// The seal stays as a record of who opened it: a late command of the same attempt must not close the bucket again.
pub(super) fn unseal(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    attempt: DeletionAttempt,
) -> Result<IndexAnswer, StateError> {
    mark(state, bucket, BucketSeal { status: BucketStatus::Open, attempt }, |latest| latest <= attempt)
}

/// Puts `seal` in place of one that is not dropped, if the attempt that made that may be overruled.
fn mark(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    seal: BucketSeal,
    overrules: impl Fn(DeletionAttempt) -> bool,
) -> Result<IndexAnswer, StateError> {
    let current = query::bucket_seal(state, bucket)?;
    if current.status != BucketStatus::Dropped && overrules(current.attempt) {
        put_record(state, keys::seal_key(bucket), &seal);
    }
    answer(state, bucket, seal.attempt)
}

pub(super) fn drop(
    state: &mut dyn StateWrite,
    bucket: BucketId,
    attempt: DeletionAttempt,
    now_ms: u64,
) -> Result<IndexAnswer, StateError> {
    let sealed = BucketSeal { status: BucketStatus::Sealed, attempt };
    let may_drop = query::bucket_seal(state, bucket)? == sealed && query::is_empty(state, bucket)?;
    if may_drop && upload::abort_some(state, bucket, now_ms)? == OpenUploads::None {
        put_record(state, keys::seal_key(bucket), &BucketSeal { status: BucketStatus::Dropped, attempt });
        state.delete(keys::usage_key(bucket));
    }
    answer(state, bucket, attempt)
}

/// Dropped is dropped, whoever did it. Otherwise only the latest attempt may act on what it hears.
fn answer(state: &dyn StateRead, bucket: BucketId, attempt: DeletionAttempt) -> Result<IndexAnswer, StateError> {
    let BucketSeal { status, attempt: latest } = query::bucket_seal(state, bucket)?;
    if status != BucketStatus::Dropped && latest > attempt {
        return Ok(IndexAnswer::DeletionTakenOver);
    }
    Ok(IndexAnswer::Bucket { status, empty: query::is_empty(state, bucket)? })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::*;
    use super::*;
    use crate::index::{FailedCondition, IndexCommand};
    use crate::state::MemoryState;
    use crate::store::{Condition, EntityTag};

    fn status(state: &mut MemoryState, command: &IndexCommand) -> (BucketStatus, bool) {
        match run(state, command) {
            IndexAnswer::Bucket { status, empty } => (status, empty),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn a_bucket_is_dropped_only_when_sealed_and_empty() {
        let mut state = MemoryState::new();
        run(&mut state, &put("a", 1));
        assert_eq!(status(&mut state, &drop_by(1)), (BucketStatus::Open, false));
        assert_eq!(status(&mut state, &seal_by(1)), (BucketStatus::Sealed, false));
        assert_eq!(status(&mut state, &drop_by(1)), (BucketStatus::Sealed, false));
        assert_eq!(status(&mut state, &unseal_by(1)), (BucketStatus::Open, false));
        assert!(matches!(run(&mut state, &put("b", 2)), IndexAnswer::Stored(_)));
        status(&mut state, &seal_by(2));
        run(&mut state, &delete("a"));
        run(&mut state, &delete("b"));
        assert_eq!(status(&mut state, &drop_by(2)), (BucketStatus::Dropped, true));
        assert_eq!(status(&mut state, &unseal_by(2)), (BucketStatus::Dropped, true));
        assert_eq!(status(&mut state, &seal_by(3)), (BucketStatus::Dropped, true));
        assert_eq!(run(&mut state, &put("a", 3)), IndexAnswer::Sealed);
    }

    #[test]
    fn what_an_earlier_attempt_still_has_on_its_way_changes_nothing() {
        let mut state = MemoryState::new();
        status(&mut state, &seal_by(1));
        assert_eq!(status(&mut state, &seal_by(2)), (BucketStatus::Sealed, true));
        let taken_over = state.clone();
        for late in [seal_by(1), unseal_by(1), drop_by(1)] {
            assert_eq!(run(&mut state, &late), IndexAnswer::DeletionTakenOver);
        }
        assert_eq!(state, taken_over);
        assert_eq!(status(&mut state, &unseal_by(2)), (BucketStatus::Open, true));
        for late in [seal_by(1), drop_by(1)] {
            assert_eq!(run(&mut state, &late), IndexAnswer::DeletionTakenOver);
        }
        for late in [seal_by(2), drop_by(2)] {
            assert_eq!(status(&mut state, &late), (BucketStatus::Open, true));
        }
    }

    #[test]
    fn a_shard_that_never_heard_of_the_seal_does_not_close_after_it_was_told_to_open() {
        let mut state = MemoryState::new();
        assert_eq!(status(&mut state, &unseal_by(1)), (BucketStatus::Open, true));
        assert_eq!(status(&mut state, &seal_by(1)), (BucketStatus::Open, true));
        assert_eq!(status(&mut state, &seal_by(2)), (BucketStatus::Sealed, true));
    }

    fn seal_by(attempt: u64) -> IndexCommand {
        IndexCommand::SealBucket { bucket: BUCKET, attempt: DeletionAttempt(attempt) }
    }

    fn unseal_by(attempt: u64) -> IndexCommand {
        IndexCommand::UnsealBucket { bucket: BUCKET, attempt: DeletionAttempt(attempt) }
    }

    fn drop_by(attempt: u64) -> IndexCommand {
        IndexCommand::DropBucket { bucket: BUCKET, attempt: DeletionAttempt(attempt), now_ms: NOW }
    }

    fn conditional_delete(name: &str, condition: Condition) -> IndexCommand {
        IndexCommand::DeleteObject { bucket: BUCKET, key: key(name), condition, now_ms: NOW }
    }

    #[test]
    fn nothing_is_said_of_keys_and_uploads_that_a_closed_bucket_does_not_hold() {
        let mut state = MemoryState::new();
        let must_exist = Condition { if_match: Some(EntityTag::Any), if_none_match: None };
        let unanswerable = [
            delete("absent"),
            conditional_delete("absent", must_exist),
            abort("absent"),
            complete("absent", &[(1, 1)]),
            put_part("absent", 1, 1),
            create_upload("absent"),
        ];
        run(&mut state, &put("a", 1));
        run(&mut state, &create_upload("a"));
        status(&mut state, &seal_by(1));
        for command in &unanswerable {
            assert_eq!(run(&mut state, command), IndexAnswer::Sealed, "{command:?}");
        }
        let must_be_absent = Condition { if_match: None, if_none_match: Some(EntityTag::Any) };
        assert_eq!(
            run(&mut state, &conditional_delete("a", must_be_absent)),
            IndexAnswer::PreconditionFailed(FailedCondition::IfNoneMatch)
        );
        assert_eq!(run(&mut state, &delete("a")), IndexAnswer::Deleted { existed: true });
        assert_eq!(run(&mut state, &delete("a")), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &abort("a")), IndexAnswer::Done);
        assert_eq!(run(&mut state, &abort("a")), IndexAnswer::Sealed);
        assert_eq!(status(&mut state, &drop_by(1)), (BucketStatus::Dropped, true));
        let dropped = state.clone();
        for command in unanswerable.iter().filter(|command| !matches!(command, IndexCommand::PutPart { .. })) {
            assert_eq!(run(&mut state, command), IndexAnswer::Sealed, "{command:?}");
        }
        assert_eq!(state, dropped);
    }

    #[test]
    fn open_uploads_go_with_their_bucket_a_bounded_number_at_a_time() {
        let mut state = MemoryState::new();
        for name in ["a", "b", "c"] {
            run(&mut state, &create_upload(name));
            for number in 1..=600 {
                run(&mut state, &put_part(name, number, 1));
            }
        }
        assert_eq!(status(&mut state, &seal_by(1)), (BucketStatus::Sealed, true));
        assert_eq!(status(&mut state, &drop_by(1)), (BucketStatus::Sealed, true), "two uploads are enough at once");
        assert_eq!(status(&mut state, &drop_by(1)), (BucketStatus::Dropped, true));
        for table in [keys::UPLOADS, keys::PARTS] {
            let prefix = keys::prefix_key(table, BUCKET, "");
            assert!(!state.iter().any(|(key, _)| key.starts_with(&prefix)), "table {table}");
        }
        assert_eq!(garbage(&state), chunks_of(&[1]));
    }

    #[test]
    fn writes_to_a_sealed_bucket_are_refused_and_leave_garbage_only() {
        let mut state = MemoryState::new();
        run(&mut state, &create_upload("a"));
        run(&mut state, &put_part("a", 1, 1));
        assert_eq!(status(&mut state, &seal_by(1)), (BucketStatus::Sealed, true));
        assert_eq!(run(&mut state, &put("a", 2)), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &put_part("a", 2, 3)), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &create_upload("b")), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &complete("a", &[(1, 1)])), IndexAnswer::Sealed);
        assert_eq!(garbage(&state), chunks_of(&[2, 3]));
        assert_eq!(run(&mut state, &abort("a")), IndexAnswer::Done);
        assert_eq!(garbage(&state), chunks_of(&[1, 2, 3]));
        assert_eq!(status(&mut state, &drop_by(1)), (BucketStatus::Dropped, true));
    }
}
