//! Random commands against a reference model: answers, counters, and the books of chunks. Every chunk ever committed
//! is referred to, or in the garbage queue, or was cleared from it; never two of these.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::fixture::*;
use crate::ids::{BucketId, DeletionAttempt, DriveId, ExtentId, Scheme, UploadId, VersionId};
use crate::index::{
    BucketUsage, Content, ExtentRecord, GarbageExtent, IndexAnswer, IndexCommand, MoveOutcome, ObjectEntry,
    PartAddress, PartRecord, UploadRecord, query,
};
use crate::state::MemoryState;
use crate::store::{CompletedPart, Condition, ETag, EntityTag, ObjectMetadata, PART_LEN_MIN};

/// A random step; small numbers so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Put { bucket: u8, key: u8, condition: u8, extents: u8, abandoned: bool },
    Delete { bucket: u8, key: u8, condition: u8 },
    Create { bucket: u8, key: u8, upload: u8 },
    Part { bucket: u8, key: u8, upload: u8, number: u8, small: bool },
    Complete { bucket: u8, key: u8, upload: u8, mask: u8, condition: u8 },
    Abort { bucket: u8, key: u8, upload: u8 },
    Seal { bucket: u8, on: bool },
    Move { pick: u8, slot: u8, to: u8, stale: bool },
    Clear { count: u8 },
    Reschedule { keep: u8 },
    Drop,
    Again { back: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let (bucket, key, upload) = (0..2_u8, 0..2_u8, 0..2_u8);
    let place = (bucket.clone(), key.clone(), upload.clone());
    prop_oneof![
        4 => (bucket.clone(), key.clone(), 0..4_u8, 0..3_u8, any::<bool>()).prop_map(|(bucket, key, condition, extents, abandoned)| Step::Put { bucket, key, condition, extents, abandoned }),
        2 => (bucket.clone(), key, 0..4_u8).prop_map(|(bucket, key, condition)| Step::Delete { bucket, key, condition }),
        2 => place.clone().prop_map(|(bucket, key, upload)| Step::Create { bucket, key, upload }),
        5 => (place.clone(), 1..4_u8, proptest::bool::weighted(0.2)).prop_map(|((bucket, key, upload), number, small)| Step::Part { bucket, key, upload, number, small }),
        3 => (place.clone(), 0..8_u8, 0..4_u8).prop_map(|((bucket, key, upload), mask, condition)| Step::Complete { bucket, key, upload, mask, condition }),
        1 => place.prop_map(|(bucket, key, upload)| Step::Abort { bucket, key, upload }),
        1 => (bucket, proptest::bool::weighted(0.3)).prop_map(|(bucket, on)| Step::Seal { bucket, on }),
        4 => (any::<u8>(), 0..3_u8, 0..8_u8, proptest::bool::weighted(0.2)).prop_map(|(pick, slot, to, stale)| Step::Move { pick, slot, to, stale }),
        1 => (1..4_u8).prop_map(|count| Step::Clear { count }),
        1 => any::<u8>().prop_map(|keep| Step::Reschedule { keep }),
        1 => Just(Step::Drop),
        1 => (0..4_u8).prop_map(|back| Step::Again { back }),
    ]
}

#[derive(Clone)]
struct ModelObject {
    etag: ETag,
    len: u64,
    upload: Option<UploadId>,
}

#[derive(Clone, Default)]
struct ModelUpload {
    parts: BTreeMap<u32, (ETag, u64)>,
}

type Place = (BucketId, String);

/// What S3 says there is, and the chunks that were ever committed.
#[derive(Default)]
struct World {
    state: MemoryState,
    objects: BTreeMap<Place, ModelObject>,
    uploads: BTreeMap<(Place, UploadId), ModelUpload>,
    sealed: BTreeSet<BucketId>,
    attempt: DeletionAttempt,
    committed: BTreeSet<Chunk>,
    cleared: BTreeSet<Chunk>,
    next: u64,
    history: Vec<(IndexCommand, IndexAnswer)>,
}

fn drive(number: u8) -> DriveId {
    DriveId::from_bytes([number; 8])
}

impl World {
    fn id(&mut self) -> [u8; 16] {
        self.next += 1;
        u128::from(self.next).to_be_bytes()
    }

    fn extents(&mut self, count: u8) -> Content {
        let extent = |id| ExtentRecord {
            id: ExtentId::from_bytes(id),
            len: 10,
            scheme: Scheme { data: 2, parity: 1 },
            drives: (0..3).map(drive).collect(),
        };
        let extents: Vec<ExtentRecord> = (0..count).map(|_| extent(self.id())).collect();
        self.committed.extend(extents.iter().flat_map(|extent| chunks(&[extent.garbage()])));
        Content::Extents(extents)
    }

    fn abandoned(&mut self, content: &Content, wanted: bool) -> Vec<GarbageExtent> {
        let Some(first) = content.extents().first().filter(|_| wanted) else { return Vec::new() };
        let abandoned = vec![GarbageExtent { id: first.id, chunks: vec![(0, drive(6)), (1, drive(7))] }];
        self.committed.extend(chunks(&abandoned));
        abandoned
    }

    /// Sends a command. Whatever becomes of it, what it carries is accounted for afterwards.
    fn send(&mut self, command: IndexCommand) -> IndexAnswer {
        let answer = run(&mut self.state, &command);
        self.history.push((command, answer.clone()));
        answer
    }

    fn failed(condition: u8, tags: [ETag; 2], current: Option<&ModelObject>) -> (Condition, Option<&'static str>) {
        let one = |etag| Some(EntityTag::OneOf(vec![etag]));
        let (if_match, if_none_match) = match condition {
            1 => (None, Some(EntityTag::Any)),
            2 => (one(tags[0]), None),
            3 => (one(tags[1]), None),
            _ => (None, None),
        };
        let failed = match (condition, current) {
            (1, Some(_)) => Some("exists"),
            (2 | 3, None) => Some("missing"),
            (2, Some(current)) if current.etag != tags[0] => Some("differs"),
            (3, Some(current)) if current.etag != tags[1] => Some("differs"),
            _ => None,
        };
        (Condition { if_match, if_none_match }, failed)
    }

    fn check_refusal(answer: &IndexAnswer, failed: &str) {
        match failed {
            "missing" => assert_eq!(*answer, IndexAnswer::NoSuchKey),
            _ => assert!(matches!(answer, IndexAnswer::PreconditionFailed(_)), "{answer:?}"),
        }
    }

    fn tags(&self, place: &Place) -> [ETag; 2] {
        [self.objects.get(place).map_or(ETag::whole([0; 16]), |object| object.etag), ETag::whole([0xee; 16])]
    }

    fn put(&mut self, place: Place, condition: u8, extents: u8, abandoned: bool) {
        let (condition, failed) = Self::failed(condition, self.tags(&place), self.objects.get(&place));
        let (etag, version) = (ETag::whole(self.id()), VersionId(self.id()));
        let content = self.extents(extents);
        let abandoned = self.abandoned(&content, abandoned);
        let len = u64::from(extents) * 10;
        let metadata = ObjectMetadata::default();
        let entry = ObjectEntry { len, etag, modified_ms: NOW, version, checksum: None, metadata, content };
        let (bucket, name) = place.clone();
        let answer = self.send(IndexCommand::PutObject { bucket, key: key(&name), entry, condition, abandoned });
        if self.sealed.contains(&bucket) {
            assert_eq!(answer, IndexAnswer::Sealed);
        } else if let Some(failed) = failed {
            Self::check_refusal(&answer, failed);
        } else {
            assert!(matches!(answer, IndexAnswer::Stored(_)), "{answer:?}");
            self.objects.insert(place, ModelObject { etag, len, upload: None });
        }
    }

    fn delete(&mut self, place: Place, condition: u8) {
        let (condition, failed) = Self::failed(condition, self.tags(&place), self.objects.get(&place));
        let (bucket, name) = place.clone();
        let answer = self.send(IndexCommand::DeleteObject { bucket, key: key(&name), condition, now_ms: NOW });
        match failed {
            _ if self.sealed.contains(&bucket) && !self.objects.contains_key(&place) => {
                assert_eq!(answer, IndexAnswer::Sealed);
            }
            Some(failed) => Self::check_refusal(&answer, failed),
            None => assert_eq!(answer, IndexAnswer::Deleted { existed: self.objects.remove(&place).is_some() }),
        }
    }

    /// Ids are used once per key: the second use of the same number is another upload.
    fn upload_id(&self, place: &Place, upload: u8) -> UploadId {
        let used = self.objects.get(place).and_then(|object| object.upload);
        let id = UploadId([upload; 16]);
        if used == Some(id) { UploadId([upload + 100; 16]) } else { id }
    }

    fn create(&mut self, place: Place, upload: UploadId) {
        let record = UploadRecord { started_ms: NOW, checksum: None, metadata: ObjectMetadata::default() };
        let (bucket, name) = place.clone();
        let answer = self.send(IndexCommand::CreateUpload { bucket, key: key(&name), upload, record });
        if self.sealed.contains(&bucket) {
            assert_eq!(answer, IndexAnswer::Sealed);
        } else {
            assert_eq!(answer, IndexAnswer::Done);
            self.uploads.entry((place, upload)).or_default();
        }
    }

    fn part(&mut self, place: Place, upload: UploadId, number: u32, small: bool) {
        let (etag, version) = (ETag::whole(self.id()), VersionId(self.id()));
        let content = self.extents(1);
        let abandoned = self.abandoned(&content, number == 2);
        let len = if small { 5 } else { PART_LEN_MIN };
        let record = PartRecord { len, etag, modified_ms: NOW, checksum: None, version, content };
        let (bucket, name) = place.clone();
        let part = PartAddress { upload, number };
        let answer = self.send(IndexCommand::PutPart { bucket, key: key(&name), part, record, abandoned });
        if self.sealed.contains(&bucket) {
            assert_eq!(answer, IndexAnswer::Sealed);
        } else if let Some(upload) = self.uploads.get_mut(&(place, upload)) {
            assert!(matches!(answer, IndexAnswer::Stored(_)), "{answer:?}");
            upload.parts.insert(number, (etag, len));
        } else {
            assert_eq!(answer, IndexAnswer::NoSuchUpload);
        }
    }

    fn complete(&mut self, place: Place, upload: UploadId, mask: u8, condition: u8) {
        let (condition, failed) = Self::failed(condition, self.tags(&place), self.objects.get(&place));
        let open = self.uploads.get(&(place.clone(), upload)).cloned();
        let known = open.clone().unwrap_or_default().parts;
        let named: Vec<(u32, ETag, Option<u64>)> = (1..4_u32)
            .filter(|number| mask >> (number - 1) & 1 == 1)
            .map(|number| {
                known
                    .get(&number)
                    .map_or((number, ETag::whole([0; 16]), None), |(etag, len)| (number, *etag, Some(*len)))
            })
            .collect();
        let parts =
            named.iter().map(|(number, etag, _)| CompletedPart { number: *number, etag: *etag, checksum: None });
        let (bucket, name) = place.clone();
        let command = IndexCommand::CompleteUpload {
            bucket,
            key: key(&name),
            upload,
            parts: parts.collect(),
            condition,
            version: VersionId(self.id()),
            now_ms: NOW,
            checksum: None,
            len: None,
        };
        let answer = self.send(command);
        if self.sealed.contains(&bucket) {
            assert_eq!(answer, IndexAnswer::Sealed);
        } else if open.is_none() {
            assert_eq!(answer, IndexAnswer::NoSuchUpload);
        } else if named.is_empty() {
            assert_eq!(answer, IndexAnswer::InvalidPartOrder);
        } else if let Some((number, ..)) = named.iter().find(|(_, _, len)| len.is_none()) {
            assert_eq!(answer, IndexAnswer::InvalidPart { number: *number });
        } else if let Some((number, ..)) = named.iter().rev().skip(1).rev().find(|(_, _, len)| *len == Some(5)) {
            assert_eq!(answer, IndexAnswer::PartTooSmall { number: *number, len: 5 });
        } else if let Some(failed) = failed {
            Self::check_refusal(&answer, failed);
        } else {
            let IndexAnswer::Stored(stored) = answer else { panic!("{answer:?}") };
            let len = named.iter().filter_map(|(_, _, len)| *len).sum();
            assert_eq!(stored.len, len);
            self.uploads.remove(&(place.clone(), upload));
            self.objects.insert(place, ModelObject { etag: stored.etag, len, upload: Some(upload) });
        }
    }

    fn abort(&mut self, place: Place, upload: UploadId) {
        let (bucket, name) = place.clone();
        let answer = self.send(IndexCommand::AbortUpload { bucket, key: key(&name), upload, now_ms: NOW });
        let existed = self.uploads.remove(&(place, upload)).is_some();
        assert_eq!(
            answer,
            match (existed, self.sealed.contains(&bucket)) {
                (true, _) => IndexAnswer::Done,
                (false, true) => IndexAnswer::Sealed,
                (false, false) => IndexAnswer::NoSuchUpload,
            }
        );
    }

    /// A healer rebuilds a chunk of something that exists, if the drive does not wait to be cleared of it.
    fn move_chunk(&mut self, pick: u8, slot: u8, to: u8, stale: bool) {
        let (walked, _) = query::walk(&self.state, None, usize::MAX).unwrap();
        let Some(item) = walked.get(usize::from(pick) % walked.len().max(1)) else { return };
        let Some(extent) = item.extents.first() else { return };
        let (to, current) = (drive(to), extent.drives[usize::from(slot)]);
        if query::is_stray(&self.state, extent.id, slot, to).unwrap() {
            return;
        }
        self.committed.insert((extent.id, slot, to));
        self.cleared.remove(&(extent.id, slot, to));
        let from = if stale { drive(99) } else { current };
        let answer = self.send(IndexCommand::MoveChunk {
            bucket: item.bucket,
            key: item.key.clone(),
            version: item.version,
            part: item.part,
            extent: extent.id,
            slot,
            from,
            to,
            now_ms: NOW,
        });
        let stays = current != to && (stale || extent.drives.contains(&to));
        let outcome = if stays { MoveOutcome::Stale } else { MoveOutcome::Moved };
        assert_eq!(answer, IndexAnswer::Move(outcome));
    }

    fn clear(&mut self, count: u8) {
        let due = query::garbage_due(&self.state, NOW, 0, usize::from(count)).unwrap();
        self.cleared.extend(due.iter().flat_map(|(_, record)| chunks(&record.extents)));
        self.send(IndexCommand::ClearGarbage { sequences: due.into_iter().map(|(sequence, _)| sequence).collect() });
    }

    fn reschedule(&mut self, keep: u8) {
        let Some((sequence, record)) = query::garbage_due(&self.state, NOW, 0, 1).unwrap().pop() else { return };
        let all: Vec<Chunk> = chunks(&record.extents).into_iter().collect();
        let (left, done): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(index, _)| keep >> (index % 8) & 1 == 1);
        self.cleared.extend(done.into_iter().map(|(_, chunk)| chunk));
        let extents = left.into_iter().map(|(_, (id, slot, drive))| GarbageExtent { id, chunks: vec![(slot, drive)] });
        self.send(IndexCommand::RescheduleGarbage { sequence, extents: extents.collect(), now_ms: NOW });
    }

    fn step(&mut self, step: Step) {
        let place = |bucket: u8, key: u8| (BucketId(u64::from(bucket)), format!("k{key}"));
        match step {
            Step::Put { bucket, key, condition, extents, abandoned } => {
                self.put(place(bucket, key), condition, extents, abandoned);
            }
            Step::Delete { bucket, key, condition } => self.delete(place(bucket, key), condition),
            Step::Create { bucket, key, upload } => {
                let place = place(bucket, key);
                self.create(place.clone(), self.upload_id(&place, upload));
            }
            Step::Part { bucket, key, upload, number, small } => {
                let place = place(bucket, key);
                self.part(place.clone(), self.upload_id(&place, upload), u32::from(number), small);
            }
            Step::Complete { bucket, key, upload, mask, condition } => {
                let place = place(bucket, key);
                self.complete(place.clone(), self.upload_id(&place, upload), mask, condition);
            }
            Step::Abort { bucket, key, upload } => {
                let place = place(bucket, key);
                self.abort(place.clone(), self.upload_id(&place, upload));
            }
            Step::Seal { bucket, on } => self.seal(BucketId(u64::from(bucket)), on),
            Step::Move { pick, slot, to, stale } => self.move_chunk(pick, slot, to, stale),
            Step::Clear { count } => self.clear(count),
            Step::Reschedule { keep } => self.reschedule(keep),
            Step::Drop => {
                let Content::Extents(extents) = self.extents(1) else { return };
                let extents = extents.iter().map(ExtentRecord::garbage).collect();
                self.send(IndexCommand::DropAbandoned { extents, now_ms: NOW });
            }
            Step::Again { back } => self.again(back),
        }
    }

    fn seal(&mut self, bucket: BucketId, on: bool) {
        if on {
            self.attempt = self.attempt.next();
            self.send(IndexCommand::SealBucket { bucket, attempt: self.attempt });
            self.sealed.insert(bucket);
        } else {
            self.send(IndexCommand::UnsealBucket { bucket, attempt: self.attempt });
            self.sealed.remove(&bucket);
        }
    }

    /// The very last write, if it succeeded, applied once more (a retry whose first answer was lost).
    fn again(&mut self, back: u8) {
        let last = self.history.len().checked_sub(1);
        let Some((command, answer)) = last.and_then(|last| self.history.get(last)).cloned() else { return };
        let repeatable = matches!(
            command,
            IndexCommand::PutObject { .. } | IndexCommand::PutPart { .. } | IndexCommand::CompleteUpload { .. }
        );
        if repeatable && matches!(answer, IndexAnswer::Stored(_)) {
            for _ in 0..=back {
                let before = self.state.clone();
                assert_eq!(run(&mut self.state, &command), answer);
                assert_eq!(self.state, before);
            }
        }
    }

    fn check(&self) {
        let (referenced, garbage) = (referenced(&self.state), garbage(&self.state));
        assert!(
            referenced.is_disjoint(&garbage),
            "garbage holds chunks in use: {:?}",
            referenced.intersection(&garbage)
        );
        let known: BTreeSet<Chunk> = referenced.union(&garbage).copied().chain(self.cleared.iter().copied()).collect();
        let leaked: Vec<&Chunk> = self.committed.difference(&known).collect();
        assert!(leaked.is_empty(), "leaked: {leaked:?}");
        let lost: Vec<&Chunk> = referenced.intersection(&self.cleared).collect();
        assert!(lost.is_empty(), "cleared while in use: {lost:?}");
        for bucket in [BucketId(0), BucketId(1)] {
            let objects = || self.objects.iter().filter(move |((known, _), _)| *known == bucket);
            let uploads = self.uploads.keys().filter(|((known, _), _)| *known == bucket).count() as u64;
            let bytes = objects().map(|(_, object)| object.len).sum();
            let expected = BucketUsage { object_count: objects().count() as u64, bytes, upload_count: uploads };
            assert_eq!(query::bucket_usage(&self.state, bucket).unwrap(), expected);
            assert_eq!(query::is_empty(&self.state, bucket).unwrap(), expected.object_count == 0);
            assert_eq!(query::first_upload(&self.state, bucket).unwrap().is_none(), uploads == 0);
        }
        for ((bucket, key), object) in &self.objects {
            let entry = query::object(&self.state, *bucket, key).unwrap().unwrap();
            assert_eq!((entry.etag, entry.len), (object.etag, object.len));
            let parts = query::object_parts(&self.state, *bucket, key, &entry, 0..u64::MAX).unwrap().unwrap();
            assert!(parts.is_empty() || parts.iter().map(|part| part.record.len).sum::<u64>() == entry.len);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn commands_do_what_the_model_does_and_no_chunk_is_leaked_or_lost(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
            world.check();
        }
    }

    #[test]
    fn arbitrary_commands_never_panic(bodies in proptest::collection::vec((0..13_u8, proptest::collection::vec(0..6_u8, 0..60)), 1..10)) {
        let mut state = MemoryState::new();
        for (number, body) in bodies {
            let mut bytes = vec![1, number];
            bytes.extend_from_slice(&body);
            prop_assert!(IndexAnswer::decode(&super::apply(&mut state, &bytes).unwrap()).is_ok());
        }
    }
}

#[test]
fn a_key_that_is_none_is_refused() {
    let mut state = MemoryState::new();
    let mut bytes = delete("k").encode();
    assert_eq!(bytes[3..5], [1, b'k']);
    bytes.splice(3..5, [0]);
    assert_eq!(super::apply(&mut state, &bytes).unwrap(), IndexAnswer::Invalid.encode());
    assert_eq!(state, MemoryState::new());
}

#[test]
fn unknown_commands_change_nothing() {
    let mut state = MemoryState::new();
    for bytes in [&[][..], &[1], &[1, 99], &[2, 0], &[0xff; 40]] {
        assert_eq!(super::apply(&mut state, bytes).unwrap(), IndexAnswer::Unsupported.encode());
    }
    assert_eq!(state, MemoryState::new());
}
