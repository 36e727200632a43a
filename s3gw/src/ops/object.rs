//! Objects: put, get, head, delete, copy, attributes.

mod attributes;
mod copy;
mod delete;
mod get;
mod put;

pub(super) use attributes::attributes;
pub(super) use copy::{CopyBody, CopySource, copy, result_xml};
pub(super) use delete::delete;
pub(super) use get::{get, head};
pub(super) use put::put;
