//! One page of a bucket's listing out of its shards' pages.
//!
//! Keys are spread over the shards by hash, so each shard is first asked for only a little more than its share of the
//! page (`fetch_count`); the rare shard that runs out before the page is full is asked again. Decides only; whoever
//! drives it fetches.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::listing::{PageEnd, ShardPage, UploadEntry};
use crate::ids::{ShardIndex, UploadId};
use crate::store::{ListEntry, ListPage, UploadPage};

/// What can be merged: lines in one order over all shards.
pub trait Line: Clone {
    /// Names a place in the order, to go on after.
    type Position: Clone + std::fmt::Debug + PartialEq;

    /// The line's own place.
    fn position(&self) -> Self::Position;

    /// How two lines are ordered; equal lines are the same common prefix in two shards.
    fn order(&self, other: &Self) -> Ordering;
}

impl Line for ListEntry {
    type Position = String;

    fn position(&self) -> String {
        self.name().to_owned()
    }

    fn order(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl UploadEntry {
    fn place(&self) -> (&str, Option<UploadId>) {
        match self {
            Self::Upload(upload) => (upload.key.as_str(), Some(upload.upload)),
            Self::Prefix(prefix) => (prefix, None),
        }
    }
}

impl Line for UploadEntry {
    type Position = (String, Option<UploadId>);

    fn position(&self) -> Self::Position {
        let (name, upload) = self.place();
        (name.to_owned(), upload)
    }

    fn order(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// A page that a shard is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch<P> {
    /// Whom to ask.
    pub shard: ShardIndex,
    /// After which line; `None` is where the whole query begins.
    pub after: Option<P>,
    /// For how many lines at most.
    pub limit: usize,
}

/// How many lines to ask each of `shard_count` shards for when `wanted` are wanted of all: half more than its share.
pub fn fetch_count(wanted: usize, shard_count: usize) -> usize {
    let share = wanted.div_ceil(shard_count.max(1));
    (share + share.div_ceil(2) + 4).min(wanted)
}

/// Merges the shards' pages.
#[derive(Clone, Debug)]
pub struct Merge<E: Line> {
    sources: Vec<Source<E>>,
    merged: Vec<E>,
    limit: usize,
}

#[derive(Clone, Debug)]
struct Source<E: Line> {
    lines: VecDeque<E>,
    reached: Option<E::Position>,
    end: PageEnd,
}

impl<E: Line> Merge<E> {
    /// A merge of `shard_count` shards into one page of at most `limit` lines.
    pub fn new(shard_count: u16, limit: usize) -> Self {
        let source = || Source { lines: VecDeque::new(), reached: None, end: PageEnd::More };
        Self { sources: (0..shard_count).map(|_| source()).collect(), merged: Vec::new(), limit }
    }

    /// What must be fetched before the page can be completed: at first of all shards, in the end of none.
    pub fn wants(&self) -> Vec<Fetch<E::Position>> {
        let left = self.limit - self.merged.len();
        if left == 0 {
            return Vec::new();
        }
        let limit = fetch_count(left, self.sources.len());
        (0..)
            .zip(&self.sources)
            .filter(|(_, source)| source.is_dry())
            .map(|(index, source)| Fetch { shard: ShardIndex(index), after: source.reached.clone(), limit })
            .collect()
    }

    /// Takes in what a shard answered to a [`Fetch`], and merges as far as is certain. A shard that is not wanted is
    /// ignored.
    pub fn feed(&mut self, shard: ShardIndex, page: ShardPage<E>) {
        let Some(source) = self.sources.get_mut(usize::from(shard.0)).filter(|source| source.is_dry()) else { return };
        if let Some(last) = page.entries.last() {
            source.reached = Some(last.position());
            source.end = page.end;
        } else {
            // A page without lines cannot lead to more of them.
            source.end = PageEnd::Exhausted;
        }
        source.lines.extend(page.entries);
        self.merge();
    }

    fn merge(&mut self) {
        while self.merged.len() < self.limit && !self.sources.iter().any(Source::is_dry) {
            let fronts = self.sources.iter().filter_map(|source| source.lines.front());
            let Some(least) = fronts.min_by(|one, other| one.order(other)).cloned() else { break };
            for source in &mut self.sources {
                if source.lines.front().is_some_and(|line| line.order(&least).is_eq()) {
                    source.lines.pop_front();
                }
            }
            self.merged.push(least);
        }
    }

    /// The lines and whether more follow, once nothing is wanted any more; `None` before.
    pub fn finish(self) -> Option<(Vec<E>, bool)> {
        if !self.wants().is_empty() {
            return None;
        }
        let more = |source: &Source<E>| !source.lines.is_empty() || source.end == PageEnd::More;
        let truncated = self.limit > 0 && self.sources.iter().any(more);
        Some((self.merged, truncated))
    }
}

impl<E: Line> Source<E> {
    /// Whether its next line is unknown.
    fn is_dry(&self) -> bool {
        self.lines.is_empty() && self.end == PageEnd::More
    }
}

impl Merge<ListEntry> {
    /// The page of a listing of objects; `None` while something is wanted.
    pub fn into_page(self) -> Option<ListPage> {
        self.finish().map(|(entries, truncated)| ListPage { entries, truncated })
    }
}

impl Merge<UploadEntry> {
    /// The page of a listing of uploads; `None` while something is wanted.
    pub fn into_page(self) -> Option<UploadPage> {
        let (entries, truncated) = self.finish()?;
        let next = entries.last().filter(|_| truncated).map(Line::position);
        let mut page = UploadPage { uploads: Vec::new(), prefixes: Vec::new(), truncated, next };
        for entry in entries {
            match entry {
                UploadEntry::Upload(upload) => page.uploads.push(upload),
                UploadEntry::Prefix(prefix) => page.prefixes.push(prefix),
            }
        }
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::listing::{Scope, list_shard, list_uploads_shard};
    use super::super::state::fixture::*;
    use super::*;
    use crate::state::MemoryState;

    #[test]
    fn each_shard_is_asked_for_little_more_than_its_share() {
        assert_eq!([(1000, 16), (1000, 1), (10, 16), (1, 3)].map(|(n, s)| fetch_count(n, s)), [99, 1000, 6, 1]);
    }

    #[test]
    fn only_shards_that_ran_dry_are_asked_again() {
        let line = |name: &str| ListEntry::Prefix(name.to_owned());
        let mut merge = Merge::new(2, 20);
        assert_eq!(merge.wants().len(), 2);
        merge.feed(ShardIndex(0), ShardPage { entries: vec![line("a"), line("b")], end: PageEnd::More });
        merge.feed(ShardIndex(1), ShardPage { entries: vec![line("b"), line("z")], end: PageEnd::More });
        assert_eq!(
            merge.wants(),
            [Fetch { shard: ShardIndex(0), after: Some("b".to_owned()), limit: 18.min(fetch_count(18, 2)) }]
        );
        assert!(merge.clone().finish().is_none());
        merge.feed(ShardIndex(0), ShardPage { entries: vec![], end: PageEnd::Exhausted });
        merge.feed(ShardIndex(0), ShardPage { entries: vec![line("c")], end: PageEnd::Exhausted });
        merge.feed(ShardIndex(1), ShardPage { entries: vec![], end: PageEnd::Exhausted });
        let page = merge.into_page().unwrap();
        assert_eq!((page.entries, page.truncated), (vec![line("a"), line("b"), line("z")], false));
    }

    #[test]
    fn an_empty_page_wants_nothing() {
        let merge = Merge::<ListEntry>::new(3, 0);
        assert_eq!(merge.wants(), []);
        assert_eq!(merge.into_page(), Some(ListPage { entries: Vec::new(), truncated: false }));
    }

    /// The names a listing must give, by the rule alone.
    fn expected(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<&str>, after: Option<&str>) -> Vec<String> {
        let name = |key: &String| match delimiter.and_then(|d| key[prefix.len()..].find(d).map(|at| at + d.len())) {
            Some(end) => key[..prefix.len() + end].to_owned(),
            None => key.clone(),
        };
        let names: BTreeSet<String> = keys.iter().filter(|key| key.starts_with(prefix)).map(name).collect();
        names.into_iter().filter(|name| after.is_none_or(|after| name.as_str() > after)).collect()
    }

    fn page(shards: &[MemoryState], scope: &Scope<'_>, after: Option<&str>, limit: usize) -> ListPage {
        let mut merge = Merge::<ListEntry>::new(u16::try_from(shards.len()).unwrap(), limit);
        loop {
            let wants = merge.wants();
            if wants.is_empty() {
                return merge.into_page().unwrap();
            }
            for fetch in wants {
                let after = fetch.after.as_deref().or(after);
                let shard = usize::from(fetch.shard.0);
                merge.feed(fetch.shard, list_shard(&shards[shard], scope, after, fetch.limit).unwrap());
            }
        }
    }

    fn pages(shards: &[MemoryState], scope: &Scope<'_>, after: Option<&str>, limit: usize) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), after.map(str::to_owned));
        loop {
            let page = page(shards, scope, after.as_deref(), limit);
            assert!(page.entries.len() <= limit && (!page.truncated || page.entries.len() == limit));
            names.extend(page.entries.iter().map(|entry| entry.name().to_owned()));
            if !page.truncated {
                return names;
            }
            after = names.last().cloned();
        }
    }

    fn upload_pages(shards: &[MemoryState], scope: &Scope<'_>, limit: usize) -> (Vec<(String, UploadId)>, Vec<String>) {
        let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
        let mut next: Option<(String, Option<UploadId>)> = None;
        loop {
            let mut merge = Merge::<UploadEntry>::new(u16::try_from(shards.len()).unwrap(), limit);
            while !merge.wants().is_empty() {
                for fetch in merge.wants() {
                    let (key, upload) = fetch.after.or_else(|| next.clone()).unzip();
                    let shard = &shards[usize::from(fetch.shard.0)];
                    let page = list_uploads_shard(shard, scope, key.as_deref(), upload.flatten(), fetch.limit);
                    merge.feed(fetch.shard, page.unwrap());
                }
            }
            let page = merge.into_page().unwrap();
            uploads.extend(page.uploads.into_iter().map(|upload| (upload.key.to_string(), upload.upload)));
            prefixes.extend(page.prefixes);
            if !page.truncated {
                return (uploads, prefixes);
            }
            next = page.next;
        }
    }

    fn text(max: usize) -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof!["a", "b", "/", "\0", "é"], 0..max).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_merge_of_any_distribution_is_the_sort_of_all(
            keys in proptest::collection::vec((text(6), 0..4_usize), 0..60),
            prefix in text(3), delimiter in proptest::option::of(prop_oneof!["/", "a", "b/"]),
            after in proptest::option::of(text(5)), limit in 1..8_usize,
        ) {
            let mut shards = vec![MemoryState::new(); 4];
            let mut all = BTreeSet::new();
            for (key, shard) in keys {
                if !key.is_empty() && all.insert(key.clone()) {
                    run(&mut shards[shard], &put(&key, 1));
                }
            }
            let scope = Scope { bucket: BUCKET, prefix: &prefix, delimiter: delimiter.as_deref() };
            let listed = pages(&shards, &scope, after.as_deref(), limit);
            prop_assert_eq!(listed, expected(&all, &prefix, delimiter.as_deref(), after.as_deref()));
        }

        #[test]
        fn a_merge_of_uploads_is_the_sort_of_all(
            keys in proptest::collection::vec((text(4), 0..4_u8), 0..40), prefix in text(2),
            delimiter in proptest::option::of(prop_oneof!["/", "a"]), limit in 1..6_usize,
        ) {
            let mut shards = vec![MemoryState::new(); 4];
            let mut all = BTreeSet::new();
            for (key, id) in keys {
                if !key.is_empty() {
                    let shard = key.len() % 4;
                    run(&mut shards[shard], &create_upload_as(&key, UploadId([id; 16])));
                    all.insert((key, UploadId([id; 16])));
                }
            }
            let scope = Scope { bucket: BUCKET, prefix: &prefix, delimiter: delimiter.as_deref() };
            let keys: BTreeSet<String> = all.iter().map(|(key, _)| key.clone()).collect();
            let names = expected(&keys, &prefix, delimiter.as_deref(), None);
            let (plain, rolled): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| {
                !delimiter.as_ref().is_some_and(|d| name[prefix.len()..].contains(d.as_str()))
            });
            let (uploads, prefixes) = upload_pages(&shards, &scope, limit);
            let expected: Vec<_> = all.into_iter().filter(|(key, _)| plain.contains(key)).collect();
            prop_assert_eq!((uploads, prefixes), (expected, rolled));
        }
    }
}
