//! Where a group keeps what, in the shared store of its drive.
//!
//! Log space:   `group u16 BE | kind u8 [| index u64 BE]`.
//! State space: `group u16 BE | generation u32 BE | area u8 | key`; generation 0 holds the records about the state itself.
//!
//! A generation is one installed state: a snapshot is received into a new one, then the `generation` record is switched.

use super::ids::GroupId;

const KIND_REPLICA: u8 = 0;
const KIND_VOTE: u8 = 1;
const KIND_PURGED: u8 = 2;
const KIND_ENTRY: u8 = 3;

const RECORD_GENERATION: u8 = 0;
const RECORD_APPLIED: u8 = 1;
const RECORD_MEMBERSHIP: u8 = 2;

/// Area of a generation that belongs to the state machine.
const AREA_MACHINE: u8 = 0;
/// Area of a generation that holds the answers of recent commands.
const AREA_RING: u8 = 1;

fn log_key(group: GroupId, kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(11);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.push(kind);
    key
}

pub(super) fn replica(group: GroupId) -> Vec<u8> {
    log_key(group, KIND_REPLICA)
}

pub(super) fn vote(group: GroupId) -> Vec<u8> {
    log_key(group, KIND_VOTE)
}

pub(super) fn purged(group: GroupId) -> Vec<u8> {
    log_key(group, KIND_PURGED)
}

pub(super) fn entries(group: GroupId) -> Vec<u8> {
    log_key(group, KIND_ENTRY)
}

pub(super) fn entry(group: GroupId, index: u64) -> Vec<u8> {
    let mut key = log_key(group, KIND_ENTRY);
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// The index in an entry's key.
pub(super) fn entry_index(key: &[u8]) -> Option<u64> {
    let bytes = key.get(3..)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// Everything of one generation of a group's state.
pub(super) fn generation(group: GroupId, generation: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(48);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

/// All state of a group.
pub(super) fn state(group: GroupId) -> Vec<u8> {
    group.0.to_be_bytes().to_vec()
}

/// The generation in a key of a group's state.
pub(super) fn generation_of(key: &[u8]) -> Option<u32> {
    let bytes = key.get(2..6)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

fn with_byte(mut key: Vec<u8>, byte: u8) -> Vec<u8> {
    key.push(byte);
    key
}

pub(super) fn current_generation(group: GroupId) -> Vec<u8> {
    with_byte(generation(group, 0), RECORD_GENERATION)
}

pub(super) fn applied(group: GroupId) -> Vec<u8> {
    with_byte(generation(group, 0), RECORD_APPLIED)
}

pub(super) fn membership(group: GroupId) -> Vec<u8> {
    with_byte(generation(group, 0), RECORD_MEMBERSHIP)
}

/// What the state machine's own keys are relative to.
pub(super) fn machine(group: GroupId, number: u32) -> Vec<u8> {
    with_byte(generation(group, number), AREA_MACHINE)
}

pub(super) fn ring(group: GroupId, number: u32) -> Vec<u8> {
    with_byte(generation(group, number), AREA_RING)
}

pub(super) fn ring_slot(group: GroupId, number: u32, slot: u16) -> Vec<u8> {
    let mut key = ring(group, number);
    key.extend_from_slice(&slot.to_be_bytes());
    key
}

/// The slot in the key of a ring record.
pub(super) fn slot_of(key: &[u8]) -> Option<u16> {
    let bytes = key.get(7..)?.try_into().ok()?;
    Some(u16::from_be_bytes(bytes))
}
