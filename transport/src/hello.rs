//! The first words on a connection: who each end says it is, and what it speaks.
//!
//! The dialler sends a hello on the connection's first stream; the other end answers with its own on the same stream,
//! or closes the connection with a refusal. Nothing else is served before. What a hello says about cluster and node
//! must agree with the certificate. Body version 1, bincode, at most [`HELLO_LEN_MAX`] bytes.

use bincode::{Decode, Encode};
use drystone_certs::{ClusterId, InstanceId, NodeId};

use crate::class::Class;
use crate::frame::{FrameError, FrameKind};

/// The longest hello accepted, in bytes.
pub const HELLO_LEN_MAX: u32 = 1_024;
/// The oldest protocol version this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest protocol version this build speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// Longest software version text; what is longer is cut before it is sent.
const SOFTWARE_LEN_MAX: usize = 64;

/// What one end says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The oldest protocol version it speaks.
    pub protocol_min: u16,
    /// The newest protocol version it speaks.
    pub protocol_max: u16,
    /// What the connection is for.
    pub class: Class,
    /// Its cluster; the same as in its certificate.
    pub cluster: ClusterId,
    /// Itself; the same as in its certificate.
    pub node: NodeId,
    /// The life of its state directory.
    pub instance: InstanceId,
    /// The newest topology epoch it knows.
    pub epoch: u64,
    /// Its software version, for people.
    pub software: String,
}

mod v1 {
    use super::{ClusterId, Decode, Encode, InstanceId, NodeId};

    /// Frozen: released.
    #[derive(Encode, Decode)]
    pub(super) struct Hello {
        pub protocol_min: u16,
        pub protocol_max: u16,
        pub class: u8,
        pub cluster: ClusterId,
        pub node: NodeId,
        pub instance: InstanceId,
        pub epoch: u64,
        pub software: String,
    }
}

/// Encodes the body of a hello: a version byte, then version 1.
///
/// # Errors
///
/// [`FrameError::Body`] if the encoder refuses, which bounded fields exclude.
pub fn encode_hello(hello: &Hello) -> Result<Vec<u8>, FrameError> {
    let software: String = hello.software.chars().take(SOFTWARE_LEN_MAX).collect();
    let body = v1::Hello {
        protocol_min: hello.protocol_min,
        protocol_max: hello.protocol_max,
        class: hello.class.number(),
        cluster: hello.cluster,
        node: hello.node,
        instance: hello.instance,
        epoch: hello.epoch,
        software,
    };
    let mut bytes = vec![1];
    let mut encoded =
        bincode::encode_to_vec(body, bincode::config::standard()).map_err(|_| FrameError::Body(FrameKind::Hello))?;
    bytes.append(&mut encoded);
    Ok(bytes)
}

/// Decodes the body of a hello; any bytes, bounded.
///
/// # Errors
///
/// [`FrameError::Body`] if it is not a whole hello of version 1.
pub fn decode_hello(bytes: &[u8]) -> Result<Hello, FrameError> {
    const LIMIT: usize = 1_024;
    let bad = FrameError::Body(FrameKind::Hello);
    let Some((1, body)) = bytes.split_first() else {
        return Err(bad);
    };
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (hello, len): (v1::Hello, usize) = bincode::decode_from_slice(body, config).map_err(|_| bad)?;
    if len != body.len() {
        return Err(bad);
    }
    Ok(Hello {
        protocol_min: hello.protocol_min,
        protocol_max: hello.protocol_max,
        class: Class::from_number(hello.class).ok_or(bad)?,
        cluster: hello.cluster,
        node: hello.node,
        instance: hello.instance,
        epoch: hello.epoch,
        software: hello.software,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            protocol_min: 1,
            protocol_max: 2,
            class: Class::Data,
            cluster: ClusterId::from_bytes([1; 16]),
            node: NodeId::from_bytes([2; 8]),
            instance: InstanceId::from_bytes([3; 16]),
            epoch: 300,
            software: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn hello_version_1_is_frozen() {
        let bytes = encode_hello(&hello()).unwrap();
        let golden = [
            "01",
            "01",
            "02",
            "01",
            "01010101010101010101010101010101",
            "0202020202020202",
            "03030303030303030303030303030303",
            "fb2c01",
            "05302e312e30",
        ];
        assert_eq!(hex::encode(&bytes), golden.concat());
        assert_eq!(decode_hello(&bytes), Ok(hello()));
    }

    #[test]
    fn trailing_bytes_other_versions_and_classes_are_refused() {
        let bytes = encode_hello(&hello()).unwrap();
        assert!(decode_hello(&[&bytes[..], &[0]].concat()).is_err());
        assert!(decode_hello(&[&[2], &bytes[1..]].concat()).is_err());
        let mut class = bytes.clone();
        class[3] = 9;
        assert!(decode_hello(&class).is_err());
    }

    #[test]
    fn the_longest_hello_fits_its_bound() {
        let long = Hello { software: "é".repeat(1_000), epoch: u64::MAX, ..hello() };
        let bytes = encode_hello(&long).unwrap();
        assert!(bytes.len() <= usize::try_from(HELLO_LEN_MAX).unwrap());
        assert_eq!(decode_hello(&bytes).unwrap().software.chars().count(), SOFTWARE_LEN_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(hello) = decode_hello(&bytes) {
                prop_assert!(hello.software.len() <= bytes.len());
            }
        }

        #[test]
        fn a_damaged_hello_decodes_without_panic(at in 0usize..80, with in any::<u8>()) {
            let mut bytes = encode_hello(&hello()).unwrap();
            let at = at % bytes.len();
            bytes[at] = with;
            let _decoded = decode_hello(&bytes);
        }
    }
}
