//! Directory trees: making one of real files, and comparing two byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a tree holds: relative path → (length, BLAKE3).
pub type Manifest = BTreeMap<String, (u64, blake3::Hash)>;

/// Files larger than this are left out when a tree is made: the job is about many real files.
const FILE_LEN_MAX: u64 = 64 * 1024 * 1024;

/// How much to gather.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// At least so many files.
    pub files: usize,
    /// At least so many bytes.
    pub bytes: u64,
}

/// Reads all regular files under `root`.
///
/// # Errors
/// A file or directory cannot be read.
pub fn manifest(root: &Path) -> io::Result<Manifest> {
    let mut found = Manifest::new();
    for path in files(root)? {
        let mut hasher = blake3::Hasher::new();
        let len = io::copy(&mut fs::File::open(&path)?, &mut hasher)?;
        let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        found.insert(relative, (len, hasher.finalize()));
    }
    Ok(found)
}

/// The first few differences between two trees, in words; empty if they are equal.
#[must_use]
pub fn differences(expected: &Manifest, found: &Manifest) -> Vec<String> {
    let missing = expected.keys().filter(|path| !found.contains_key(*path)).map(|path| format!("missing: {path}"));
    let surplus = found.keys().filter(|path| !expected.contains_key(*path)).map(|path| format!("surplus: {path}"));
    let other = expected.iter().filter_map(|(path, content)| {
        let there = found.get(path)?;
        (there != content).then(|| format!("differs: {path} ({} and {} bytes)", content.0, there.0))
    });
    missing.chain(surplus).chain(other).take(20).collect()
}

/// Copies real files of this machine below `into` until `size` is reached: the toolchain, the sources of the crates
/// this was built from, the system's libraries and shared files. Adds names that are hard on clients. Many small files
/// come first, then large ones, so that neither count nor bytes are made up.
///
/// # Errors
/// The machine has not enough material, or copying failed.
pub fn gather(into: &Path, size: Size) -> io::Result<Manifest> {
    let (mut count, mut bytes) = (awkward(into)?, 0);
    let sources = sources();
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for (index, source) in sources.iter().enumerate() {
        for path in files(source).unwrap_or_default() {
            let len = fs::metadata(&path)?.len();
            let target = into.join(format!("{index}")).join(path.strip_prefix(source).unwrap_or(&path));
            let list = if len < 256 * 1024 { &mut small } else { &mut large };
            if len <= FILE_LEN_MAX && is_plain(&target) {
                list.push((path, target, len));
            }
        }
        if small.len() > 4 * size.files && large.iter().map(|(.., len)| len).sum::<u64>() > size.bytes {
            break;
        }
    }
    let many = small.into_iter().take(size.files);
    for (path, target, len) in many.chain(large) {
        if count >= size.files && bytes >= size.bytes {
            break;
        }
        fs::create_dir_all(target.parent().unwrap_or(into))?;
        // Not everything of the system is ours to read.
        if fs::copy(&path, &target).is_ok() {
            count += 1;
            bytes += len;
        }
    }
    if count < size.files || bytes < size.bytes {
        let message = format!("only {count} files with {bytes} bytes found in {sources:?}");
        return Err(io::Error::other(message));
    }
    manifest(into)
}

/// Whether every client on every system can name it, so that a difference is the store's and not the file system's.
fn is_plain(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.len() < 700 && !path.chars().any(char::is_control))
}

/// Files with names and sizes that clients and servers get wrong; their number.
fn awkward(into: &Path) -> io::Result<usize> {
    let names = [
        "a b/c d.txt",
        "plus+plus/1+1=2",
        "percent%41/100%.txt",
        "ünï/çødé/日本語.txt",
        "emoji/🧱.bin",
        "dots/..hidden",
        "dots/a..b",
        "quotes/'single'.txt",
        "amp&amp/<angle>.xml",
        "semi;colon,comma",
        "hash#tag",
        "tilde~/~file",
        "brackets[1]/(2){3}",
        "at@sign/$dollar!",
        "trailing space /x",
        "-dash/-leading",
        "equals=sign&and",
        "empty",
    ];
    for (index, name) in names.iter().enumerate() {
        let path = into.join("awkward").join(name);
        fs::create_dir_all(path.parent().unwrap_or(into))?;
        // Around the bounds of inline bodies, blocks and extents.
        let len = [1, 4_095, 4_096, 4_097, 65_536, 65_537, 131_072, 8_388_608, 8_388_609][index % 9];
        let body = if *name == "empty" { bytes::Bytes::new() } else { crate::content::body(name, 1, len) };
        fs::write(path, body)?;
    }
    Ok(names.len())
}

/// Where real files are, each if it exists.
fn sources() -> Vec<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let sysroot = sysroot.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let registry = home.map(|home| home.join("registry/src"));
    let system = ["/usr/share", "/usr/lib", "/usr/bin"].map(PathBuf::from);
    [registry, sysroot].into_iter().flatten().chain(system).filter(|path| path.is_dir()).collect()
}

/// All regular files below `root`, in order; symbolic links are not followed.
fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        // A directory of the system that may not be read is no material.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gathered_tree_is_real_and_differences_are_seen() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = gather(one.path(), Size { files: 40, bytes: 1_000_000 }).unwrap();
        assert!(made.len() >= 40);
        for path in made.keys() {
            let target = two.path().join(path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(one.path().join(path), target).unwrap();
        }
        assert_eq!(differences(&made, &manifest(two.path()).unwrap()), Vec::<String>::new());
        fs::write(two.path().join("awkward/empty"), "x").unwrap();
        fs::remove_file(two.path().join("awkward/hash#tag")).unwrap();
        fs::write(two.path().join("new"), "").unwrap();
        let seen = differences(&made, &manifest(two.path()).unwrap());
        assert_eq!(seen, ["missing: awkward/hash#tag", "surplus: new", "differs: awkward/empty (0 and 1 bytes)"]);
    }
}
