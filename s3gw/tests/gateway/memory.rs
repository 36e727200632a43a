//! A store in memory: the port's promises in the plainest form, as the reference for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use drystone_cluster::ids::BucketId;
use drystone_cluster::store::*;
use drystone_s3gw::compute_checksum;
use md5::Digest as _;
use secrecy::SecretString;

#[derive(Clone)]
struct Object {
    head: ObjectHead,
    bytes: Bytes,
}

#[derive(Clone)]
struct Part {
    summary: PartSummary,
    bytes: Bytes,
}

#[derive(Clone)]
struct OpenUpload {
    upload: Upload,
    parts: BTreeMap<u32, Part>,
}

#[derive(Default)]
struct Content {
    created_ms: u64,
    objects: BTreeMap<String, Object>,
    /// By key, start, id: the order they are listed in.
    uploads: BTreeMap<(String, u64, UploadId), OpenUpload>,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<String, String>,
    buckets: BTreeMap<BucketName, Content>,
    completed: BTreeMap<UploadId, (Vec<(u32, ETag)>, Stored)>,
    count: u8,
    /// What the next call that would touch an object gets instead.
    failure: Option<StoreError>,
    /// After how many bytes reads fail, and with what.
    read_failure: Option<(u64, StoreError)>,
}

/// The store. Cheap to clone: a handle.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

/// How many bytes one chunk of a read has: few, so that small objects come in several.
pub const READ_LEN: usize = 1000;

impl MemoryStore {
    pub fn with_key(id: &str, secret: &str) -> Self {
        let store = Self::default();
        store.0.lock().unwrap().keys.insert(id.to_owned(), secret.to_owned());
        store
    }

    /// All keys of a bucket with their bytes.
    pub fn objects(&self, bucket: &str) -> Vec<(String, Bytes)> {
        let state = self.0.lock().unwrap();
        let content = &state.buckets[&BucketName::new(bucket).unwrap()];
        content.objects.iter().map(|(key, object)| (key.clone(), object.bytes.clone())).collect()
    }

    pub fn fail_next(&self, error: StoreError) {
        self.0.lock().unwrap().failure = Some(error);
    }

    /// What reads fail with from their first byte.
    pub fn fail_reads_with(&self, error: StoreError) {
        self.0.lock().unwrap().read_failure = Some((0, error));
    }

    pub fn fail_reads_after(&self, len: Option<u64>) {
        let few = StoreError::from(Unavailable::TooFewChunks { readable: 1, needed: 2 });
        self.0.lock().unwrap().read_failure = len.map(|len| (len, few));
    }

    fn with<T>(
        &self,
        bucket: &BucketName,
        act: impl FnOnce(&mut Content, &mut u8) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.0.lock().unwrap();
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        let State { buckets, count, .. } = &mut *state;
        let content = buckets.get_mut(bucket).ok_or_else(|| StoreError::NoSuchBucket(bucket.clone()))?;
        act(content, count)
    }
}

fn matches(tag: &EntityTag, etag: ETag) -> bool {
    match tag {
        EntityTag::Any => true,
        EntityTag::OneOf(tags) => tags.contains(&etag),
    }
}

fn check(condition: &Condition, current: Option<&Object>, key: &Key) -> Result<(), StoreError> {
    let current = current.map(|object| object.head.etag);
    if let Some(tag) = &condition.if_match {
        let etag = current.ok_or_else(|| StoreError::NoSuchKey(key.clone()))?;
        if !matches(tag, etag) {
            return Err(StoreError::PreconditionFailed { header: "If-Match" });
        }
    }
    match (&condition.if_none_match, current) {
        (Some(tag), Some(etag)) if matches(tag, etag) => {
            Err(StoreError::PreconditionFailed { header: "If-None-Match" })
        }
        _ => Ok(()),
    }
}

async fn read_all<B: Body>(mut body: B) -> Result<(Bytes, BodyDigests), StoreError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len() as u64, body.len(), "a body that ends well has its length");
    let digests = body.digests();
    assert_eq!(digests.md5, <[u8; 16]>::from(md5::Md5::digest(&bytes)));
    if let Some(checksum) = &digests.checksum {
        assert_eq!(checksum, &compute_checksum(checksum.algorithm, &bytes));
    }
    Ok((Bytes::from(bytes), digests))
}

fn stored(object: &Object) -> Stored {
    let ObjectHead { version, len, etag, modified_ms, checksum, .. } = object.head.clone();
    Stored { etag, checksum, version, len, modified_ms }
}

/// Rolls sorted keys up as S3 does; returns the page and whether more follow.
fn roll_up<'a, T>(
    keys: impl Iterator<Item = (&'a String, T)>,
    prefix: &str,
    delimiter: Option<&str>,
    after: &str,
    count_max: usize,
) -> (Vec<(String, Option<T>)>, bool) {
    let mut page: Vec<(String, Option<T>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for (key, item) in keys.filter(|(key, _)| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let rolled = delimiter.and_then(|d| rest.find(d).map(|at| key[..prefix.len() + at + d.len()].to_owned()));
        let (name, item) = match rolled {
            Some(common) => (common, None),
            None => (key.clone(), Some(item)),
        };
        if name.as_str() <= after && !(after.is_empty()) || item.is_none() && !seen.insert(name.clone()) {
            continue;
        }
        if page.len() == count_max {
            return (page, true);
        }
        page.push((name, item));
    }
    (page, false)
}

fn object_of_parts(upload: &OpenUpload, complete: &CompleteUpload, now_ms: u64, n: u8) -> Result<Object, StoreError> {
    let (mut bytes, mut md5s, mut sums, mut spans) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, named) in complete.parts.iter().enumerate() {
        let invalid = StoreError::InvalidPart { number: named.number };
        let part = upload.parts.get(&named.number).ok_or(invalid.clone())?;
        if part.summary.etag != named.etag || named.checksum.is_some() && named.checksum != part.summary.checksum {
            return Err(invalid);
        }
        if index + 1 < complete.parts.len() && part.summary.len < PART_LEN_MIN {
            let (number, len) = (named.number, part.summary.len);
            return Err(StoreError::PartTooSmall { number, len, min: PART_LEN_MIN });
        }
        let PartSummary { number, len, checksum, .. } = part.summary.clone();
        sums.extend(checksum.iter().flat_map(|checksum| checksum.value.clone()));
        spans.push(PartSpan { number, offset: bytes.len() as u64, len, checksum });
        bytes.extend_from_slice(&part.bytes);
        md5s.extend_from_slice(&part.summary.etag.md5);
    }
    let part_count = u32::try_from(spans.len()).unwrap();
    let checksum = upload.upload.checksum.map(|(algorithm, kind)| match kind {
        ChecksumKind::FullObject => compute_checksum(algorithm, &bytes),
        ChecksumKind::Composite => Checksum { kind, part_count, ..compute_checksum(algorithm, &sums) },
    });
    if complete.checksum.is_some() && complete.checksum != checksum {
        return Err(StoreError::ChecksumMismatch);
    }
    if let Some(len) = complete.len.filter(|len| *len != bytes.len() as u64) {
        return Err(StoreError::TooLarge { len, max: bytes.len() as u64 });
    }
    let head = ObjectHead {
        version: VersionId([n; 16]),
        len: bytes.len() as u64,
        etag: ETag { md5: md5::Md5::digest(&md5s).into(), part_count },
        modified_ms: now_ms,
        metadata: upload.upload.metadata.clone(),
        checksum,
        parts: spans,
    };
    Ok(Object { head, bytes: Bytes::from(bytes) })
}

pub struct MemoryReader {
    object: Object,
    failure: Option<(u64, StoreError)>,
}

pub struct MemoryRead {
    bytes: Bytes,
    given: u64,
    failure: Option<(u64, StoreError)>,
}

impl Reader for MemoryReader {
    type Read = MemoryRead;

    fn head(&self) -> &ObjectHead {
        &self.object.head
    }

    fn read(&self, range: Range<u64>) -> MemoryRead {
        let bytes = self.object.bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        MemoryRead { bytes, given: 0, failure: self.failure.clone() }
    }
}

impl Read for MemoryRead {
    async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some((_, error)) = self.failure.as_ref().filter(|(len, _)| self.given >= *len) {
            return Err(error.clone());
        }
        tokio::task::yield_now().await;
        let chunk = self.bytes.split_to(self.bytes.len().min(READ_LEN));
        self.given += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

impl Store for MemoryStore {
    type Reader = MemoryReader;

    async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        let state = self.0.lock().unwrap();
        let key = |secret: &String| AccessKey { id: id.to_owned(), secret: SecretString::from(secret.as_str()) };
        Ok(state.keys.get(id).map(key))
    }

    async fn has_access_keys(&self) -> Result<bool, StoreError> {
        Ok(!self.0.lock().unwrap().keys.is_empty())
    }

    async fn create_bucket(&self, context: &Context, name: &BucketName) -> Result<Bucket, StoreError> {
        let mut state = self.0.lock().unwrap();
        if state.buckets.contains_key(name) {
            return Err(StoreError::BucketExists(name.clone()));
        }
        let created_ms = context.now_ms;
        state.buckets.insert(name.clone(), Content { created_ms, ..Content::default() });
        Ok(Bucket { name: name.clone(), id: BucketId(1), created_ms })
    }

    async fn bucket(&self, _: &Context, name: &BucketName) -> Result<Bucket, StoreError> {
        self.with(name, |content, _| Ok(Bucket { name: name.clone(), id: BucketId(1), created_ms: content.created_ms }))
    }

    async fn buckets(&self, _: &Context) -> Result<Vec<Bucket>, StoreError> {
        let state = self.0.lock().unwrap();
        let bucket = |(name, content): (&BucketName, &Content)| Bucket {
            name: name.clone(),
            id: BucketId(1),
            created_ms: content.created_ms,
        };
        Ok(state.buckets.iter().map(bucket).collect())
    }

    async fn delete_bucket(&self, _: &Context, name: &BucketName) -> Result<(), StoreError> {
        self.with(name, |content, _| {
            if content.objects.is_empty() { Ok(()) } else { Err(StoreError::BucketNotEmpty(name.clone())) }
        })?;
        self.0.lock().unwrap().buckets.remove(name);
        Ok(())
    }

    async fn put_object<B: Body + 'static>(
        &self,
        context: &Context,
        put: PutObject,
        body: B,
    ) -> Result<Stored, StoreError> {
        self.with(&put.bucket, |_, _| Ok(()))?;
        let (bytes, digests) = read_all(body).await?;
        self.with(&put.bucket, |content, count| {
            check(&put.condition, content.objects.get(put.key.as_str()), &put.key)?;
            *count += 1;
            let head = ObjectHead {
                version: VersionId([*count; 16]),
                len: bytes.len() as u64,
                etag: ETag::whole(digests.md5),
                modified_ms: context.now_ms,
                metadata: put.metadata,
                checksum: digests.checksum,
                parts: Vec::new(),
            };
            let object = Object { head, bytes };
            let answer = stored(&object);
            content.objects.insert(put.key.as_str().to_owned(), object);
            Ok(answer)
        })
    }

    async fn open_object(&self, _: &Context, bucket: &BucketName, key: &Key) -> Result<MemoryReader, StoreError> {
        let failure = self.0.lock().unwrap().read_failure.clone();
        self.with(bucket, |content, _| {
            let object = content.objects.get(key.as_str()).ok_or_else(|| StoreError::NoSuchKey(key.clone()))?;
            Ok(MemoryReader { object: object.clone(), failure })
        })
    }

    async fn delete_object(
        &self,
        _: &Context,
        bucket: &BucketName,
        key: &Key,
        condition: Condition,
    ) -> Result<Deleted, StoreError> {
        self.with(bucket, |content, _| {
            check(&condition, content.objects.get(key.as_str()), key)?;
            Ok(Deleted { existed: content.objects.remove(key.as_str()).is_some() })
        })
    }

    async fn list_objects(&self, _: &Context, query: ListQuery) -> Result<ListPage, StoreError> {
        let ListQuery { bucket, prefix, delimiter, after, entry_count_max } = query;
        assert!((1..=1000).contains(&entry_count_max), "the gateway bounds pages");
        self.with(&bucket, |content, _| {
            let (page, truncated) = roll_up(
                content.objects.iter(),
                &prefix,
                delimiter.as_deref(),
                after.as_deref().unwrap_or_default(),
                entry_count_max,
            );
            let entry = |(name, object): (String, Option<&Object>)| match object {
                None => ListEntry::Prefix(name),
                Some(Object { head, .. }) => ListEntry::Object {
                    key: Key::new(name).unwrap(),
                    len: head.len,
                    etag: head.etag,
                    modified_ms: head.modified_ms,
                    checksum: head.checksum.as_ref().map(|checksum| (checksum.algorithm, checksum.kind)),
                },
            };
            Ok(ListPage { entries: page.into_iter().map(entry).collect(), truncated })
        })
    }

    async fn create_upload(&self, context: &Context, new: NewUpload) -> Result<UploadId, StoreError> {
        self.with(&new.bucket, |content, count| {
            *count += 1;
            let upload = UploadId([*count; 16]);
            let started_ms = context.now_ms;
            let (metadata, checksum) = (new.metadata, new.checksum);
            let open = OpenUpload { upload: Upload { upload, started_ms, metadata, checksum }, parts: BTreeMap::new() };
            content.uploads.insert((new.key.as_str().to_owned(), started_ms, upload), open);
            Ok(upload)
        })
    }

    async fn upload(&self, _: &Context, bucket: &BucketName, key: &Key, id: UploadId) -> Result<Upload, StoreError> {
        self.with(bucket, |content, _| Ok(find(content, key, id)?.upload.clone()))
    }

    async fn put_part<B: Body + 'static>(
        &self,
        context: &Context,
        part: PutPart,
        body: B,
    ) -> Result<Stored, StoreError> {
        self.with(&part.bucket, |content, _| find(content, &part.key, part.upload).map(|_| ()))?;
        let (bytes, digests) = read_all(body).await?;
        self.with(&part.bucket, |content, _| {
            let etag = ETag::whole(digests.md5);
            let (len, modified_ms, checksum) = (bytes.len() as u64, context.now_ms, digests.checksum);
            let summary = PartSummary { number: part.number, len, etag, modified_ms, checksum: checksum.clone() };
            find(content, &part.key, part.upload)?.parts.insert(part.number, Part { summary, bytes });
            Ok(Stored { etag, checksum, version: VersionId([0; 16]), len, modified_ms })
        })
    }

    async fn list_parts(&self, _: &Context, query: PartQuery) -> Result<PartPage, StoreError> {
        self.with(&query.bucket, |content, _| {
            let open = find(content, &query.key, query.upload)?;
            let mut rest = open.parts.range(query.after + 1..).map(|(_, part)| part.summary.clone());
            let parts: Vec<_> = rest.by_ref().take(query.part_count_max).collect();
            let truncated = rest.next().is_some();
            Ok(PartPage { upload: open.upload.clone(), parts, truncated })
        })
    }

    async fn list_uploads(&self, _: &Context, query: UploadQuery) -> Result<UploadPage, StoreError> {
        self.with(&query.bucket, |content, _| {
            let after = query.key_after.clone().unwrap_or_default();
            let started =
                content.uploads.keys().find(|(_, _, id)| Some(*id) == query.upload_after).map(|(_, at, id)| (*at, *id));
            let items = content.uploads.iter().filter(|((key, at, id), _)| {
                *key > after || *key == after && started.is_some_and(|started| (*at, *id) > started)
            });
            let mut page = UploadPage { uploads: Vec::new(), prefixes: Vec::new(), truncated: false, next: None };
            let delimiter = query.delimiter.as_deref();
            for ((key, at, id), open) in items.filter(|((key, ..), _)| key.starts_with(&query.prefix)) {
                let rest = &key[query.prefix.len()..];
                let common = delimiter.and_then(|d| rest.find(d).map(|at| &key[..query.prefix.len() + at + d.len()]));
                if common.is_some_and(|common| common <= after.as_str() || page.prefixes.iter().any(|p| p == common)) {
                    continue;
                }
                if page.uploads.len() + page.prefixes.len() == query.entry_count_max {
                    page.truncated = true;
                    return Ok(page);
                }
                if let Some(common) = common {
                    page.prefixes.push(common.to_owned());
                    page.next = Some((common.to_owned(), None));
                } else {
                    let (key_of, checksum) = (Key::new(key.as_str()).unwrap(), open.upload.checksum);
                    page.uploads.push(UploadSummary { key: key_of, upload: *id, started_ms: *at, checksum });
                    page.next = Some((key.clone(), Some(*id)));
                }
            }
            page.next = None;
            Ok(page)
        })
    }

    async fn complete_upload(&self, context: &Context, complete: CompleteUpload) -> Result<Stored, StoreError> {
        let named: Vec<(u32, ETag)> = complete.parts.iter().map(|part| (part.number, part.etag)).collect();
        if let Some((parts, stored)) = self.0.lock().unwrap().completed.get(&complete.upload)
            && *parts == named
        {
            return Ok(stored.clone());
        }
        let answer = self.with(&complete.bucket, |content, count| {
            let open = find(content, &complete.key, complete.upload)?.clone();
            check(&complete.condition, content.objects.get(complete.key.as_str()), &complete.key)?;
            *count += 1;
            let object = object_of_parts(&open, &complete, context.now_ms, *count)?;
            let answer = stored(&object);
            content.objects.insert(complete.key.as_str().to_owned(), object);
            content.uploads.retain(|(_, _, id), _| *id != complete.upload);
            Ok(answer)
        })?;
        self.0.lock().unwrap().completed.insert(complete.upload, (named, answer.clone()));
        Ok(answer)
    }

    async fn abort_upload(
        &self,
        _: &Context,
        bucket: &BucketName,
        key: &Key,
        upload: UploadId,
    ) -> Result<(), StoreError> {
        self.with(bucket, |content, _| {
            find(content, key, upload)?;
            content.uploads.retain(|(_, _, id), _| *id != upload);
            Ok(())
        })
    }
}

fn find<'a>(content: &'a mut Content, key: &Key, upload: UploadId) -> Result<&'a mut OpenUpload, StoreError> {
    content
        .uploads
        .iter_mut()
        .find(|((at, _, id), _)| at == key.as_str() && *id == upload)
        .map(|(_, open)| open)
        .ok_or(StoreError::NoSuchUpload(upload))
}
