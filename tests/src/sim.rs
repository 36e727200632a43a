//! A whole cluster in one deterministic thread: the real member, engine, consensus and drive store on a simulated
//! network (turmoil), simulated files and stores that lose what was not synced, and a simulated clock.
//!
//! What is not simulated: HTTP and signatures (clients speak to the [`Store`](drystone_cluster::store::Store) of a
//! node), fjall and sled, whose ports have in-memory forms here, and threads: everything is a task.

mod clients;
mod disk;
mod founding;
mod node;
mod plan;
mod run;
mod service;
mod trace;
mod world;

pub use disk::Disk;
pub use node::Node;
pub use plan::{Act, Kind, Plan, plan};
pub use run::{Report, Shown, run};
pub use service::{Ask, Reply, etag_of};
pub use trace::Trace;
pub use world::{Answer, Failure, Size, World};
