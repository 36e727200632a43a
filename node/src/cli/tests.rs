//! The command line from arguments to output and exit status.

use std::sync::atomic::Ordering::Relaxed;

use clap::CommandFactory;

use super::*;
use crate::running::RunningNode;
use crate::testing::{FakeAssembly, config};

/// Runs a command; gives its result and what it printed.
fn run(arguments: &[&str], environment: &Environment, assembly: &FakeAssembly) -> (Result<(), CliError>, String) {
    let cli = Cli::try_parse_from([&["drystone"], arguments].concat()).unwrap();
    let (mut out, mut progress) = (Vec::new(), Vec::new());
    let mut output = Output::new(cli.json(), &mut out, &mut progress);
    let result = cli.run(environment, assembly, &mut output);
    (result, String::from_utf8(out).unwrap())
}

/// Runs commands against a running node.
fn with_node(test: impl FnOnce(&FakeAssembly, &Environment)) {
    let (assembly, dir) = (FakeAssembly::default(), tempfile::tempdir().unwrap());
    let runtime = super::runtime().unwrap();
    let node = runtime.block_on(RunningNode::start("t", &config(dir.path(), ""), &assembly)).unwrap();
    // The first endpoint refuses connections, so every command also shows that it goes on to the next.
    let endpoints = format!("http://127.0.0.1:1 http://{}", node.s3_address());
    let environment =
        [("S3_ENDPOINTS", &*endpoints), ("AWS_ACCESS_KEY_ID", "TESTKEY"), ("AWS_SECRET_ACCESS_KEY", "test-secret")];
    test(&assembly, &environment.into_iter().collect());
    runtime.block_on(node.stop());
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
    for arguments in [
        "dev --nodes 5 --drives 1 --dir x --s3-port 0",
        "server --config f --json",
        "cluster create --node n1=h:1 --node n2=h:2,zone=b --drives 2 --out d --access-key A --secret-key-file f",
        "cluster status --endpoint http://h:1",
        "key delete K --json",
        "bench get --size 1MiB --concurrency 64 --seconds 5 --keys 10 --endpoint http://a:1 --endpoint http://b:2 --verify",
    ] {
        Cli::try_parse_from(["drystone"].into_iter().chain(arguments.split(' '))).unwrap();
    }
    for arguments in [
        "cluster create --out d",
        "cluster create --node n1=h:1 --out d --access-key A",
        "bench put --size 4k",
        "bench put --concurrency 0",
        "bench put --endpoint https://h",
        "dev --nodes 0",
    ] {
        assert!(Cli::try_parse_from(["drystone"].into_iter().chain(arguments.split(' '))).is_err(), "{arguments}");
    }
}

#[test]
fn config_check_reports_problems_with_its_own_status() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "worker = 1\n[s3]\nlisten = 3\n").unwrap();
    let arguments = ["config", "check", "--config", file.to_str().unwrap()];
    let (result, _) = run(&arguments, &Environment::default(), &FakeAssembly::default());
    let error = result.unwrap_err();
    assert_eq!(error.exit(), Exit::Config);
    assert!(error.to_string().starts_with("the configuration has 2 problems:"), "{error}");

    let named: Environment = [("DRYSTONE_CONFIG", file.to_str().unwrap())].into_iter().collect();
    let (result, _) = run(&["config", "check"], &named, &FakeAssembly::default());
    assert_eq!(result.unwrap_err().to_string(), error.to_string(), "the file that `server` would take");

    let (result, text) = run(&["config", "default"], &Environment::default(), &FakeAssembly::default());
    result.unwrap();
    std::fs::write(&file, text).unwrap();
    run(&arguments, &Environment::default(), &FakeAssembly::default()).0.unwrap();
}

#[test]
fn keys_are_made_listed_and_deleted_on_a_running_node() {
    with_node(|assembly, environment| {
        let (made, text) = run(&["key", "create", "--new-access-key", "KEY1", "--note", "ci"], environment, assembly);
        made.unwrap();
        assert!(text.contains("AWS_ACCESS_KEY_ID=KEY1") && text.contains("drawn secret"), "{text}");
        let (unusable, _) = run(&["key", "create", "--new-access-key", "K,1"], environment, assembly);
        assert_eq!(unusable.unwrap_err().exit(), Exit::Usage);
        let (twice, _) = run(&["key", "create", "--new-access-key", "KEY1"], environment, assembly);
        assert_eq!(twice.unwrap_err().exit(), Exit::Failed);
        let (_, list) = run(&["--json", "key", "list"], environment, assembly);
        assert_eq!(list.trim(), r#"{"keys":[{"access_key":"KEY1","created_ms":1,"note":"ci"}]}"#);
        run(&["key", "delete", "KEY1"], environment, assembly).0.unwrap();
        let (again, _) = run(&["key", "delete", "KEY1"], environment, assembly);
        assert!(again.unwrap_err().to_string().ends_with("answered 404 NoSuchKey: there is no access key KEY1"));
    });
}

#[test]
fn status_says_by_its_exit_whether_the_node_is_ready_and_who_was_refused() {
    with_node(|assembly, environment| {
        let (ready, text) = run(&["cluster", "status"], environment, assembly);
        ready.unwrap();
        assert!(text.contains("epoch 3"), "{text}");
        assembly.s3.faults.not_ready.store(true, Relaxed);
        assert_eq!(run(&["cluster", "status"], environment, assembly).0.unwrap_err().exit(), Exit::Unreachable);
        let (refused, _) = run(&["cluster", "status", "--access-key", "OTHER"], environment, assembly);
        assert_eq!(refused.unwrap_err().exit(), Exit::Refused);
        let nobody = ["cluster", "status", "--endpoint", "http://127.0.0.1:1"];
        assert_eq!(run(&nobody, environment, assembly).0.unwrap_err().exit(), Exit::Unreachable);
    });
}

#[test]
fn without_endpoint_or_key_the_command_says_what_to_give() {
    let (no_key, _) =
        run(&["key", "list", "--endpoint", "http://h:1"], &Environment::default(), &FakeAssembly::default());
    let no_key = no_key.unwrap_err();
    assert_eq!(no_key.exit(), Exit::Usage);
    assert!(no_key.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{no_key}");
}

#[test]
fn cluster_create_prints_directories_and_the_key_once() {
    let dir = tempfile::tempdir().unwrap();
    let (out, secret) = (dir.path().join("out"), dir.path().join("secret"));
    std::fs::write(&secret, "s3cr3t-s3cr3t\n").unwrap();
    let arguments = ["--json", "cluster", "create", "--node", "n1=h:1", "--node", "n2=h:2", "--out"];
    let key = ["--access-key", "AKEY", "--secret-key-file", secret.to_str().unwrap()];
    let arguments = [&arguments[..], &[out.to_str().unwrap()], &key[..]].concat();
    let (made, text) = run(&arguments, &Environment::default(), &FakeAssembly::default());
    made.unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["key"]["secret_key"], "s3cr3t-s3cr3t");
    assert_eq!(value["nodes"][1]["state_dir"], out.join("n2").to_str().unwrap());

    std::fs::write(&secret, "short\n").unwrap();
    let (short, _) = run(&arguments, &Environment::default(), &FakeAssembly::default());
    let short = short.unwrap_err();
    assert_eq!(short.exit(), Exit::Usage);
    assert!(short.to_string().starts_with("--secret-key-file: the secret must be 8 to 128"), "{short}");

    let twice = ["cluster", "create", "--node", "n1=h:1", "--node", "n2=h:1", "--out", out.to_str().unwrap()];
    assert_eq!(run(&twice, &Environment::default(), &FakeAssembly::default()).0.unwrap_err().exit(), Exit::Usage);
}

#[test]
fn bench_prints_a_summary_and_fails_on_wrong_bytes() {
    with_node(|assembly, environment| {
        let endpoint = environment.get("S3_ENDPOINTS").unwrap().split(' ').nth(1).unwrap().to_owned();
        let arguments = ["bench", "get", "--keys", "5", "--operations", "20", "--verify", "--endpoint", &endpoint];
        let (good, text) = run(&[&["--json"], &arguments[..]].concat(), environment, assembly);
        good.unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["all"]["operations"], &value["errors"]), (&20.into(), &0.into()));
        assembly.s3.faults.corrupt.store(true, Relaxed);
        let (wrong, _) = run(&arguments, environment, assembly);
        assert!(matches!(wrong, Err(CliError::WrongAnswers { count: 20 })), "{wrong:?}");
    });
}

#[test]
fn bench_says_by_its_exit_whether_nobody_answered_or_the_key_was_refused() {
    with_node(|assembly, environment| {
        let endpoint = environment.get("S3_ENDPOINTS").unwrap().split(' ').nth(1).unwrap().to_owned();
        let bench = |endpoint: &str, key: &str| {
            let arguments = ["bench", "put", "--operations", "1", "--endpoint", endpoint, "--access-key", key];
            run(&arguments, environment, assembly).0.err().map(|error| error.exit())
        };
        assert_eq!(bench(&endpoint, "TESTKEY"), None);
        assert_eq!(bench(&endpoint, "OTHER"), Some(Exit::Refused));
        assert_eq!(bench("http://127.0.0.1:1", "TESTKEY"), Some(Exit::Unreachable));
    });
}

#[test]
fn a_taken_port_of_a_development_cluster_is_said_with_the_option_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, dir) = (taken.local_addr().unwrap().port().to_string(), tempfile::tempdir().unwrap());
    let arguments = ["dev", "--nodes", "1", "--drives", "1", "--s3-port", &port, "--dir", dir.path().to_str().unwrap()];
    let error = run(&arguments, &Environment::default(), &FakeAssembly::default()).0.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port} (TCP): Address already in use")), "{error}");
    assert!(error.contains("`drystone dev --s3-port 0` takes free ports"), "{error}");
}
