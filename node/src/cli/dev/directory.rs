//! The directory of a development cluster: made once, found again at every start.
//!
//! `nI.toml` is a node's configuration, `state/nI` its identity, `drives/nI-dJ` its drives, `cluster.env` endpoints and
//! keys. `cluster.env` is written last: without it the directory was never finished, and nothing was ever stored in it.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use secrecy::{ExposeSecret, SecretString};

use crate::assembly::{Assembly, FirstKey, FoundingNode, FoundingPlan};
use crate::cli::CliError;
use crate::cli::cluster::draw_key;
use crate::config::{Config, Environment};
use crate::running::RunningNode;

/// A development cluster on disk.
pub(super) struct DevDirectory {
    pub(super) dir: PathBuf,
    names: Vec<String>,
    pub(super) key: FirstKey,
}

impl DevDirectory {
    /// Opens the cluster in `dir`, or makes one there. A number that differs from an existing cluster's is refused.
    pub(super) fn open_or_create(
        dir: &Path,
        nodes: Option<NonZeroUsize>,
        drives: Option<NonZeroUsize>,
        assembly: &dyn Assembly,
    ) -> Result<Self, CliError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let dir = dir.canonicalize().map_err(at(dir))?;
        if dir.join("cluster.env").exists() {
            return Self::open(dir, nodes, drives);
        }
        if dir.join("state").exists() {
            let reason = "holds a cluster that was never finished; remove the directory and start again".to_owned();
            return Err(CliError::DevDir { dir, reason });
        }
        Self::create(dir, nodes.map_or(3, NonZeroUsize::get), drives.map_or(2, NonZeroUsize::get), assembly)
    }

    fn open(dir: PathBuf, nodes: Option<NonZeroUsize>, drives: Option<NonZeroUsize>) -> Result<Self, CliError> {
        let key = read_env(&dir)?;
        let names: Vec<String> = (1..)
            .map(|index| format!("n{index}"))
            .take_while(|name| dir.join(format!("{name}.toml")).exists())
            .collect();
        if nodes.is_some_and(|wanted| wanted.get() != names.len()) {
            let reason = format!("holds a cluster of {} nodes; --nodes cannot change it", names.len());
            return Err(CliError::DevDir { dir, reason });
        }
        let found = (1..).take_while(|index| dir.join(format!("drives/n1-d{index}")).exists()).count();
        if drives.is_some_and(|wanted| wanted.get() != found) {
            let reason = format!("holds a cluster of {found} drives per node; --drives cannot change it");
            return Err(CliError::DevDir { dir, reason });
        }
        Ok(Self { dir, names, key })
    }

    fn create(dir: PathBuf, nodes: usize, drives: usize, assembly: &dyn Assembly) -> Result<Self, CliError> {
        let names: Vec<String> = (1..=nodes).map(|index| format!("n{index}")).collect();
        let ports = free_udp_ports(nodes).map_err(CliError::Runtime)?;
        let founding = |(name, port): (&String, &SocketAddr)| FoundingNode {
            name: name.clone(),
            address: port.to_string(),
            zone: None,
        };
        let plan = FoundingPlan {
            nodes: names.iter().zip(&ports).map(founding).collect(),
            drive_count: NonZeroUsize::new(drives).unwrap_or(NonZeroUsize::MIN),
            shard_count: None,
            tolerated: None,
            out: dir.join("state"),
            first_key: draw_key(&mut StdRng::from_os_rng()),
        };
        let founded = assembly.create_cluster(&plan)?;
        let workers = (std::thread::available_parallelism().map_or(1, NonZeroUsize::get) / nodes).max(1);
        for ((name, state), port) in founded.nodes.iter().zip(&ports) {
            let drives: Vec<PathBuf> = (1..=drives).map(|index| dir.join(format!("drives/{name}-d{index}"))).collect();
            for drive in &drives {
                fs::create_dir_all(drive).map_err(at(drive))?;
            }
            let text = format!(
                "state_dir = {state:?}\ndrives = {drives:?}\nworkers = {workers}\n\n[peer]\nlisten = \"{port}\"\n\n\
                 [s3]\nlisten = \"127.0.0.1:0\"\n"
            );
            let path = dir.join(format!("{name}.toml"));
            fs::write(&path, text).map_err(at(&path))?;
        }
        let directory = Self { dir, names, key: plan.first_key };
        directory.write_env(&[])?;
        Ok(directory)
    }

    /// The configuration of every node by name. S3 ports count up from `s3_port`; 0 takes free ones.
    pub(super) fn configs(&self, s3_port: u16, environment: &Environment) -> Result<Vec<(String, Config)>, CliError> {
        let last = usize::from(s3_port) + self.names.len() - 1;
        if s3_port != 0 && last > usize::from(u16::MAX) {
            let reason = format!("the last node would need port {last}");
            return Err(CliError::Argument { argument: "--s3-port", reason });
        }
        let mut configs = Vec::with_capacity(self.names.len());
        for (name, port) in self.names.iter().zip(s3_port..) {
            let mut config = Config::load(Some(&self.dir.join(format!("{name}.toml"))), environment)?;
            config.s3.listen.set_port(if s3_port == 0 { 0 } else { port });
            configs.push((name.clone(), config));
        }
        Ok(configs)
    }

    /// `cluster.env`.
    pub(super) fn env_file(&self) -> PathBuf {
        self.dir.join("cluster.env")
    }

    /// Writes `cluster.env` with the endpoints of these nodes, readable by the owner only, in place of the old one.
    pub(super) fn write_env(&self, nodes: &[RunningNode]) -> Result<(), CliError> {
        let endpoints: Vec<String> = nodes.iter().map(|node| format!("http://{}", node.s3_address())).collect();
        let text = format!(
            "S3_ENDPOINTS='{}'\nAWS_ACCESS_KEY_ID='{}'\nAWS_SECRET_ACCESS_KEY='{}'\nAWS_DEFAULT_REGION='us-east-1'\n\
             export S3_ENDPOINTS AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION\n",
            endpoints.join(" "),
            self.key.access_key,
            self.key.secret_key.expose_secret(),
        );
        let (path, new) = (self.env_file(), self.dir.join("cluster.env.new"));
        let write = || {
            let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(at(&path))
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_path_buf();
    move |source| CliError::File { path, source }
}

/// The key in `cluster.env`.
fn read_env(dir: &Path) -> Result<FirstKey, CliError> {
    let path = dir.join("cluster.env");
    let text = zeroize::Zeroizing::new(fs::read_to_string(&path).map_err(at(&path))?);
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found
            .map(|value| value.trim_matches('\'').to_owned())
            .ok_or_else(|| CliError::DevDir { dir: dir.to_path_buf(), reason: format!("its cluster.env lacks {name}") })
    };
    Ok(FirstKey {
        access_key: value("AWS_ACCESS_KEY_ID")?,
        secret_key: SecretString::from(value("AWS_SECRET_ACCESS_KEY")?),
    })
}

/// Free UDP ports on loopback. They are held together, so that all differ, and given back together.
fn free_udp_ports(count: usize) -> std::io::Result<Vec<SocketAddr>> {
    let sockets = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    sockets.iter().map(UdpSocket::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeAssembly;

    fn open(dir: &Path, nodes: Option<usize>, drives: Option<usize>) -> Result<DevDirectory, CliError> {
        let count = |count| NonZeroUsize::new(count).unwrap();
        DevDirectory::open_or_create(dir, nodes.map(count), drives.map(count), &FakeAssembly::default())
    }

    #[test]
    fn a_directory_opened_again_is_the_same_cluster() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a b");
        let made = open(&dir, Some(2), Some(3)).unwrap();
        let again = open(&dir, None, None).unwrap();
        assert_eq!(again.names, ["n1", "n2"]);
        assert_eq!(again.key.access_key, made.key.access_key);
        assert_eq!(again.key.secret_key.expose_secret(), made.key.secret_key.expose_secret());
        let environment = Environment::default();
        let configs = again.configs(9000, &environment).unwrap();
        assert_eq!(configs, {
            let mut same = made.configs(9000, &environment).unwrap();
            same.sort_by(|a, b| a.0.cmp(&b.0));
            same
        });
        let (name, second) = &configs[1];
        assert_eq!((name.as_str(), second.s3.listen.port(), second.drives.len()), ("n2", 9001, 3));
        assert_ne!(second.peer.listen, configs[0].1.peer.listen);
        assert!(second.state_dir.is_dir() && second.drives.iter().all(|drive| drive.is_dir()));
        let free = again.configs(0, &environment).unwrap();
        assert!(free.iter().all(|(_, config)| config.s3.listen.port() == 0));
        assert_eq!(again.configs(65_535, &environment).unwrap_err().exit(), crate::cli::Exit::Usage);
    }

    #[test]
    fn secrets_are_readable_by_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let made = open(dir.path(), Some(1), Some(1)).unwrap();
        assert_eq!(fs::metadata(made.env_file()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn other_numbers_and_unfinished_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), Some(2), Some(1)).unwrap();
        open(dir.path(), Some(2), Some(1)).unwrap();
        let refused = |nodes, drives| open(dir.path(), nodes, drives).err().unwrap().to_string();
        assert!(refused(Some(3), None).contains("a cluster of 2 nodes"));
        assert!(refused(None, Some(2)).contains("1 drives per node"));
        fs::remove_file(dir.path().join("cluster.env")).unwrap();
        assert!(refused(None, None).contains("never finished"));
    }
}
