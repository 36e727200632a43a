//! Sealing, unsealing and dropping buckets: a shard's part in a bucket's deletion (DESIGN §6).

use crate::ids::BucketId;
use crate::index::command::{BucketStatus, IndexAnswer};
use crate::index::{keys, query};
use crate::state::{StateError, StateRead, StateWrite, put_record};

/// Whether writes to the bucket must be refused.
pub(super) fn is_closed(state: &dyn StateRead, bucket: BucketId) -> Result<bool, StateError> {
    Ok(query::bucket_status(state, bucket)? != BucketStatus::Open)
}

pub(super) fn seal(state: &mut dyn StateWrite, bucket: BucketId) -> Result<IndexAnswer, StateError> {
    if query::bucket_status(state, bucket)? == BucketStatus::Open {
        put_record(state, keys::seal_key(bucket), &BucketStatus::Sealed);
    }
    answer(state, bucket)
}

pub(super) fn unseal(state: &mut dyn StateWrite, bucket: BucketId) -> Result<IndexAnswer, StateError> {
    if query::bucket_status(state, bucket)? == BucketStatus::Sealed {
        state.delete(keys::seal_key(bucket));
    }
    answer(state, bucket)
}

pub(super) fn drop(state: &mut dyn StateWrite, bucket: BucketId) -> Result<IndexAnswer, StateError> {
    if query::bucket_status(state, bucket)? == BucketStatus::Sealed && query::is_empty(state, bucket)? {
        put_record(state, keys::seal_key(bucket), &BucketStatus::Dropped);
        state.delete(keys::usage_key(bucket));
    }
    answer(state, bucket)
}

fn answer(state: &dyn StateRead, bucket: BucketId) -> Result<IndexAnswer, StateError> {
    Ok(IndexAnswer::Bucket { status: query::bucket_status(state, bucket)?, empty: query::is_empty(state, bucket)? })
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
        let [seal, unseal, drop] = [
            IndexCommand::SealBucket { bucket: BUCKET },
            IndexCommand::UnsealBucket { bucket: BUCKET },
            IndexCommand::DropBucket { bucket: BUCKET },
        ];
        run(&mut state, &put("a", 1));
        assert_eq!(status(&mut state, &drop), (BucketStatus::Open, false));
        assert_eq!(status(&mut state, &seal), (BucketStatus::Sealed, false));
        assert_eq!(status(&mut state, &drop), (BucketStatus::Sealed, false));
        assert_eq!(status(&mut state, &unseal), (BucketStatus::Open, false));
        assert!(matches!(run(&mut state, &put("b", 2)), IndexAnswer::Stored(_)));
        status(&mut state, &seal);
        run(&mut state, &delete("a"));
        run(&mut state, &delete("b"));
        assert_eq!(status(&mut state, &drop), (BucketStatus::Dropped, true));
        assert_eq!(status(&mut state, &unseal), (BucketStatus::Dropped, true));
        assert_eq!(run(&mut state, &put("a", 3)), IndexAnswer::Sealed);
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
        status(&mut state, &IndexCommand::SealBucket { bucket: BUCKET });
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
        assert_eq!(status(&mut state, &IndexCommand::DropBucket { bucket: BUCKET }), (BucketStatus::Dropped, true));
        let dropped = state.clone();
        for command in unanswerable.iter().filter(|command| !matches!(command, IndexCommand::PutPart { .. })) {
            assert_eq!(run(&mut state, command), IndexAnswer::Sealed, "{command:?}");
        }
        assert_eq!(state, dropped);
    }

    #[test]
    fn writes_to_a_sealed_bucket_are_refused_and_leave_garbage_only() {
        let mut state = MemoryState::new();
        run(&mut state, &create_upload("a"));
        run(&mut state, &put_part("a", 1, 1));
        assert_eq!(status(&mut state, &IndexCommand::SealBucket { bucket: BUCKET }), (BucketStatus::Sealed, false));
        assert_eq!(run(&mut state, &put("a", 2)), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &put_part("a", 2, 3)), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &create_upload("b")), IndexAnswer::Sealed);
        assert_eq!(run(&mut state, &complete("a", &[(1, 1)])), IndexAnswer::Sealed);
        assert_eq!(garbage(&state), chunks_of(&[2, 3]));
        assert_eq!(run(&mut state, &abort("a")), IndexAnswer::Done);
        assert_eq!(garbage(&state), chunks_of(&[1, 2, 3]));
        assert_eq!(status(&mut state, &IndexCommand::DropBucket { bucket: BUCKET }), (BucketStatus::Dropped, true));
    }
}
