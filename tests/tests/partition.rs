//! Five hosts, cut two from three by dropping packets: the two refuse with a reason, the three go on, and afterwards
//! all agree. Real processes in network namespaces; skipped, loudly, where the system does not let us make those.

use std::process::Child;
use std::time::Duration;

use drystone_tests::client::{Client, Listed, Listing};
use drystone_tests::content;
use drystone_tests::harness::founded::{Founded, Place};
use drystone_tests::harness::namespaces::{Network, obstacle};
use drystone_tests::harness::{Outcome, Turn, drystone, ensure, note, skip, tail, target_dir, until};
use drystone_tests::health::health;
use rand::SeedableRng;
use rand::rngs::StdRng;

const BUCKET: &str = "partition";
const MINORITY: [usize; 2] = [1, 2];
const MAJORITY: [usize; 3] = [3, 4, 5];

/// The processes; killed when dropped, their logs shown unless told that all went well.
struct Nodes {
    founded: Founded,
    running: Vec<Child>,
    is_well: bool,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for (index, child) in self.running.iter_mut().enumerate() {
            child.kill().unwrap_or_default();
            drop(child.wait());
            if !self.is_well {
                let log = self.founded.log(index + 1);
                note(&format!("---- end of {} ----\n{}", log.display(), tail(&log, 40)));
            }
        }
    }
}

impl Nodes {
    fn client(&self, node: usize) -> Client {
        Client::new(&self.founded.endpoint(node), &self.founded.credentials, "us-east-1")
            .with_timeout(Duration::from_secs(30))
    }
}

async fn wait_ready(client: &Client, deadline: Duration) -> Outcome {
    let ready = || async {
        match client.get_plain("/-/ready").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.describe()),
            Err(error) => Err(error.to_string()),
        }
    };
    Ok(until(deadline, &format!("{} is ready", client.endpoint()), ready).await?)
}

async fn put(client: &Client, key: &str, value: u64) -> Outcome {
    let answer = client.put(BUCKET, key, content::body(key, value, 50_000)).await?;
    ensure(answer.status == 200, || format!("PUT {key} through {}: {}", client.endpoint(), answer.describe()))
}

async fn expect(client: &Client, key: &str, value: u64) -> Outcome {
    let answer = client.get(BUCKET, key).await?;
    let found = content::identify(key, &answer.body);
    let is_right = answer.status == 200 && found == Ok(value);
    ensure(is_right, || format!("GET {key} through {}: {found:?} {}", client.endpoint(), answer.status))
}

/// Every S3 operation is refused with 503 and a reason, none hangs, and the node says that it is not ready.
async fn expect_refusal(client: &Client) -> Outcome {
    let unready = || async {
        let ready = client.get_plain("/-/ready").await.map_err(|error| error.to_string())?;
        let reason = String::from_utf8_lossy(&ready.body).trim().to_owned();
        if ready.status == 503 && !reason.is_empty() { Ok(reason) } else { Err(ready.describe()) }
    };
    let reason = until(Duration::from_secs(60), "the minority is not ready", unready).await?;
    note(&format!("{}: not ready: {reason}", client.endpoint()));
    // At once, because each may take as long as a leader may be waited for.
    let (large, small, get, nothing, delete) = tokio::join!(
        client.put(BUCKET, "minority", content::body("minority", 1, 20_000)),
        client.put(BUCKET, "minority-small", content::body("minority-small", 1, 100)),
        client.get(BUCKET, "before"),
        client.get(BUCKET, "absent"),
        client.delete(BUCKET, "before"),
    );
    let answers =
        [("PUT", large?), ("small PUT", small?), ("GET", get?), ("GET of nothing", nothing?), ("DELETE", delete?)];
    for (operation, answer) in answers {
        ensure(answer.status == 503 && !answer.error_code().is_empty(), || {
            format!("{operation} through {}: {}", client.endpoint(), answer.describe())
        })?;
    }
    Ok(())
}

async fn cut_and_heal(network: &Network, nodes: &Nodes) -> Outcome {
    let clients: Vec<Client> = (1..=5).map(|node| nodes.client(node)).collect();
    for client in &clients {
        wait_ready(client, Duration::from_secs(60)).await?;
    }
    let created = clients[0].create_bucket(BUCKET).await?;
    ensure(created.status == 200, || created.describe())?;
    put(&clients[0], "before", 1).await?;
    put(&clients[0], "changed", 1).await?;

    network.cut(&MINORITY, &MAJORITY)?;
    let majority = &clients[MAJORITY[0] - 1];
    // The first write after the cut may have to wait for new leaders; a refusal in that time is honest, too.
    let goes_on = || async { put(majority, "changed", 2).await.map_err(|failure| format!("{failure:?}")) };
    until(Duration::from_secs(60), "the majority goes on", goes_on).await?;
    let refusals = MINORITY.map(|node| expect_refusal(&clients[node - 1]));
    futures_util::future::try_join_all(refusals).await?;
    for node in MAJORITY {
        wait_ready(&clients[node - 1], Duration::from_secs(60)).await?;
        let key = format!("during/{node}");
        put(&clients[node - 1], &key, 3).await?;
        expect(&clients[node - 1], "before", 1).await?;
        expect(&clients[node - 1], "changed", 2).await?;
        let state = health(&clients[node - 1]).await?;
        let lost = state.peers.iter().filter(|peer| peer.state != "alive").count();
        ensure(lost == MINORITY.len(), || format!("node {node} misses {lost} peers: {:?}", state.peers))?;
    }

    network.heal()?;
    for client in &clients {
        wait_ready(client, Duration::from_secs(60)).await?;
        expect(client, "before", 1).await?;
        expect(client, "changed", 2).await?;
        let listed = client.list(BUCKET, &Listing::default()).await?;
        let keys: Vec<String> = listed
            .into_iter()
            .map(|entry| match entry {
                Listed::Object { key, .. } | Listed::Prefix(key) => key,
            })
            .collect();
        ensure(keys == ["before", "changed", "during/3", "during/4", "during/5"], || {
            format!("{} lists {keys:?}", client.endpoint())
        })?;
    }
    put(&clients[MINORITY[0] - 1], "after", 4).await?;
    expect(majority, "after", 4).await
}

#[tokio::test]
async fn a_minority_refuses_a_majority_goes_on_and_both_agree_after_healing() -> Outcome {
    if let Some(why) = obstacle() {
        skip("partition of real processes", &why);
        return Ok(());
    }
    let _turn = Turn::wait()?;
    let seed = rand::random();
    note(&format!("seed {seed}"));
    let network = Network::create(5, &mut StdRng::seed_from_u64(seed))?;
    let base = target_dir()?.join("drystone-tests");
    std::fs::create_dir_all(&base)?;
    let home = tempfile::Builder::new().prefix("partition-").tempdir_in(base)?;
    let places: Vec<Place> =
        (1..=5).map(|host| Place { address: network.address(host), peer_port: 7400, s3_port: 9000 }).collect();
    let founded = Founded::create(home.path(), &drystone()?, &places, 1)?;
    let mut nodes = Nodes { founded, running: Vec::new(), is_well: false };
    for node in 1..=5 {
        nodes.running.push(nodes.founded.spawn(node, &network.wrapper(node))?);
    }
    cut_and_heal(&network, &nodes).await?;
    nodes.is_well = true;
    Ok(())
}

/// The tool itself: two hosts reach each other, not while cut, and again once healed.
#[tokio::test]
async fn a_cut_network_is_cut_and_a_healed_one_is_whole() -> Outcome {
    if let Some(why) = obstacle() {
        skip("network namespaces", &why);
        return Ok(());
    }
    let network = Network::create(2, &mut StdRng::from_os_rng())?;
    let listen =
        "import socket; s = socket.create_server(('0.0.0.0', 9)); print('up', flush=True)\nwhile True: s.accept()";
    let wrapper = network.wrapper(2);
    let mut server = std::process::Command::new(&wrapper[0]);
    server.args(&wrapper[1..]).args(["python3", "-c", listen]);
    let log = tempfile::NamedTempFile::new()?;
    let _server = drystone_tests::harness::Job::start(&mut server, log.path())?;
    let reaches = |wanted: bool| {
        let connects = network.connects(1, network.address(2), 9);
        async move { if connects == wanted { Ok(()) } else { Err(format!("connects: {connects}")) } }
    };
    until(Duration::from_secs(20), "hosts reach each other", || reaches(true)).await?;
    network.cut(&[1], &[2])?;
    reaches(false).await.map_err(drystone_tests::harness::Failure::new)?;
    network.heal()?;
    Ok(until(Duration::from_secs(20), "hosts reach each other again", || reaches(true)).await?)
}
