//! Connection ids, and the class a dialler asks for in the first of them.
//!
//! The class of a connection must be known before its handshake, because it decides on which runtime the connection
//! lives. A dialler says it in the first byte of the id it addresses its first packet to: below 128 control, else data.
//! The hello confirms it. Ids of ours are 8 random bytes from the endpoint's randomness; they need not be recognisable
//! after a restart, since a stateless reset answers any unknown id (at most every 20 ms) and only the reset key counts.

use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngCore;
use rand::rngs::StdRng;

use crate::class::Class;

/// First byte of the ids that ask for a data connection.
const DATA_FROM: u8 = 128;
const CID_LEN: usize = 8;
/// Length of the id that a dialler addresses first; long, since its randomness guards the handshake.
const FIRST_CID_LEN: usize = 20;

/// The class that a dialler's first id asks for.
pub(crate) fn class_of_first_id(id: &[u8]) -> Class {
    match id.first() {
        Some(byte) if *byte >= DATA_FROM => Class::Data,
        _ => Class::Control,
    }
}

/// Draws the id that a dialler addresses first.
pub(crate) fn first_id(class: Class, rng: &mut StdRng) -> ConnectionId {
    let mut id = [0; FIRST_CID_LEN];
    rng.fill_bytes(&mut id);
    id[0] = match class {
        Class::Control => id[0] & (DATA_FROM - 1),
        Class::Data => id[0] | DATA_FROM,
    };
    ConnectionId::new(&id)
}

/// Draws the ids of an endpoint from its own randomness.
pub(crate) struct SeededIds(pub(crate) StdRng);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CID_LEN];
        self.0.fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn first_ids_carry_their_class() {
        let mut rng = StdRng::seed_from_u64(1);
        for class in Class::ALL {
            for _ in 0..50 {
                assert_eq!(class_of_first_id(&first_id(class, &mut rng)), class);
            }
        }
        assert_eq!(class_of_first_id(&[]), Class::Control);
    }

    #[test]
    fn one_seed_draws_the_same_ids() {
        let mut one = SeededIds(StdRng::seed_from_u64(1));
        let mut two = SeededIds(StdRng::seed_from_u64(1));
        assert_eq!(one.generate_cid(), two.generate_cid());
        assert_ne!(one.generate_cid(), one.generate_cid());
    }
}
