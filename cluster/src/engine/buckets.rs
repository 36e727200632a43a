//! Buckets: made and removed in the control group, sealed and checked for emptiness in every shard.
//!
//! A deletion is begun in the control group, then the bucket is sealed in all shards. If none has objects, it is dropped in
//! all, with its open uploads, and its deletion finished; else it is unsealed in all and the deletion cancelled. It is never
//! unsealed after a drop began. Meanwhile every operation on the bucket is answered with [`StoreError::BucketBusy`]: whether it exists
//! is not decided, so neither success nor `NoSuchBucket` would be true.
//!
//! Every attempt has a number from the control group. A deletion whose gateway went away is taken up under the next
//! number, and whatever the earlier attempt still has on its way is refused: by each shard from its new seal on, by the
//! control group at once. So a gateway that was paused in the middle can do no harm when it wakes up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use rand::RngCore as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::access::unexpected;
use super::{ClusterStore, Engine};
use crate::consensus::{GroupId, ReplicaRole};
use crate::control::{BucketPhase, BucketRecord, ControlAnswer, ControlCommand, query};
use crate::ids::{BucketId, DeletionAttempt};
use crate::index::{BucketStatus, IndexAnswer, IndexCommand};
use crate::member::ViewState;
use crate::state::{StateError, StateRead};
use crate::store::{Bucket, BucketName, Context, StoreError};

/// A deletion is given up by its gateway long before (after its begin at most three steps, each within the decision
/// deadline), so that only those are taken over that nobody works on.
const INTERRUPTED_AFTER: Duration = Duration::from_secs(120);

impl Engine {
    pub(super) async fn create_bucket(&self, _context: &Context, name: &BucketName) -> Result<Bucket, StoreError> {
        let id = BucketId(self.member.randomness().with(|rng| rng.next_u64()));
        let created_ms = self.member.now_ms();
        match self.control.propose(&ControlCommand::CreateBucket { name: name.clone(), id, created_ms }).await? {
            ControlAnswer::BucketCreated(record) => Ok(bucket(name.clone(), &record)),
            ControlAnswer::BucketExists(_) => Err(StoreError::BucketExists(name.clone())),
            ControlAnswer::BucketBusy => Err(StoreError::BucketBusy(name.clone())),
            other => Err(unexpected(&other)),
        }
    }

    /// A bucket as of now.
    pub(super) async fn bucket(&self, name: &BucketName) -> Result<Bucket, StoreError> {
        let record = live(name, self.control.current_bucket(name).await?)?;
        Ok(bucket(name.clone(), &record))
    }

    /// All buckets as of now. One that is being deleted is among them until its deletion is finished.
    pub(super) async fn buckets(&self) -> Result<Vec<Bucket>, StoreError> {
        Ok(self.control.buckets().await?.into_iter().map(|(name, record)| bucket(name, &record)).collect())
    }

    /// The id behind a name, from this node's replica: one that is out of date is found out by the shard, which has
    /// sealed the bucket.
    pub(super) async fn bucket_id(&self, name: &BucketName) -> Result<BucketId, StoreError> {
        Ok(live(name, self.control.bucket(name).await?)?.id)
    }

    /// After a shard said that the bucket `stale` is sealed: another id if the name was given anew.
    pub(super) async fn renewed_bucket_id(&self, name: &BucketName, stale: BucketId) -> Result<BucketId, StoreError> {
        let record = live(name, self.control.current_bucket(name).await?)?;
        // In use under the same id: its deletion was given up since the shard answered.
        if record.id == stale { Err(StoreError::BucketBusy(name.clone())) } else { Ok(record.id) }
    }

    /// Deletes an empty bucket. It runs in a task of its own: a client that goes away does not leave the bucket half
    /// deleted, which would close it until the control leader takes the deletion up.
    pub(super) async fn delete_bucket(self: &Arc<Self>, name: &BucketName) -> Result<(), StoreError> {
        let (engine, name) = (Arc::clone(self), name.clone());
        let deletion = tokio::spawn(async move { engine.delete_if_empty(&name).await });
        deletion.await.map_err(|error| StoreError::Internal(format!("a bucket deletion broke off: {error}")))?
    }

    async fn delete_if_empty(&self, name: &BucketName) -> Result<(), StoreError> {
        let bucket = self.bucket(name).await?;
        // Asked first, so that a bucket in use is not closed in vain; decided under the seal.
        if !self.is_empty(bucket.id).await? {
            return Err(StoreError::BucketNotEmpty(name.clone()));
        }
        let begin = ControlCommand::BeginBucketDeletion { name: name.clone(), id: bucket.id };
        // An unknown outcome is left to the control leader: the deletion that began may be somebody else's.
        match self.control.propose(&begin).await? {
            ControlAnswer::DeletionBegun { attempt } => {
                let deletion = Deletion { name: name.clone(), id: bucket.id, attempt };
                self.carry_out(&deletion, Progress::NothingDropped).await
            }
            ControlAnswer::NoSuchBucket => Err(StoreError::NoSuchBucket(name.clone())),
            ControlAnswer::BucketBusy => Err(StoreError::BucketBusy(name.clone())),
            other => Err(unexpected(&other)),
        }
    }

    async fn is_empty(&self, bucket: BucketId) -> Result<bool, StoreError> {
        let shards = self.member.topology().shard_indexes();
        let answers = try_join_all(shards.map(|shard| self.index.is_empty(shard, bucket))).await?;
        Ok(answers.into_iter().all(|empty| empty))
    }

    /// Seals the bucket in every shard; drops it if all are empty, else opens it again.
    async fn carry_out(&self, deletion: &Deletion, progress: Progress) -> Result<(), StoreError> {
        let &Deletion { id: bucket, attempt, .. } = deletion;
        let answers = self.tell_shards(|| IndexCommand::SealBucket { bucket, attempt }).await;
        match after_seal(&deletion.name, progress, answers) {
            Next::Drop => self.drop_bucket(deletion).await,
            Next::Leave(error) => Err(error),
            Next::Reopen(error) => {
                if let Err(problem) = self.reopen_bucket(deletion).await {
                    tracing::warn!(
                        bucket = %deletion.name, error = %problem,
                        "a bucket stays closed until the control leader opens it"
                    );
                }
                Err(error)
            }
        }
    }

    /// The point of no return: from the first drop on, a shard may have forgotten the bucket for ever.
    async fn drop_bucket(&self, deletion: &Deletion) -> Result<(), StoreError> {
        let Deletion { name, id, attempt } = deletion.clone();
        let now_ms = self.member.now_ms();
        loop {
            let answers = self.tell_shards(|| IndexCommand::DropBucket { bucket: id, attempt, now_ms }).await;
            // A shard with many open uploads forgets them some at a time.
            let is_partly = |answer: &Result<_, _>| {
                matches!(answer, Ok(IndexAnswer::Bucket { status: BucketStatus::Sealed, empty: true }))
            };
            if !answers.iter().any(is_partly) {
                check_all(&name, answers, BucketStatus::Dropped)?;
                break;
            }
        }
        let gone = StoreError::NoSuchBucket(name.clone());
        self.end(&name, &ControlCommand::FinishBucketDeletion { name: name.clone(), id, attempt }, gone).await
    }

    /// Gives a deletion up. The name opens only after every shard has: a shard left sealed would refuse its share of
    /// the keys of a bucket in use.
    async fn reopen_bucket(&self, deletion: &Deletion) -> Result<(), StoreError> {
        let Deletion { name, id, attempt } = deletion.clone();
        let answers = self.tell_shards(|| IndexCommand::UnsealBucket { bucket: id, attempt }).await;
        check_all(&name, answers, BucketStatus::Open)?;
        let gone = StoreError::BucketBusy(name.clone());
        self.end(&name, &ControlCommand::CancelBucketDeletion { name: name.clone(), id, attempt }, gone).await
    }

    /// Ends a deletion in the control group; `gone` is what it means that the bucket is not being deleted any more.
    async fn end(&self, name: &BucketName, end: &ControlCommand, gone: StoreError) -> Result<(), StoreError> {
        match self.control.propose(end).await? {
            ControlAnswer::Done => Ok(()),
            ControlAnswer::NoSuchBucket => Err(gone),
            // Whoever took it over has ended it, or goes on with it.
            ControlAnswer::DeletionTakenOver => Err(StoreError::BucketBusy(name.clone())),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the answers of all shards, also after one has failed: what is still on its way must not arrive after
    /// the command that follows.
    async fn tell_shards(&self, command: impl Fn() -> IndexCommand) -> Vec<Result<IndexAnswer, StoreError>> {
        let shards = self.member.topology().shard_indexes();
        join_all(shards.map(|shard| self.index.propose(shard, command()))).await
    }
}

/// A deletion and who carries it out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deletion {
    name: BucketName,
    id: BucketId,
    attempt: DeletionAttempt,
}

/// What is known of the attempts before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There were none.
    NothingDropped,
    /// An earlier one may have come as far as to drop the bucket in some shards.
    Unknown,
}

/// What follows the seal.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The bucket is empty, or was when a drop began.
    Drop,
    /// Nothing was dropped: the bucket opens again.
    Reopen(StoreError),
    /// Something was or may have been dropped: neither can be done now.
    Leave(StoreError),
}

fn after_seal(name: &BucketName, progress: Progress, answers: Vec<Result<IndexAnswer, StoreError>>) -> Next {
    let (mut drop_began, mut empty, mut failure) = (false, true, None);
    for answer in answers {
        match answer {
            Ok(IndexAnswer::Bucket {
                status: status @ (BucketStatus::Sealed | BucketStatus::Dropped),
                empty: here,
            }) => {
                drop_began |= status == BucketStatus::Dropped;
                empty &= here;
            }
            Ok(other) => failure = Some(refusal(name, &other)),
            Err(error) => failure = Some(error),
        }
    }
    match (failure, drop_began, progress) {
        (None, _, _) if empty => Next::Drop,
        (None, false, _) => Next::Reopen(StoreError::BucketNotEmpty(name.clone())),
        (Some(error), false, Progress::NothingDropped) => Next::Reopen(error),
        (None, true, _) => Next::Leave(StoreError::Internal(format!("bucket {name} is dropped but not empty"))),
        // A shard that did not answer may be the one that has dropped the bucket.
        (Some(error), _, _) => Next::Leave(error),
    }
}

/// Whether all shards answered that the bucket has this status.
fn check_all(
    name: &BucketName,
    answers: Vec<Result<IndexAnswer, StoreError>>,
    wanted: BucketStatus,
) -> Result<(), StoreError> {
    for answer in answers {
        match answer? {
            IndexAnswer::Bucket { status, .. } if status == wanted => {}
            other => return Err(refusal(name, &other)),
        }
    }
    Ok(())
}

fn refusal(name: &BucketName, answer: &IndexAnswer) -> StoreError {
    match answer {
        IndexAnswer::DeletionTakenOver => StoreError::BucketBusy(name.clone()),
        other => StoreError::Internal(format!("a shard answered {other:?} to a step of the deletion of bucket {name}")),
    }
}

/// A bucket that can be used. One that is being deleted exists still, and may go on to: the client asks again.
fn live(name: &BucketName, record: Option<BucketRecord>) -> Result<BucketRecord, StoreError> {
    let record = record.ok_or_else(|| StoreError::NoSuchBucket(name.clone()))?;
    match record.phase {
        BucketPhase::Live => Ok(record),
        BucketPhase::Deleting => Err(StoreError::BucketBusy(name.clone())),
    }
}

fn bucket(name: BucketName, record: &BucketRecord) -> Bucket {
    Bucket { name, id: record.id, created_ms: record.created_ms }
}

/// Takes up bucket deletions whose gateway went away, on the node that leads the control group, until `stop`.
pub(crate) async fn finish_interrupted_deletions(store: ClusterStore, stop: CancellationToken) {
    let mut ticks = interval(INTERRUPTED_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen_before = BTreeSet::new();
    let work = async {
        loop {
            ticks.tick().await;
            seen_before = store.0.resume_deletions(&seen_before).await;
        }
    };
    // Also in the middle of a deletion: any step may be cut off, and whoever leads next looks how far it came.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl Engine {
    /// Works on the deletions that were under way at the last look already; returns those under way at this one.
    async fn resume_deletions(&self, seen_before: &BTreeSet<Deletion>) -> BTreeSet<Deletion> {
        let deletions = self.deletions();
        for interrupted in deletions.intersection(seen_before) {
            let name = &interrupted.name;
            match self.take_over(interrupted).await {
                Ok(()) => tracing::info!(bucket = %name, "finished an interrupted bucket deletion"),
                Err(error) => tracing::info!(bucket = %name, %error, "an interrupted bucket deletion was not finished"),
            }
        }
        deletions
    }

    async fn take_over(&self, interrupted: &Deletion) -> Result<(), StoreError> {
        let Deletion { name, id, attempt } = interrupted.clone();
        let resume = ControlCommand::ResumeBucketDeletion { name: name.clone(), id, interrupted: attempt };
        match self.control.propose(&resume).await? {
            ControlAnswer::DeletionBegun { attempt } => {
                self.carry_out(&Deletion { name, id, attempt }, Progress::Unknown).await
            }
            // It came to its end meanwhile, or another leader was quicker.
            ControlAnswer::NoSuchBucket | ControlAnswer::DeletionTakenOver => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Buckets being deleted, if this node leads the control group; else none.
    fn deletions(&self) -> BTreeSet<Deletion> {
        let Some(replica) = self.member.group(GroupId::CONTROL) else { return BTreeSet::new() };
        if replica.status().role != ReplicaRole::Leader {
            return BTreeSet::new();
        }
        match deletions(&ViewState(replica.view())) {
            Ok(deletions) => deletions,
            Err(error) => {
                tracing::error!(%error, "the control state cannot be read");
                BTreeSet::new()
            }
        }
    }
}

fn deletions(state: &dyn StateRead) -> Result<BTreeSet<Deletion>, StateError> {
    let deletion = |(name, BucketRecord { id, .. })| {
        query::deletion_attempt(state, id).map(|attempt| Deletion { name, id, attempt })
    };
    query::deleting_buckets(state)?.into_iter().map(deletion).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Unavailable;

    type Answer = Result<IndexAnswer, StoreError>;

    fn name() -> BucketName {
        BucketName::new("abc").unwrap()
    }

    fn answer(status: BucketStatus, empty: bool) -> Answer {
        Ok(IndexAnswer::Bucket { status, empty })
    }

    fn silent() -> StoreError {
        Unavailable::NotServing("stopping").into()
    }

    fn next(progress: Progress, answers: &[Answer]) -> Next {
        after_seal(&name(), progress, answers.to_vec())
    }

    #[test]
    fn an_empty_bucket_is_dropped_and_one_in_use_opens_again() {
        let (empty, used) = (answer(BucketStatus::Sealed, true), answer(BucketStatus::Sealed, false));
        for progress in [Progress::NothingDropped, Progress::Unknown] {
            assert_eq!(next(progress, &[empty.clone(), empty.clone()]), Next::Drop);
            let not_empty = StoreError::BucketNotEmpty(name());
            assert_eq!(next(progress, &[empty.clone(), used.clone()]), Next::Reopen(not_empty));
        }
    }

    #[test]
    fn a_bucket_is_never_opened_again_once_a_drop_may_have_begun() {
        let (empty, used) = (answer(BucketStatus::Sealed, true), answer(BucketStatus::Sealed, false));
        let dropped = answer(BucketStatus::Dropped, true);
        assert_eq!(next(Progress::Unknown, &[dropped.clone(), empty.clone()]), Next::Drop);
        assert!(matches!(next(Progress::Unknown, &[dropped.clone(), used]), Next::Leave(_)));
        assert_eq!(next(Progress::Unknown, &[empty.clone(), Err(silent())]), Next::Leave(silent()));
        assert_eq!(next(Progress::NothingDropped, &[dropped, Err(silent())]), Next::Leave(silent()));
        assert_eq!(next(Progress::NothingDropped, &[empty, Err(silent())]), Next::Reopen(silent()));
    }

    #[test]
    fn who_was_overtaken_or_did_not_seal_drops_nothing() {
        let empty = answer(BucketStatus::Sealed, true);
        let taken_over = Next::Leave(StoreError::BucketBusy(name()));
        assert_eq!(next(Progress::Unknown, &[empty.clone(), Ok(IndexAnswer::DeletionTakenOver)]), taken_over);
        assert!(matches!(next(Progress::Unknown, &[empty, answer(BucketStatus::Open, true)]), Next::Leave(_)));
    }

    #[test]
    fn a_step_is_done_only_when_every_shard_has_done_it() {
        let (open, dropped) = (answer(BucketStatus::Open, true), answer(BucketStatus::Dropped, true));
        assert_eq!(check_all(&name(), vec![dropped.clone(), dropped.clone()], BucketStatus::Dropped), Ok(()));
        assert!(check_all(&name(), vec![dropped.clone(), open], BucketStatus::Dropped).is_err());
        assert_eq!(check_all(&name(), vec![dropped, Err(silent())], BucketStatus::Dropped), Err(silent()));
    }

    #[test]
    fn a_bucket_being_deleted_is_busy_not_absent() {
        let record = |phase| Some(BucketRecord { id: BucketId(1), created_ms: 5, phase });
        assert_eq!(live(&name(), record(BucketPhase::Live)).map(|record| record.id), Ok(BucketId(1)));
        assert_eq!(live(&name(), record(BucketPhase::Deleting)), Err(StoreError::BucketBusy(name())));
        assert_eq!(live(&name(), None), Err(StoreError::NoSuchBucket(name())));
    }
}
