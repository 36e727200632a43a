//! Looks at the journals of a fjall database (format 3) before it is opened.
//!
//! fjall takes whatever does not decode for the end of a journal, in sealed journals too, and refuses to open after a
//! batch whose checksum is wrong. Neither is right after a power cut or on a failing drive: a sealed journal was synced
//! whole, so a bad place in it is damage, and what lies behind it must not be forgotten silently; a bad checksum at the
//! end of the active one is a batch that was never synced, some pages of which did not arrive.
//!
//! A journal is a sequence of batches and then zeros: it is allocated ahead. A batch: tag 1, items u32, sequence u64; per
//! item tag 2, kind u8, compression u8 (0), keyspace u64, key length u16, value length u32 twice, key, value, or tag 4,
//! keyspace u64; then tag 3, XXH3 of all items u64, `FJL` 3. All little-endian.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const TRAILER: [u8; 4] = *b"FJL\x03";
const BUFFER_LEN: usize = 256 << 10;
/// No key or value of ours is longer.
const VALUE_LEN_MAX: u32 = 64 << 20;

/// What must not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// A journal cannot be read or cut.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// A journal that was synced whole is not whole.
    #[error("{path} is damaged at byte {offset}: what it held behind that is lost; replace the drive")]
    Damaged { path: PathBuf, offset: u64 },
}

/// Cuts a torn end of the active journal.
///
/// # Errors
/// An older journal is damaged, or one cannot be read.
pub(super) fn prepare(database: &Path) -> Result<(), JournalError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |cause| JournalError::Io { path, cause }
    };
    let mut journals = list(database).map_err(at(database))?;
    let Some(active) = journals.pop() else { return Ok(()) };
    for path in journals {
        if let Ending::Torn { offset } = examine(&path).map_err(at(&path))? {
            return Err(JournalError::Damaged { path, offset });
        }
    }
    if let Ending::Torn { offset } = examine(&active).map_err(at(&active))? {
        tracing::warn!(
            journal = %active.display(), offset,
            "cutting an unfinished batch off a journal; if the node did not lose power, the drive is failing"
        );
        cut(&active, offset).map_err(at(&active))?;
    }
    Ok(())
}

/// The journals by age.
fn list(database: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut journals = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse::<u64>().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// How a journal ends.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// With a whole batch, and zeros.
    Whole,
    /// With something else from here on.
    Torn { offset: u64 },
}

fn examine(path: &Path) -> io::Result<Ending> {
    let mut reader = BufReader::with_capacity(BUFFER_LEN, File::open(path)?);
    let mut offset = 0;
    while let Some(len) = batch_len(&mut reader)? {
        offset += len;
    }
    reader.seek(SeekFrom::Start(offset))?;
    Ok(if is_zero(&mut reader)? { Ending::Whole } else { Ending::Torn { offset } })
}

/// The length of the batch that begins here; `None` if none does, or not a whole one.
fn batch_len(reader: &mut impl Read) -> io::Result<Option<u64>> {
    match Batch::default().read(reader) {
        Ok(len) => Ok(len),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Default)]
struct Batch {
    len: u64,
    items: Xxh3,
}

impl Batch {
    fn read(mut self, reader: &mut impl Read) -> io::Result<Option<u64>> {
        if self.tag(reader)? != 1 {
            return Ok(None);
        }
        let item_count = u32::from_le_bytes(self.field(reader)?);
        let _sequence: [u8; 8] = self.field(reader)?;
        for _ in 0..item_count {
            let is_item = match self.tag(reader)? {
                2 => self.item(reader)?,
                4 => self.hashed::<8>(reader, 4).map(|_| true)?,
                _ => false,
            };
            if !is_item {
                return Ok(None);
            }
        }
        if self.tag(reader)? != 3 {
            return Ok(None);
        }
        let is_whole = u64::from_le_bytes(self.field(reader)?) == self.items.digest() && self.field(reader)? == TRAILER;
        Ok(is_whole.then_some(self.len))
    }

    fn item(&mut self, reader: &mut impl Read) -> io::Result<bool> {
        let head: [u8; 20] = self.hashed(reader, 2)?;
        let [_, compression, _, _, _, _, _, _, _, _, key_len @ .., v0, v1, v2, v3, s0, s1, s2, s3] = head;
        let (value_len, stored_len) = (u32::from_le_bytes([v0, v1, v2, v3]), u32::from_le_bytes([s0, s1, s2, s3]));
        if compression != 0 || value_len != stored_len || value_len > VALUE_LEN_MAX {
            return Ok(false);
        }
        self.bytes(reader, u64::from(u16::from_le_bytes(key_len)) + u64::from(value_len))?;
        Ok(true)
    }

    fn tag(&mut self, reader: &mut impl Read) -> io::Result<u8> {
        self.field(reader).map(|[tag]| tag)
    }

    fn field<const LEN: usize>(&mut self, reader: &mut impl Read) -> io::Result<[u8; LEN]> {
        let mut field = [0; LEN];
        reader.read_exact(&mut field)?;
        self.len += LEN as u64;
        Ok(field)
    }

    /// A field behind a tag, both of which count for the checksum.
    fn hashed<const LEN: usize>(&mut self, reader: &mut impl Read, tag: u8) -> io::Result<[u8; LEN]> {
        let field = self.field(reader)?;
        self.items.update(&[tag]);
        self.items.update(&field);
        Ok(field)
    }

    fn bytes(&mut self, reader: &mut impl Read, mut left: u64) -> io::Result<()> {
        self.len += left;
        let mut buffer = [0; 4096];
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            reader.read_exact(&mut buffer[..len])?;
            self.items.update(&buffer[..len]);
            left -= len as u64;
        }
        Ok(())
    }
}

fn is_zero(reader: &mut impl Read) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(true);
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}

fn cut(path: &Path, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::kv::{Batch, FjallConfig, FjallKv, Kv, KvError, KvView, Space};

    const VALUE_LEN: usize = 20_000;

    /// Writes `count` synced batches and says where each ends.
    fn fill(dir: &Path, count: u8) -> Vec<u64> {
        let kv = FjallKv::open(dir, &FjallConfig::default()).unwrap();
        let path = active(dir);
        (0..count)
            .map(|number| {
                let mut batch = Batch::new();
                batch.put(Space::Log, vec![number], vec![number + 1; VALUE_LEN]);
                batch.delete(Space::State, vec![number]);
                kv.write(batch).unwrap();
                kv.sync().unwrap();
                end(&path)
            })
            .collect()
    }

    fn active(dir: &Path) -> PathBuf {
        list(dir).unwrap().pop().unwrap()
    }

    fn end(path: &Path) -> u64 {
        let mut reader = BufReader::new(File::open(path).unwrap());
        std::iter::from_fn(|| batch_len(&mut reader).unwrap()).sum()
    }

    fn write(path: &Path, offset: u64, bytes: &[u8]) {
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
    }

    fn stored(dir: &Path) -> Vec<u8> {
        let kv = FjallKv::open(dir, &FjallConfig::default()).unwrap();
        (0..9).filter(|number| kv.get(Space::Log, &[*number]).unwrap().is_some()).collect()
    }

    #[test]
    fn whole_journals_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        prepare(&dir.path().join("absent")).unwrap();
        let ends = fill(dir.path(), 3);
        assert!(ends.is_sorted() && ends[0] > VALUE_LEN as u64, "the journal is read as fjall writes it");
        let len = active(dir.path()).metadata().unwrap().len();
        prepare(dir.path()).unwrap();
        assert_eq!(active(dir.path()).metadata().unwrap().len(), len);
        assert_eq!(stored(dir.path()), [0, 1, 2]);
    }

    #[test]
    fn a_last_batch_of_which_a_page_is_missing_is_cut() {
        for from in [0, 1, 40, 4_096, 8_192] {
            let dir = tempfile::tempdir().unwrap();
            let ends = fill(dir.path(), 3);
            write(&active(dir.path()), ends[1] + from, &[0; 4_096]);
            assert_eq!(stored(dir.path()), [0, 1], "a page from byte {from} of the batch");
            assert_eq!(stored(dir.path()), [0, 1], "once more");
        }
    }

    #[test]
    fn a_journal_that_was_synced_whole_and_is_not_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let ends = fill(dir.path(), 3);
        let sealed = active(dir.path());
        let next = dir.path().join("9.jnl");
        std::fs::copy(&sealed, &next).unwrap();
        write(&sealed, ends[0] + 100, b"!");
        let error = FjallKv::open(dir.path(), &FjallConfig::default()).map(drop).unwrap_err();
        let expected = format!("damaged at byte {}", ends[0]);
        assert!(matches!(&error, KvError::Open { reason, .. } if reason.contains(&expected)), "{error}");
    }

    #[test]
    fn arbitrary_bytes_are_no_batch() {
        proptest::proptest!(|(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200))| {
            let with_tag: Vec<u8> = [&[1], &bytes[..]].concat();
            proptest::prop_assert_eq!(batch_len(&mut &with_tag[..]).unwrap(), None);
        });
    }
}
