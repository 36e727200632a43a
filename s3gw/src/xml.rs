//! The XML of S3: a bounded reader into a small tree, a writer, and the three requests that come as XML.
//!
//! Document types and entities of one's own are refused, depth and element count are bounded, and the text of an element
//! is taken as it stands, since keys may begin or end with spaces.

mod reader;
mod requests;
mod writer;

pub(crate) use requests::{CompletedPartXml, DeleteObjectXml, parse_complete, parse_create_bucket, parse_delete};
pub(crate) use writer::XmlWriter;
