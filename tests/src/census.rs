//! What lies on the drives of a stopped or running cluster, looked at from outside: which files there are, and ways
//! to hurt them. Knows the layout of a drive (`drive`, `segments/`, `chunks/`, `index/`), not the format of a record.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::Rng;

/// One drive of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriveDirectory {
    /// The drive's directory.
    pub path: PathBuf,
}

/// What damage was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Files touched.
    pub files: usize,
    /// Bytes changed or removed.
    pub bytes: u64,
}

/// The drives named in a node's configuration file.
///
/// # Errors
/// The file cannot be read, or names no drives.
pub fn drives_of(configuration: &Path) -> io::Result<Vec<DriveDirectory>> {
    let text = fs::read_to_string(configuration)?;
    let table: toml::Table = text.parse().map_err(io::Error::other)?;
    let drives = table.get("drives").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let base = configuration.parent().unwrap_or(Path::new("."));
    let path = |value: &toml::Value| {
        let text = value.as_str().or_else(|| value.get("path").and_then(toml::Value::as_str));
        text.map(|text| DriveDirectory { path: base.join(text) })
    };
    let found: Vec<_> = drives.iter().filter_map(path).collect();
    if found.is_empty() {
        return Err(io::Error::other(format!("no drives in {}", configuration.display())));
    }
    Ok(found)
}

impl DriveDirectory {
    /// Segment files, in order of their names.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn segments(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.path.join("segments"))?;
        let mut found = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        found.retain(|path| path.is_file());
        found.sort();
        Ok(found)
    }

    /// The directory of the rebuildable chunk index.
    #[must_use]
    pub fn chunk_index(&self) -> PathBuf {
        self.path.join("chunks")
    }

    /// Flips one bit in about one of `every` bytes that are not zero, in place, in all segments from `skip` bytes on.
    /// Parts never written stay as they are. The file keeps its length. Safe to do while the node runs.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn flip_bits(&self, every: u64, skip: u64, rng: &mut impl Rng) -> io::Result<Damage> {
        let mut damage = Damage::default();
        for path in self.segments()? {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let before = damage.bytes;
            let len = file.metadata()?.len();
            let mut offset = skip + rng.random_range(0..every.max(1));
            while offset < len {
                let mut byte = [0];
                if file.read_at(&mut byte, offset)? == 1 && byte[0] != 0 {
                    byte[0] ^= 1 << rng.random_range(0..8_u8);
                    file.write_all_at(&byte, offset)?;
                    damage.bytes += 1;
                }
                offset += rng.random_range(1..=2 * every.max(1));
            }
            file.sync_all()?;
            damage.files += usize::from(damage.bytes > before);
        }
        Ok(damage)
    }

    /// Removes all segment files.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_segments(&self) -> io::Result<Damage> {
        let mut damage = Damage::default();
        for path in self.segments()? {
            damage.bytes += fs::metadata(&path)?.len();
            damage.files += 1;
            fs::remove_file(path)?;
        }
        Ok(damage)
    }

    /// Removes the chunk index.
    ///
    /// # Errors
    /// There is none, or it cannot be removed.
    pub fn remove_chunk_index(&self) -> io::Result<()> {
        fs::remove_dir_all(self.chunk_index())
    }

    /// Overwrites every file of the chunk index with noise of the same length.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn garble_chunk_index(&self, rng: &mut impl Rng) -> io::Result<Damage> {
        let (mut damage, mut open) = (Damage::default(), vec![self.chunk_index()]);
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let mut noise = vec![0; usize::try_from(fs::metadata(&path)?.len()).unwrap_or(0)];
                rng.fill_bytes(&mut noise);
                fs::write(&path, &noise)?;
                damage.files += 1;
                damage.bytes += noise.len() as u64;
            }
        }
        Ok(damage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn drives_are_found_and_hurt_as_asked() {
        let home = tempfile::tempdir().unwrap();
        let drive = home.path().join("d1");
        fs::create_dir_all(drive.join("segments")).unwrap();
        fs::create_dir_all(drive.join("chunks/blobs")).unwrap();
        fs::write(drive.join("segments/1"), vec![7; 100_000]).unwrap();
        fs::write(drive.join("segments/2"), vec![0; 100_000]).unwrap();
        fs::write(drive.join("chunks/blobs/x"), "index").unwrap();
        let configuration = home.path().join("n1.toml");
        fs::write(&configuration, "state_dir = \"s\"\ndrives = [\"d1\"]\n").unwrap();
        let drives = drives_of(&configuration).unwrap();
        assert_eq!(drives[0].path, drive);
        let mut rng = StdRng::seed_from_u64(1);
        let damage = drives[0].flip_bits(1_000, 10, &mut rng).unwrap();
        let changed = fs::read(drive.join("segments/1")).unwrap().iter().filter(|byte| **byte != 7).count();
        assert_eq!((damage.files, damage.bytes), (1, changed as u64));
        assert!((50..200).contains(&changed), "{changed}");
        assert_eq!(drives[0].garble_chunk_index(&mut rng).unwrap(), Damage { files: 1, bytes: 5 });
        drives[0].remove_chunk_index().unwrap();
        assert_eq!(drives[0].remove_segments().unwrap(), Damage { files: 2, bytes: 200_000 });
    }
}
