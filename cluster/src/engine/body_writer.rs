//! Takes a body in: small ones whole into the index entry, larger ones extent by extent onto drives.
//!
//! While one extent is on its way to its drives the next one fills; two extents at most are held per body. Memory is
//! asked for when an extent's first bytes are there and given back when its chunks are: a body that waits for its
//! client between extents holds none, and a slow client holds one extent's.

use bytes::{Bytes, BytesMut};
use drystone_erasure::{AlignedBuf, Owner};

use super::extent_writer::{ExtentWriter, Written};
use crate::codec::Blob;
use crate::index::{Content, ExtentRecord, GarbageExtent};
use crate::member::{Admitted, Member, Progress};
use crate::store::{Body, BodyDigests, BodyError, StoreError};

/// Bodies up to this length lie in the index entry itself: one round of consensus instead of two syncs in sequence.
pub(crate) const INLINE_LEN_MAX: u64 = 4 << 10;
/// An extent holds at most 8 MiB of a body.
pub(crate) const EXTENT_LEN_MAX: u64 = crate::placement::EXTENT_LEN_MAX as u64;
/// Room behind an extent for the padding that makes it divisible by k ≤ 16.
const PADDING_LEN_MAX: usize = 16;

/// A body that is durable on drives, or small enough for the entry, but not yet in the index.
pub(crate) struct Taken {
    pub(crate) content: Content,
    pub(crate) digests: BodyDigests,
    /// Chunks the command must hand to the garbage worker.
    pub(crate) strays: Vec<GarbageExtent>,
}

/// Stores all of `body`. On error nothing of it stays: extents already written are handed to the garbage worker.
pub(crate) async fn take_body<B: Body>(
    member: &Member,
    writer: &ExtentWriter,
    owner: &Owner,
    body: B,
) -> Result<Taken, StoreError> {
    if body.len() <= INLINE_LEN_MAX {
        take_inline(member, body).await
    } else {
        take_extents(member, writer, owner, body).await
    }
}

async fn take_inline<B: Body>(member: &Member, mut body: B) -> Result<Taken, StoreError> {
    if member.is_full() {
        return Err(StoreError::Full);
    }
    let declared = body.len();
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.chunk().await? {
        bytes.extend_from_slice(&piece);
        check_not_longer(bytes.len() as u64, declared)?;
    }
    check_whole(bytes.len() as u64, declared)?;
    Ok(Taken { content: Content::Inline(Blob(bytes.freeze())), digests: body.digests(), strays: Vec::new() })
}

async fn take_extents<B: Body>(
    member: &Member,
    writer: &ExtentWriter,
    owner: &Owner,
    mut body: B,
) -> Result<Taken, StoreError> {
    let mut safe = Safe { member, extents: Vec::new(), strays: Vec::new() };
    let mut filler = Filler { rest: Bytes::new(), received: 0, declared: body.len() };
    let mut owner = owner.clone();
    let mut filled = filler.fill(member, &mut body, Progress::First).await?;
    while filler.received < filler.declared {
        let write = write_extent(writer, owner.clone(), filled);
        let (written, next) = tokio::try_join!(write, filler.fill(member, &mut body, Progress::Later))?;
        safe.add(written);
        filled = next;
        owner.ordinal += 1;
    }
    // Whether all of the body was as declared shows at its end: ask before paying for the last write.
    filler.finish(&mut body).await?;
    safe.add(write_extent(writer, owner, filled).await?);
    let (extents, strays) = safe.keep();
    Ok(Taken { content: Content::Extents(extents), digests: body.digests(), strays })
}

/// The next extent of a body, padded with zeros, and the memory it holds.
struct Filled {
    buffer: AlignedBuf,
    len: u32,
    admitted: Admitted,
}

/// Writes an extent and gives its memory back.
async fn write_extent(writer: &ExtentWriter, owner: Owner, filled: Filled) -> Result<Written, StoreError> {
    let Filled { buffer, len, admitted } = filled;
    let written = writer.write(owner, buffer, len).await;
    drop(admitted);
    written
}

/// Extents of a body that is not yet whole. Dropped before [`Safe::keep`], they are garbage.
struct Safe<'a> {
    member: &'a Member,
    extents: Vec<ExtentRecord>,
    strays: Vec<GarbageExtent>,
}

impl Safe<'_> {
    fn add(&mut self, written: Written) {
        self.extents.push(written.record);
        self.strays.extend(written.strays);
    }

    fn keep(mut self) -> (Vec<ExtentRecord>, Vec<GarbageExtent>) {
        (std::mem::take(&mut self.extents), std::mem::take(&mut self.strays))
    }
}

impl Drop for Safe<'_> {
    fn drop(&mut self) {
        let extents = self.extents.drain(..).map(|extent| extent.garbage());
        extents.chain(self.strays.drain(..)).for_each(|garbage| self.member.abandon(garbage));
    }
}

/// Cuts the body into extents.
struct Filler {
    rest: Bytes,
    received: u64,
    declared: u64,
}

impl Filler {
    /// Fills one buffer with the next extent and pads it with zeros.
    async fn fill<B: Body>(&mut self, member: &Member, body: &mut B, progress: Progress) -> Result<Filled, StoreError> {
        let len = u32::try_from((self.declared - self.received).min(EXTENT_LEN_MAX)).unwrap_or(u32::MAX);
        let wanted_len = len as usize;
        self.await_bytes(body, 0).await?;
        let admitted = member.admit(u64::from(len), self.declared, progress).await?;
        let mut buffer = member.buffers().take(wanted_len + PADDING_LEN_MAX);
        let mut filled_len = 0;
        while filled_len < wanted_len {
            self.await_bytes(body, filled_len).await?;
            let piece = self.rest.split_to(self.rest.len().min(wanted_len - filled_len));
            buffer[filled_len..filled_len + piece.len()].copy_from_slice(&piece);
            filled_len += piece.len();
        }
        buffer[wanted_len..].fill(0);
        self.received += u64::from(len);
        Ok(Filled { buffer, len, admitted })
    }

    /// Waits for the client until there are bytes to put behind the first `filled_len` of an extent.
    async fn await_bytes<B: Body>(&mut self, body: &mut B, filled_len: usize) -> Result<(), StoreError> {
        while self.rest.is_empty() {
            let received = self.received + filled_len as u64;
            self.rest = body.chunk().await?.ok_or(BodyError::Incomplete { received, declared: self.declared })?;
        }
        Ok(())
    }

    /// Sees that nothing follows the declared length, and that the body is what was declared.
    async fn finish<B: Body>(&mut self, body: &mut B) -> Result<(), StoreError> {
        check_not_longer(self.received + self.rest.len() as u64, self.declared)?;
        while let Some(piece) = body.chunk().await? {
            check_not_longer(self.received + piece.len() as u64, self.declared)?;
        }
        Ok(())
    }
}

fn check_not_longer(received: u64, declared: u64) -> Result<(), BodyError> {
    if received > declared { Err(BodyError::TooLong { declared }) } else { Ok(()) }
}

fn check_whole(received: u64, declared: u64) -> Result<(), BodyError> {
    if received < declared { Err(BodyError::Incomplete { received, declared }) } else { Ok(()) }
}
