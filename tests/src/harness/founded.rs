//! A cluster founded by `drystone cluster create` with addresses of the test's choice, for nodes that do not live on
//! loopback. `scripts/cluster` covers the rest.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{HarnessError, run};
use crate::client::Credentials;

/// Where one node will live.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address.
    pub address: IpAddr,
    /// UDP port for peers.
    pub peer_port: u16,
    /// TCP port for S3.
    pub s3_port: u16,
}

/// The files of a founded cluster.
pub struct Founded {
    home: PathBuf,
    binary: PathBuf,
    places: Vec<Place>,
    /// The first key.
    pub credentials: Credentials,
}

impl Founded {
    /// Creates the cluster's files under `home`; nodes are named n1, n2, … in the order of `places`.
    ///
    /// # Errors
    /// `drystone cluster create` failed or a file cannot be written.
    pub fn create(home: &Path, binary: &Path, places: &[Place], drives: usize) -> Result<Self, HarnessError> {
        let credentials = Credentials {
            access_key: "DRYSTONETESTKEY00001".to_owned(),
            secret_key: "a-secret-that-only-this-test-knows-0001".to_owned(),
        };
        let secret = home.join("secret");
        write(&secret, &credentials.secret_key)?;
        let mut create = Command::new(binary);
        create.args(["cluster", "create", "--drives", &drives.to_string()]).arg("--out").arg(home.join("nodes"));
        create.args(["--access-key", &credentials.access_key]).arg("--secret-key-file").arg(&secret);
        for (index, place) in places.iter().enumerate() {
            create.arg("--node").arg(format!("n{}={}:{}", index + 1, place.address, place.peer_port));
        }
        run(&mut create)?;
        let founded = Self { home: home.to_owned(), binary: binary.to_owned(), places: places.to_vec(), credentials };
        for node in 1..=places.len() {
            founded.write_configuration(node, drives)?;
        }
        Ok(founded)
    }

    fn write_configuration(&self, node: usize, drives: usize) -> Result<(), HarnessError> {
        let place = &self.places[node - 1];
        let mut names = Vec::new();
        for drive in 1..=drives {
            let path = self.home.join(format!("n{node}-d{drive}"));
            fs::create_dir_all(&path).map_err(HarnessError::system(path.display().to_string()))?;
            names.push(format!("{:?}", path.display().to_string()));
        }
        let state = self.home.join("nodes").join(format!("n{node}"));
        let text = format!(
            "state_dir = {:?}\ndrives = [{}]\n[peer]\nlisten = \"{}:{}\"\n[s3]\nlisten = \"{}:{}\"\n[drive]\nsegment_bytes = \"64MiB\"\n",
            state.display().to_string(),
            names.join(", "),
            place.address,
            place.peer_port,
            place.address,
            place.s3_port,
        );
        write(&self.home.join(format!("n{node}.toml")), &text)
    }

    /// The S3 endpoint of a node.
    #[must_use]
    pub fn endpoint(&self, node: usize) -> String {
        let place = &self.places[node - 1];
        format!("http://{}:{}", place.address, place.s3_port)
    }

    /// The log of a node.
    #[must_use]
    pub fn log(&self, node: usize) -> PathBuf {
        self.home.join(format!("n{node}.log"))
    }

    /// Starts a node's server below `wrapper` (`ip netns exec NAME`, say; empty: directly).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, node: usize, wrapper: &[String]) -> Result<Child, HarnessError> {
        let log = self.log(node);
        let file = fs::File::options().create(true).append(true).open(&log);
        let file = file.map_err(HarnessError::system(log.display().to_string()))?;
        let again = file.try_clone().map_err(HarnessError::system(log.display().to_string()))?;
        let mut command = match wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.args(["server", "--config"]).arg(self.home.join(format!("n{node}.toml")));
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        command.spawn().map_err(HarnessError::system(super::command_line(&command)))
    }
}

fn write(path: &Path, text: &str) -> Result<(), HarnessError> {
    fs::write(path, text).map_err(HarnessError::system(path.display().to_string()))
}
