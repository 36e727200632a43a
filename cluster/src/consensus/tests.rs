//! Groups of replicas in one process: in-memory network and stores, simulated time, seeded crashes and partitions.

mod agreement;
mod codec;
mod durability;
mod harness;
mod shared_node;
mod snapshots;
mod speed;
mod storage;
