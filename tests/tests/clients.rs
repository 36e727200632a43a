//! The main job, done by the programs people use: a real directory tree goes up through one node and comes back
//! through others, byte for byte, also while a node dies. What is not installed is skipped, loudly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use drystone_tests::client::Listing;
use drystone_tests::harness::python::{Python, system_tool};
use drystone_tests::harness::{Cluster, Failure, Job, Outcome, Shape, Turn, ensure, note, run, until};
use drystone_tests::{content, tree};
use tokio::time::Instant;

const BUCKET: &str = "trees";
/// For one program's whole work, on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(400);

fn remote(cluster: &Cluster, prefix: &str) -> String {
    assert!(!cluster.endpoint(1).is_empty());
    format!("s3://{BUCKET}/{prefix}")
}

fn aws(python: &Python, cluster: &Cluster, node: usize, arguments: &[&str]) -> Command {
    let mut command = python.tool("aws");
    command.args(["--endpoint-url", cluster.endpoint(node)]).args(arguments);
    cluster.equip(&mut command);
    command
}

fn script(python: &Python, cluster: &Cluster, name: &str, options: &[(&str, &str)]) -> Command {
    let mut command = python.script(name);
    for (option, value) in options {
        command.arg(format!("--{option}")).arg(value);
    }
    cluster.equip(&mut command);
    command
}

/// A copy by rclone; `None` where it is not installed.
fn rclone(cluster: &Cluster, node: usize, prefix: &str, into: &Path) -> Option<Command> {
    let mut command = system_tool("rclone")?;
    command.args(["copy", "--transfers", "8", "--checkers", "8", "--retries", "1", "--stats", "0"]);
    command.arg(format!("stone:{BUCKET}/{prefix}")).arg(into);
    cluster.equip(&mut command);
    let settings = [("TYPE", "s3"), ("PROVIDER", "Other"), ("ENV_AUTH", "true"), ("ENDPOINT", cluster.endpoint(node))];
    command.envs(settings.map(|(name, value)| (format!("RCLONE_CONFIG_STONE_{name}"), value.to_owned())));
    command.env("RCLONE_CONFIG_STONE_REGION", cluster.region()).env("RCLONE_CONFIG", cluster.scratch().join("rclone"));
    Some(command)
}

fn s3cmd(cluster: &Cluster, node: usize, arguments: &[&str]) -> Outcome<Option<Command>> {
    let Some(mut command) = system_tool("s3cmd") else { return Ok(None) };
    let configuration = cluster.scratch().join("s3cfg");
    std::fs::write(&configuration, "[default]\n")?;
    let host = cluster.endpoint(node).trim_start_matches("http://").to_owned();
    let keys = cluster.credentials();
    command.arg("--config").arg(configuration).args(["--host", &host, "--host-bucket", &host, "--no-ssl"]);
    command.args(["--access_key", &keys.access_key, "--secret_key", &keys.secret_key, "--region", cluster.region()]);
    command.args(arguments);
    cluster.equip(&mut command);
    Ok(Some(command))
}

/// Runs a program to its end and says how long it took; what it printed.
async fn finish(cluster: &Cluster, what: &str, command: &mut Command) -> Outcome<String> {
    let start = Instant::now();
    let log = cluster.scratch().join(format!("{}.log", what.replace(' ', "-")));
    let output = Job::start(command, &log)?.succeed(DEADLINE).await?;
    note(&format!("{what}: {:.1} s", start.elapsed().as_secs_f64()));
    Ok(output)
}

fn compare(what: &str, expected: &tree::Manifest, root: &Path) -> Outcome {
    let differences = tree::differences(expected, &tree::manifest(root)?);
    ensure(differences.is_empty(), || format!("{what}: {}", differences.join("\n")))?;
    // Room for the next: a tree of this size several times over is a lot of disk.
    Ok(std::fs::remove_dir_all(root)?)
}

async fn start(name: &str, shape: &Shape) -> Outcome<(Cluster, PathBuf)> {
    let cluster = Cluster::start(name, shape)?;
    let created = cluster.client(1).create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    let up = cluster.scratch().join("up");
    std::fs::create_dir_all(&up)?;
    Ok((cluster, up))
}

#[tokio::test]
async fn a_real_tree_goes_up_through_one_node_and_comes_back_through_the_others() -> Outcome {
    let Some(python) = Python::prepare("clients")? else { return Ok(()) };
    let _turn = Turn::wait()?;
    let (cluster, up) = start("tree", &Shape::new(3, 2)).await?;
    let sent = tree::gather(&up, tree::Size { files: 5_000, bytes: 500_000_000 })?;
    let bytes: u64 = sent.values().map(|(len, _)| len).sum();
    note(&format!("{} real files, {} MB", sent.len(), bytes / 1_000_000));
    let (local, remote) = (up.to_string_lossy().into_owned(), remote(&cluster, "tree/"));
    let sync = ["s3", "sync", &local, &remote, "--only-show-errors", "--no-follow-symlinks"];
    finish(&cluster, "aws s3 sync up", &mut aws(&python, &cluster, 1, &sync)).await?;
    let again = ["s3", "sync", &local, &remote, "--dryrun", "--no-follow-symlinks"];
    let left = finish(&cluster, "aws s3 sync again", &mut aws(&python, &cluster, 2, &again)).await?;
    ensure(left.trim().is_empty(), || format!("a second sync would send: {left}"))?;

    let down = |name: &str| cluster.scratch().join(name);
    if let Some(mut command) = rclone(&cluster, 2, "tree", &down("rclone")) {
        finish(&cluster, "rclone copy down", &mut command).await?;
        compare("rclone", &sent, &down("rclone"))?;
    }
    let options = |node, prefix, into| {
        [("endpoint", cluster.endpoint(node)), ("bucket", BUCKET), ("prefix", prefix), ("into", into)]
    };
    let into = down("boto3").to_string_lossy().into_owned();
    let mut command = script(&python, &cluster, "boto3_download.py", &options(3, "tree/", &into));
    finish(&cluster, "boto3 down", &mut command).await?;
    compare("boto3", &sent, Path::new(&into))?;
    let awkward: tree::Manifest =
        sent.iter().filter_map(|(path, content)| Some((path.strip_prefix("awkward/")?.to_owned(), *content))).collect();
    let into = down("minio").to_string_lossy().into_owned();
    let mut command = script(&python, &cluster, "minio_download.py", &options(2, "tree/awkward/", &into));
    finish(&cluster, "minio down", &mut command).await?;
    compare("minio", &awkward, Path::new(&into))?;
    Ok(cluster.finish()?)
}

#[tokio::test]
async fn every_client_makes_its_round() -> Outcome {
    let Some(python) = Python::prepare("clients")? else { return Ok(()) };
    let _turn = Turn::wait()?;
    let (cluster, up) = start("round", &Shape::new(3, 1)).await?;
    let pair = [("write", cluster.endpoint(1)), ("read", cluster.endpoint(2)), ("bucket", BUCKET)];
    finish(&cluster, "minio round", &mut script(&python, &cluster, "minio_round.py", &pair)).await?;
    for node in 1..=3 {
        let options = [("endpoint", cluster.endpoint(node)), ("bucket", BUCKET)];
        finish(&cluster, "presigned", &mut script(&python, &cluster, "presigned.py", &options)).await?;
    }
    if let Some(aio) = Python::prepare("aio")? {
        finish(&cluster, "aioboto3 round", &mut script(&aio, &cluster, "aio_round.py", &pair)).await?;
    }
    let file = up.join("s3cmd ä.bin");
    std::fs::write(&file, content::body("s3cmd", 1, 20_000_001))?;
    let (local, remote) = (file.to_string_lossy().into_owned(), format!("s3://{BUCKET}/s3cmd/ä b.bin"));
    if let Some(mut put) = s3cmd(&cluster, 1, &["put", "--multipart-chunk-size-mb=5", &local, &remote])? {
        finish(&cluster, "s3cmd put", &mut put).await?;
        let back = cluster.scratch().join("s3cmd.bin").to_string_lossy().into_owned();
        let get = s3cmd(&cluster, 3, &["get", "--force", &remote, &back])?;
        if let Some(mut get) = get {
            finish(&cluster, "s3cmd get", &mut get).await?;
        }
        ensure(std::fs::read(&file)? == std::fs::read(&back)?, || "s3cmd brought back other bytes".to_owned())?;
    }
    Ok(cluster.finish()?)
}

#[tokio::test]
async fn a_file_of_200_mb_goes_up_in_parts_and_comes_back_whole() -> Outcome {
    let Some(python) = Python::prepare("clients")? else { return Ok(()) };
    let _turn = Turn::wait()?;
    let (cluster, up) = start("multipart", &Shape::new(3, 2)).await?;
    let len = 200_000_003;
    std::fs::write(up.join("large"), content::body("large", 1, len))?;
    let sent = tree::manifest(&up)?;
    let (local, remote) = (up.join("large").to_string_lossy().into_owned(), remote(&cluster, "multi/large"));
    let copy = ["s3", "cp", &local, &remote, "--only-show-errors"];
    finish(&cluster, "aws s3 cp up", &mut aws(&python, &cluster, 1, &copy)).await?;
    let head = cluster.client(2).head(BUCKET, "multi/large").await?;
    // awscli cuts at 8 MiB: 24 parts.
    let is_right = head.header("etag").ends_with("-24\"") && head.header("content-length") == len.to_string();
    ensure(is_right, || format!("{:?}", head.headers))?;
    let into = cluster.scratch().join("down");
    let text = into.to_string_lossy().into_owned();
    let options = [("endpoint", cluster.endpoint(2)), ("bucket", BUCKET), ("prefix", "multi/"), ("into", &text)];
    for name in ["boto3_download.py", "minio_download.py"] {
        finish(&cluster, name, &mut script(&python, &cluster, name, &options)).await?;
        compare(name, &sent, &into)?;
    }
    if let Some(mut command) = rclone(&cluster, 3, "multi", &into) {
        finish(&cluster, "rclone down", &mut command).await?;
        compare("rclone", &sent, &into)?;
    }
    Ok(cluster.finish()?)
}

fn count_files(root: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(root) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

/// Kills node 2 while a program works through another node, once `is_midway` says that it is.
async fn kill_midway<F: Future<Output = Result<bool, Failure>>>(
    cluster: &Cluster,
    what: &str,
    command: &mut Command,
    is_midway: impl Fn() -> F,
) -> Outcome {
    let log = cluster.scratch().join(format!("{}.log", what.replace(' ', "-")));
    let mut job = Job::start(command, &log)?;
    let midway = || async {
        match is_midway().await {
            Ok(true) => Ok(()),
            Ok(false) => Err("not there yet".to_owned()),
            Err(failure) => Err(format!("{failure:?}")),
        }
    };
    until(DEADLINE, &format!("{what} is midway"), midway).await?;
    ensure(job.ended()?.is_none(), || format!("{what} was over before the kill: {}", job.output()))?;
    cluster.kill(2)?;
    job.succeed(DEADLINE).await?;
    note(&format!("{what}: went on when node 2 was killed"));
    Ok(())
}

#[tokio::test]
async fn clients_do_not_notice_the_death_of_another_node() -> Outcome {
    let Some(python) = Python::prepare("clients")? else { return Ok(()) };
    let _turn = Turn::wait()?;
    let (cluster, up) = start("kill", &Shape::new(3, 2)).await?;
    let sent = tree::gather(&up, tree::Size { files: 1_200, bytes: 150_000_000 })?;
    let (local, remote) = (up.to_string_lossy().into_owned(), remote(&cluster, "tree/"));
    let watcher = cluster.client(3);
    let listing = Listing { prefix: "tree/", ..Listing::default() };
    let third = sent.len() / 3;
    let sync = ["s3", "sync", &local, &remote, "--only-show-errors", "--no-follow-symlinks"];
    let is_midway = || async { Ok(watcher.list(BUCKET, &listing).await?.len() >= third) };
    kill_midway(&cluster, "upload", &mut aws(&python, &cluster, 1, &sync), is_midway).await?;

    let into = cluster.scratch().join("down");
    let text = into.to_string_lossy().into_owned();
    let download = |node| {
        let endpoint = cluster.endpoint(node);
        let options = [("endpoint", endpoint), ("bucket", BUCKET), ("prefix", "tree/"), ("into", text.as_str())];
        script(&python, &cluster, "boto3_download.py", &options)
    };
    finish(&cluster, "down with the node dead", &mut download(3)).await?;
    compare("with the node dead", &sent, &into)?;
    cluster.start_node(2)?;
    cluster.wait_ready(2).await?;
    finish(&cluster, "down through the returned node", &mut download(2)).await?;
    compare("through the returned node", &sent, &into)?;
    let is_midway = || async { Ok(count_files(&into) >= third) };
    kill_midway(&cluster, "download", &mut download(3), is_midway).await?;
    compare("download during the kill", &sent, &into)?;
    cluster.start_node(2)?;
    cluster.wait_ready(2).await?;
    run(&mut aws(&python, &cluster, 2, &["s3", "ls", &remote]))?;
    Ok(cluster.finish()?)
}
