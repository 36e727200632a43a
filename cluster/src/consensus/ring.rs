//! Which commands were applied lately, so that a retry is applied once.
//!
//! The command at log index `i` owns slot `i mod RING_SLOTS`; its record is the command's id and answer. Records are part
//! of the replicated state (written with it, part of snapshots), so every replica recognises the same retries. Memory
//! holds fingerprints only; a record is read when a fingerprint matches, which is a retry but for one command in 60,000.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::ids::{CommandId, GroupId};
use super::keys;
use crate::kv::{KeyRange, KvError, KvView, Space};

/// How many of the latest log entries of a group are remembered: 15 s of one group's commands at 4,300 a second, where a
/// client gives up retrying after 8 s. Memory grows with what is remembered, up to 512 KiB per group, hence 9 MiB for a
/// node with 17 groups; on the drive a record takes the length of its answer and 30 bytes.
///
/// One less than the values of a `u16`, so that one of them can stand for "none".
pub const RING_SLOTS: u16 = u16::MAX;

const ID_LEN: usize = 16;
const NONE: u16 = u16::MAX;
/// The fingerprint of an empty slot.
const EMPTY: u32 = 0;
/// Chains of a new table; it doubles when it holds more commands than chains.
const CHAINS_MIN: usize = 16;

/// Fingerprints of the ids of recent commands by slot, and chains of slots by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Ring {
    fingerprints: Vec<u32>,
    /// The next slot of the same chain, by slot.
    next: Vec<u16>,
    /// The first slot of each chain; a power of two of them, or none yet.
    heads: Vec<u16>,
    count: usize,
}

/// The slot of the command at `index`.
pub(super) fn slot_at(index: u64) -> u16 {
    u16::try_from(index % u64::from(RING_SLOTS)).unwrap_or_default()
}

/// Ids are random, but need not be: Fibonacci hashing (Knuth, TAOCP 3, §6.4) spreads counters as well.
fn fingerprint(id: CommandId) -> u32 {
    let half = |bytes: &[u8]| bytes.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let (high, low) = id.0.split_at(ID_LEN / 2);
    let mixed = (half(high) ^ half(low).rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    u32::try_from(mixed >> 32).unwrap_or_default().max(EMPTY + 1)
}

/// The record of an applied command.
pub(super) fn encode_record(id: CommandId, answer: &[u8]) -> Bytes {
    [&id.0[..], answer].concat().into()
}

/// Id and answer of a record; none if the bytes are no record.
pub(super) fn decode_record(record: &Bytes) -> Option<(CommandId, Bytes)> {
    let id = record.get(..ID_LEN)?.try_into().ok()?;
    Some((CommandId(id), record.slice(ID_LEN..)))
}

impl Ring {
    /// Reads the ids of a generation.
    pub(super) fn read(kv: &dyn KvView, group: GroupId, generation: u32) -> Result<Self, KvError> {
        let mut ring = Self::default();
        kv.scan(Space::State, &KeyRange::prefix(&keys::ring(group, generation)), &mut |key, value| {
            let id = value.get(..ID_LEN).and_then(|id| id.try_into().ok());
            if let (Some(slot), Some(id)) = (keys::slot_of(key), id) {
                ring.put(slot, CommandId(id));
            }
            ControlFlow::Continue(())
        })?;
        Ok(ring)
    }

    /// The slots whose records may be that of `id`.
    pub(super) fn candidates(&self, id: CommandId) -> impl Iterator<Item = u16> {
        let wanted = fingerprint(id);
        let first = self.heads.get(self.chain(wanted)).copied();
        let follow = |slot: &u16| Some(self.next[usize::from(*slot)]).filter(|slot| *slot != NONE);
        std::iter::successors(first.filter(|slot| *slot != NONE), follow)
            .filter(move |slot| self.fingerprints[usize::from(*slot)] == wanted)
    }

    /// Remembers that `id` was applied at `slot`, and forgets what was there.
    pub(super) fn put(&mut self, slot: u16, id: CommandId) {
        let at = usize::from(slot);
        if at >= self.fingerprints.len() {
            self.fingerprints.resize(at + 1, EMPTY);
            self.next.resize(at + 1, NONE);
        }
        if self.fingerprints[at] != EMPTY {
            self.unlink(slot);
        }
        self.fingerprints[at] = fingerprint(id);
        self.count += 1;
        if self.count > self.heads.len() {
            self.rebuild();
        } else {
            self.link(slot);
        }
    }

    fn chain(&self, fingerprint: u32) -> usize {
        // An empty table has no chain 0 either.
        fingerprint as usize & self.heads.len().saturating_sub(1)
    }

    fn link(&mut self, slot: u16) {
        let chain = self.chain(self.fingerprints[usize::from(slot)]);
        self.next[usize::from(slot)] = std::mem::replace(&mut self.heads[chain], slot);
    }

    fn unlink(&mut self, slot: u16) {
        let chain = self.chain(self.fingerprints[usize::from(slot)]);
        let after = std::mem::replace(&mut self.next[usize::from(slot)], NONE);
        self.count -= 1;
        let mut before = self.heads[chain];
        if before == slot {
            self.heads[chain] = after;
            return;
        }
        while self.next[usize::from(before)] != slot {
            before = self.next[usize::from(before)];
        }
        self.next[usize::from(before)] = after;
    }

    fn rebuild(&mut self) {
        self.heads = vec![NONE; (self.heads.len() * 2).max(CHAINS_MIN)];
        for slot in 0..self.fingerprints.len().min(usize::from(RING_SLOTS)) {
            if self.fingerprints[slot] != EMPTY {
                self.link(u16::try_from(slot).unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn numbered(number: u64) -> CommandId {
        CommandId(u128::from(number).to_be_bytes())
    }

    #[test]
    fn a_slot_that_is_reused_forgets_its_old_command() {
        let mut ring = Ring::default();
        ring.put(slot_at(7), numbered(1));
        assert_eq!(ring.candidates(numbered(1)).collect::<Vec<_>>(), [7]);
        ring.put(slot_at(7 + u64::from(RING_SLOTS)), numbered(2));
        assert_eq!(ring.candidates(numbered(1)).count(), 0);
        assert_eq!(ring.candidates(numbered(2)).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn the_last_commands_are_found_and_older_ones_are_not() {
        let last = 3 * u64::from(RING_SLOTS) + 1_234;
        let mut ring = Ring::default();
        for index in 0..=last {
            ring.put(slot_at(index), numbered(index));
        }
        let mut mistaken = 0;
        for index in 0..=last {
            let found = ring.candidates(numbered(index)).any(|slot| slot == slot_at(index));
            if last - index < u64::from(RING_SLOTS) {
                assert!(found, "{index}");
            } else {
                mistaken += usize::from(found);
            }
        }
        assert!(mistaken < 10, "{mistaken}: fingerprints must tell commands apart");
    }

    #[test]
    fn slots_in_any_order_are_found_as_in_a_map() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut ring = Ring::default();
        let mut map = BTreeMap::new();
        for number in 0..20_000 {
            let slot = rng.random_range(0..5_000);
            ring.put(slot, numbered(number));
            map.insert(slot, numbered(number));
        }
        for (slot, id) in &map {
            assert!(ring.candidates(*id).any(|found| found == *slot));
        }
        let linked: usize = (0..20_000).map(|number| ring.candidates(numbered(number)).count()).sum();
        assert!(linked >= map.len() && linked < map.len() + 10, "{linked}: forgotten commands are still linked");
        assert_eq!(ring.count, map.len());
    }
}
