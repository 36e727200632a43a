//! Derived signing keys, kept because deriving one costs four HMACs.
//!
//! An entry is used only while day and secret are the same, so a key that was deleted and made again with another secret
//! is derived anew. Bounded: when full, the whole cache is dropped and fills again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use drystone_cluster::store::AccessKey;
use secrecy::{ExposeSecret, SecretBox, SecretString};

use super::{Mac256, derive_key};

struct Entry {
    date: Box<str>,
    secret: SecretString,
    key: SecretBox<Mac256>,
}

/// The cache of one gateway.
pub(crate) struct SigningKeys {
    region: String,
    count_max: usize,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl SigningKeys {
    pub(crate) fn new(region: String, count_max: usize) -> Self {
        Self { region, count_max, entries: Mutex::new(BTreeMap::new()) }
    }

    /// The signing key of `access_key` for `date` (`YYYYMMDD`).
    pub(crate) fn get(&self, access_key: &AccessKey, date: &str) -> Mac256 {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&access_key.id)
            && &*entry.date == date
            && same_secret(&entry.secret, &access_key.secret)
        {
            return *entry.key.expose_secret();
        }
        let key = derive_key(access_key.secret.expose_secret(), date, &self.region);
        if entries.len() >= self.count_max {
            entries.clear();
        }
        let entry = Entry { date: date.into(), secret: access_key.secret.clone(), key: SecretBox::new(Box::new(key)) };
        entries.insert(access_key.id.clone(), entry);
        key
    }
}

/// Compares secrets without their lengths of agreement showing in the time taken.
fn same_secret(left: &SecretString, right: &SecretString) -> bool {
    let (left, right) = (left.expose_secret().as_bytes(), right.expose_secret().as_bytes());
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_made_again_with_another_secret_signs_otherwise() {
        let keys = SigningKeys::new("us-east-1".to_owned(), 2);
        let key = |id: &str, secret: &str| AccessKey { id: id.to_owned(), secret: SecretString::from(secret) };
        let first = keys.get(&key("a", "one"), "20130524");
        assert_eq!(first, derive_key("one", "20130524", "us-east-1"));
        assert_eq!(first, keys.get(&key("a", "one"), "20130524"));
        assert_ne!(first, keys.get(&key("a", "two"), "20130524"));
        assert_ne!(first, keys.get(&key("a", "one"), "20130525"));
        for id in ["b", "c", "d"] {
            keys.get(&key(id, "x"), "20130524");
        }
        assert!(keys.entries.lock().unwrap().len() <= 2);
    }
}
