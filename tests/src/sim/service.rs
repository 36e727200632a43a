//! What clients may ask of a simulated node, and how the node does it: straight through its store.

use std::fmt;

use bytes::{Bytes, BytesMut};
use drystone_cluster::engine::ClusterStore;
use drystone_cluster::store::{
    Body, BodyDigests, BodyError, BucketName, Condition, Context, ETag, Key, ListEntry, ListQuery, ObjectMetadata,
    PutObject, Read as _, Reader as _, Store as _, StoreError,
};
use md5::{Digest as _, Md5};
use tokio::sync::oneshot;

/// A body arrives in pieces of this length.
const PIECE_LEN: usize = 16 << 10;

/// One question to a node.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Creates the bucket; one that exists is fine.
    CreateBucket,
    /// Whether the node can serve.
    Ready,
    /// Stores an object.
    Put {
        /// Its key.
        key: String,
        /// Its bytes.
        body: Bytes,
        /// When.
        condition: Condition,
    },
    /// Reads an object, or a part of it.
    Get {
        /// Its key.
        key: String,
        /// Skips so many bytes, at most all.
        skip: u64,
    },
    /// Deletes an object.
    Delete {
        /// Its key.
        key: String,
    },
    /// Lists keys.
    List {
        /// Only keys after this one.
        after: Option<String>,
        /// At most so many.
        count_max: usize,
    },
    /// Stops in order. The node answers before it stops.
    Stop,
}

/// Without the body.
impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBucket => f.write_str("create the bucket"),
            Self::Ready => f.write_str("ready?"),
            Self::Put { key, body, .. } => write!(f, "put {} bytes as {key}", body.len()),
            Self::Get { key, skip } => write!(f, "get {key} from {skip}"),
            Self::Delete { key } => write!(f, "delete {key}"),
            Self::List { after, count_max } => write!(f, "list {count_max} after {after:?}"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Done.
    Done,
    /// The node is ready, or why not.
    Ready(Result<(), String>),
    /// The bytes of an object from `skip` on.
    Body {
        /// Of the version read.
        etag: ETag,
        /// Of the whole object.
        len: u64,
        /// First byte.
        skip: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// One page.
    Page {
        /// Keys with their entity tags, in the order given.
        entries: Vec<(String, ETag)>,
        /// Whether more follow.
        truncated: bool,
    },
}

/// A question on its way to a node. Dropped unanswered, the node has gone away.
pub(super) struct Job {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<Reply, StoreError>>,
}

/// The entity tag of a body put whole.
#[must_use]
pub fn etag_of(body: &[u8]) -> ETag {
    ETag::whole(Md5::digest(body).into())
}

pub(super) async fn answer(
    store: &ClusterStore,
    bucket: &BucketName,
    now_ms: u64,
    ask: Ask,
) -> Result<Reply, StoreError> {
    let context = Context { request_id: 0, access_key: None, now_ms };
    let key = |text: &str| Key::new(text).map_err(|error| StoreError::Internal(error.to_string()));
    match ask {
        Ask::CreateBucket => match store.create_bucket(&context, bucket).await {
            Ok(_) | Err(StoreError::BucketExists(_)) => Ok(Reply::Done),
            Err(error) => Err(error),
        },
        Ask::Ready => Ok(Reply::Ready(store.member().ready().map_err(|reason| reason.to_string()))),
        Ask::Put { key: name, body, condition } => {
            let put =
                PutObject { bucket: bucket.clone(), key: key(&name)?, metadata: ObjectMetadata::default(), condition };
            store.put_object(&context, put, WholeBody::new(body)).await.map(|_| Reply::Done)
        }
        Ask::Get { key: name, skip } => read(store, &context, bucket, &key(&name)?, skip).await,
        Ask::Delete { key: name } => {
            let name = key(&name)?;
            store.delete_object(&context, bucket, &name, Condition::default()).await.map(|_| Reply::Done)
        }
        Ask::List { after, count_max } => list(store, &context, bucket, after, count_max).await,
        Ask::Stop => Ok(Reply::Done),
    }
}

async fn read(
    store: &ClusterStore,
    context: &Context,
    bucket: &BucketName,
    key: &Key,
    skip: u64,
) -> Result<Reply, StoreError> {
    let reader = store.open_object(context, bucket, key).await?;
    let (etag, len) = (reader.head().etag, reader.head().len);
    let skip = skip.min(len);
    let mut stream = reader.read(skip..len);
    let mut bytes = BytesMut::new();
    while let Some(piece) = stream.chunk().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(Reply::Body { etag, len, skip, bytes: bytes.freeze() })
}

async fn list(
    store: &ClusterStore,
    context: &Context,
    bucket: &BucketName,
    after: Option<String>,
    count_max: usize,
) -> Result<Reply, StoreError> {
    let query =
        ListQuery { bucket: bucket.clone(), prefix: String::new(), delimiter: None, after, entry_count_max: count_max };
    let page = store.list_objects(context, query).await?;
    let mut entries = Vec::new();
    for entry in page.entries {
        match entry {
            ListEntry::Object { key, etag, .. } => entries.push((key.as_str().to_owned(), etag)),
            ListEntry::Prefix(prefix) => {
                return Err(StoreError::Internal(format!("a prefix {prefix:?} without a delimiter")));
            }
        }
    }
    Ok(Reply::Page { entries, truncated: page.truncated })
}

/// A body that is all there, handed out in pieces.
struct WholeBody {
    rest: Bytes,
    len: u64,
    md5: [u8; 16],
}

impl WholeBody {
    fn new(bytes: Bytes) -> Self {
        Self { len: bytes.len() as u64, md5: Md5::digest(&bytes).into(), rest: bytes }
    }
}

impl Body for WholeBody {
    fn len(&self) -> u64 {
        self.len
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_LEN));
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn digests(&self) -> BodyDigests {
        BodyDigests { md5: self.md5, checksum: None }
    }
}
