//! From an HTTP request to what it asks: the bucket and key it names, and which of all S3 operations it is.
//!
//! The enum is total: every operation of S3 has a name here, whether this gateway serves it or not, so that what is not
//! served is refused by name instead of being mistaken for something else.

mod operation;
mod query;
mod target;
mod uri;

pub use operation::Operation;
pub(crate) use operation::resolve;
pub use query::Query;
pub use target::Target;
pub(crate) use target::{bucket_of_host, parse_key, parse_target};
pub(crate) use uri::{Plus, Slash, decode, decode_utf8, encode_into};
