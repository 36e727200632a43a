//! The parameters of a request's query, decoded, in the order given.

use super::uri::{Plus, decode_utf8};
use crate::error::{ErrorCode, S3Error};

/// Decoded parameters. S3 requests have a handful, so looking one up walks the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a query without its `?`. A parameter without `=` has an empty value.
    ///
    /// # Errors
    /// `InvalidURI` for a broken escape or bytes that are not UTF-8.
    pub fn parse(raw: Option<&str>) -> Result<Self, S3Error> {
        let mut pairs = Vec::new();
        for piece in raw.unwrap_or_default().split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let decoded = |text| decode_utf8(text, Plus::Space).ok_or_else(|| S3Error::from(ErrorCode::InvalidURI));
            pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self { pairs })
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether the parameter is there, with any value or none.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All parameters.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}
