//! A cluster started by `scripts/cluster`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{HarnessError, Process, drystone, note, run, tail, target_dir, until, workspace};
use crate::census::{DriveDirectory, drives_of};
use crate::client::{Client, Credentials};

/// How long a node may take to become ready, on a machine that does other things too.
const READY: Duration = Duration::from_secs(60);

/// How large a cluster is, and what its nodes are told.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes.
    pub nodes: usize,
    /// Drives of each.
    pub drives: usize,
    /// Environment of every node, on top of the configuration the script writes.
    pub environment: Vec<(String, String)>,
}

impl Shape {
    /// Small segments, so that many clusters fit on a disk; otherwise as shipped.
    #[must_use]
    pub fn new(nodes: usize, drives: usize) -> Self {
        let environment = vec![("DRYSTONE_DRIVE_SEGMENT_BYTES".to_owned(), "64MiB".to_owned())];
        Self { nodes, drives, environment }
    }
}

/// Real processes on loopback. Nodes are counted from 1, as the script does.
pub struct Cluster {
    directory: Option<TempDir>,
    path: PathBuf,
    binary: PathBuf,
    shape: Shape,
    endpoints: Vec<String>,
    credentials: Credentials,
    region: String,
}

impl Cluster {
    /// Starts a cluster and waits until every node is ready. `name` goes into the name of its directory.
    ///
    /// # Errors
    /// It did not start; what had started is taken down.
    pub fn start(name: &str, shape: &Shape) -> Result<Self, HarnessError> {
        let home = target_dir()?.join("drystone-tests");
        fs::create_dir_all(&home).map_err(HarnessError::system("directory for clusters"))?;
        let directory = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&home);
        let directory = directory.map_err(HarnessError::system("directory of the cluster"))?;
        let mut cluster = Self {
            path: directory.path().join("cluster"),
            directory: Some(directory),
            binary: drystone()?,
            shape: shape.clone(),
            endpoints: Vec::new(),
            credentials: Credentials { access_key: String::new(), secret_key: String::new() },
            region: String::new(),
        };
        let counts = [shape.nodes.to_string(), shape.drives.to_string()];
        let binary = cluster.binary.to_string_lossy().into_owned();
        cluster.script(&["up", "--nodes", &counts[0], "--drives", &counts[1], "--bin", &binary])?;
        cluster.read_environment()?;
        Ok(cluster)
    }

    fn read_environment(&mut self) -> Result<(), HarnessError> {
        let path = self.path.join("cluster.env");
        let settings = read_environment(&path)?;
        let get = |name: &str| {
            let problem = format!("{name} is missing");
            settings.get(name).cloned().ok_or(HarnessError::File { path: path.clone(), problem })
        };
        self.endpoints = get("S3_ENDPOINTS")?.split_whitespace().map(str::to_owned).collect();
        self.credentials =
            Credentials { access_key: get("AWS_ACCESS_KEY_ID")?, secret_key: get("AWS_SECRET_ACCESS_KEY")? };
        self.region = get("AWS_DEFAULT_REGION")?;
        if self.endpoints.len() == self.shape.nodes {
            return Ok(());
        }
        let problem = format!("{} endpoints for {} nodes", self.endpoints.len(), self.shape.nodes);
        Err(HarnessError::File { path, problem })
    }

    fn script(&self, arguments: &[&str]) -> Result<String, HarnessError> {
        let mut command = Command::new(workspace().join("scripts/cluster"));
        command.args(arguments).arg("--dir").arg(&self.path).env("DRYSTONE_BIN", &self.binary);
        command.envs(self.shape.environment.iter().cloned());
        // A node that inherited our output would keep a reader of it waiting for ever: into a file with it.
        let log = self.scratch().join(format!("script-{}.log", arguments.join("-").replace('/', "_")));
        let open = || fs::File::options().create(true).append(true).open(&log);
        let (out, err) = (open(), open());
        let (out, err) =
            (out.map_err(HarnessError::system("script log"))?, err.map_err(HarnessError::system("script log"))?);
        let status = command.stdin(std::process::Stdio::null()).stdout(out).stderr(err).status();
        let status = status.map_err(HarnessError::system(super::command_line(&command)))?;
        let output = tail(&log, 60);
        if status.success() {
            return Ok(output);
        }
        Err(HarnessError::Command { command: super::command_line(&command), status: status.to_string(), output })
    }

    fn on_node(&self, verb: &str, node: usize) -> Result<(), HarnessError> {
        self.script(&[verb, &node.to_string()]).map(drop)
    }

    /// Kills a node with SIGKILL.
    ///
    /// # Errors
    /// The script failed.
    pub fn kill(&self, node: usize) -> Result<(), HarnessError> {
        self.on_node("kill", node)
    }

    /// Kills every node, one right after the other, each with SIGKILL, and waits until none is left: a killed process
    /// takes a moment to end.
    ///
    /// # Errors
    /// A process id is missing, the signal could not be sent, or a process did not end.
    pub async fn kill_all(&self) -> Result<(), HarnessError> {
        let processes: Vec<Process> =
            (1..=self.shape.nodes).map(|node| self.process(node)).collect::<Result<_, _>>()?;
        run(Command::new("kill").arg("-9").args(processes.iter().map(|process| process.id.to_string())))?;
        let ended = || async {
            let left = processes.iter().filter(|process| process.is_running()).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
        };
        Ok(until(Duration::from_secs(20), "killed nodes end", ended).await?)
    }

    /// Stops a node in order.
    ///
    /// # Errors
    /// The script failed.
    pub fn stop(&self, node: usize) -> Result<(), HarnessError> {
        self.on_node("stop", node)
    }

    /// Starts a node that was killed or stopped. The script waits for it as it sees fit; wait for readiness with
    /// [`Cluster::wait_ready`].
    ///
    /// # Errors
    /// The script failed.
    pub fn start_node(&self, node: usize) -> Result<(), HarnessError> {
        self.on_node("start", node)
    }

    /// Starts every node at once, as after a power cut, and waits until all are ready.
    ///
    /// # Errors
    /// The script failed, or a node is not ready within a minute.
    pub async fn start_all(&self) -> Result<(), HarnessError> {
        let outcomes: Vec<Result<(), HarnessError>> = std::thread::scope(|scope| {
            let started: Vec<_> =
                (1..=self.shape.nodes).map(|node| scope.spawn(move || self.start_node(node))).collect();
            started.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        outcomes.into_iter().collect::<Result<(), _>>()?;
        self.wait_all_ready().await
    }

    /// Stops a node's time (SIGSTOP).
    ///
    /// # Errors
    /// The script failed.
    pub fn pause(&self, node: usize) -> Result<(), HarnessError> {
        self.on_node("pause", node)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The script failed.
    pub fn resume(&self, node: usize) -> Result<(), HarnessError> {
        self.on_node("resume", node)
    }

    /// Waits until `/-/ready` of a node is 200.
    ///
    /// # Errors
    /// Not within a minute.
    pub async fn wait_ready(&self, node: usize) -> Result<(), HarnessError> {
        let client = self.client(node).with_timeout(Duration::from_secs(2));
        let ready = || async {
            match client.get_plain("/-/ready").await {
                Ok(answer) if answer.status.is_success() => Ok(()),
                Ok(answer) => Err(answer.describe()),
                Err(error) => Err(error.to_string()),
            }
        };
        Ok(until(READY, &format!("node {node} is ready"), ready).await?)
    }

    /// Waits until every node is ready.
    ///
    /// # Errors
    /// One is not within a minute.
    pub async fn wait_all_ready(&self) -> Result<(), HarnessError> {
        for node in 1..=self.shape.nodes {
            self.wait_ready(node).await?;
        }
        Ok(())
    }

    /// A client of one node.
    #[must_use]
    pub fn client(&self, node: usize) -> Client {
        Client::new(self.endpoint(node), &self.credentials, &self.region)
    }

    /// Clients of all nodes, the first node's first.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        (1..=self.shape.nodes).map(|node| self.client(node)).collect()
    }

    /// The S3 endpoint of a node.
    #[must_use]
    pub fn endpoint(&self, node: usize) -> &str {
        self.endpoints.get(node - 1).map_or("", String::as_str)
    }

    /// The process of a node.
    ///
    /// # Errors
    /// Its file with the process id is missing or malformed.
    pub fn process(&self, node: usize) -> Result<Process, HarnessError> {
        let path = self.path.join(format!("n{node}.pid"));
        let text = fs::read_to_string(&path).map_err(HarnessError::system(path.display().to_string()))?;
        let id = text.trim().parse().ok();
        id.map(|id| Process { id }).ok_or(HarnessError::File { path, problem: "no process id".to_owned() })
    }

    /// The drives of a node.
    ///
    /// # Errors
    /// Its configuration names none.
    pub fn drives(&self, node: usize) -> Result<Vec<DriveDirectory>, HarnessError> {
        let path = self.configuration(node);
        drives_of(&path).map_err(HarnessError::system(path.display().to_string()))
    }

    /// The configuration file of a node.
    #[must_use]
    pub fn configuration(&self, node: usize) -> PathBuf {
        self.path.join(format!("n{node}.toml"))
    }

    /// The log of a node so far.
    #[must_use]
    pub fn log(&self, node: usize) -> String {
        let bytes = fs::read(self.path.join(format!("n{node}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Room for a test's own files, beside the cluster's.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.as_ref().map_or(&self.path, TempDir::path)
    }

    /// Gives a client program keys and region, and nothing of the machine's own configuration.
    pub fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let scratch = self.scratch();
        command.envs([
            ("AWS_ACCESS_KEY_ID", self.credentials.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &self.credentials.secret_key),
            ("AWS_DEFAULT_REGION", &self.region),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("NO_PROXY", "*"),
        ]);
        command.env("AWS_CONFIG_FILE", scratch.join("aws-config")).env("HOME", scratch);
        command.env("AWS_SHARED_CREDENTIALS_FILE", scratch.join("aws-credentials"));
        // Clients that cannot follow these fail at once, though no TLS is spoken here.
        for name in
            ["AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "http_proxy", "HTTP_PROXY"]
        {
            command.env_remove(name);
        }
        command
    }

    /// The keys.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The first sign of a panic in any node's log.
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        (1..=self.shape.nodes).find_map(|node| {
            let log = self.log(node);
            log.lines().find(|line| line.contains("panicked at")).map(|line| format!("n{node}: {line}"))
        })
    }

    /// Ends a test that went well: no node may have panicked, and all must come down.
    ///
    /// # Errors
    /// One has, or they do not.
    pub fn finish(mut self) -> Result<(), HarnessError> {
        if let Some(panic) = self.panic() {
            return Err(HarnessError::Panicked(panic));
        }
        self.script(&["down"])?;
        if let Some(directory) = self.directory.take() {
            directory.close().map_err(HarnessError::system("removal of the cluster"))?;
        }
        Ok(())
    }

    fn take_down(&self) {
        if let Err(error) = self.script(&["down"]) {
            note(&format!("the cluster did not come down in order: {error}"));
        }
        for node in 1..=self.shape.nodes {
            if let Ok(process) = self.process(node)
                && process.is_running()
                && run(Command::new("kill").args(["-9", &process.id.to_string()])).is_err()
            {
                note(&format!("process {} of node {node} cannot be killed", process.id));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // `finish` has taken the directory; what gets here is a failure.
        let Some(directory) = self.directory.take() else { return };
        self.take_down();
        for node in 1..=self.shape.nodes {
            let log = self.path.join(format!("n{node}.log"));
            note(&format!("---- end of {} ----\n{}", log.display(), tail(&log, 40)));
        }
        note(&format!("kept: {}", directory.keep().display()));
    }
}

/// Reads the `NAME=value` lines of a `cluster.env` as a shell would: quotes removed, `export` passed over.
///
/// # Errors
/// The file cannot be read.
pub fn read_environment(path: &Path) -> Result<BTreeMap<String, String>, HarnessError> {
    let text = fs::read_to_string(path).map_err(HarnessError::system(path.display().to_string()))?;
    Ok(parse_environment(&text))
}

fn parse_environment(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        (!name.starts_with('#')).then(|| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_env_is_read_as_a_shell_would() {
        let read = parse_environment("# x=1\nexport A=\"http://a http://b\"\nB=c=d\n\n");
        assert_eq!(read["A"], "http://a http://b");
        assert_eq!(read["B"], "c=d");
        assert_eq!(read.len(), 2);
    }
}
