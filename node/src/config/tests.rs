//! What a configuration accepts, and how it says no.

use super::document::default_file;
use super::table::KEYS;
use super::*;

fn env(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

fn problems(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let Err(Problems(problems)) = Config::parse(Some(file), &env(variables)) else { return Vec::new() };
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn the_default_file_reads_as_the_defaults() {
    let defaults = Config::parse(None, &Environment::default()).unwrap();
    assert_eq!(Config::parse(Some(&default_file()), &Environment::default()).unwrap(), defaults);
    assert_eq!(defaults.s3.listen, "0.0.0.0:9000".parse().unwrap());
    assert_eq!(defaults.s3.inflight_bytes_max, 256 << 20);
    assert_eq!(defaults.peer.packet_bytes_max, None);
    assert!(defaults.workers >= 1);
}

#[test]
fn every_key_stands_in_the_default_file_with_its_variable() {
    let table: toml::Table = default_file().parse().unwrap();
    for key in KEYS {
        let found = key.name.split('.').try_fold(toml::Value::Table(table.clone()), |at, part| at.get(part).cloned());
        let default: toml::Table = format!("value = {}", key.default).parse().unwrap();
        assert_eq!(found.as_ref(), default.get("value"), "{}", key.name);
        assert!(default_file().contains(&key.variable()), "{}", key.name);
    }
}

/// One row per key: a value by environment, and what to look at to see that it arrived.
#[test]
fn the_environment_overrides_every_key() {
    type Look = fn(&Config) -> String;
    let rows: [(&str, &str, &str, Look); 21] = [
        ("state_dir", "/s", "/s", |c| c.state_dir.display().to_string()),
        ("drives", "/a, /b", "[\"/a\", \"/b\"]", |c| format!("{:?}", c.drives)),
        ("workers", "7", "7", |c| c.workers.to_string()),
        ("cluster.id", "00112233445566778899aabbccddeeff", "Some(00112233445566778899aabbccddeeff)", |c| {
            format!("{:?}", c.cluster_id)
        }),
        ("peer.listen", "10.0.0.1:1", "10.0.0.1:1", |c| c.peer.listen.to_string()),
        ("peer.packet_bytes_max", "8972", "Some(8972)", |c| format!("{:?}", c.peer.packet_bytes_max)),
        ("s3.listen", "[::1]:2", "[::1]:2", |c| c.s3.listen.to_string()),
        ("s3.region", "eu-north-7", "eu-north-7", |c| c.s3.region.clone()),
        ("s3.domains", "S3.Example.org,local", "[\"s3.example.org\", \"local\"]", |c| format!("{:?}", c.s3.domains)),
        ("s3.connections_max", "3", "3", |c| c.s3.connections_max.to_string()),
        ("s3.header_timeout", "3s", "3s", |c| format!("{:?}", c.s3.header_timeout)),
        ("s3.stall_timeout", "2min", "120s", |c| format!("{:?}", c.s3.stall_timeout)),
        ("s3.inflight_bytes_max", "32MiB", "33554432", |c| c.s3.inflight_bytes_max.to_string()),
        ("s3.tls.certificate", "/c", "/c", |c| c.s3.tls.clone().unwrap().certificate.display().to_string()),
        ("s3.tls.key", "/k", "/k", |c| c.s3.tls.clone().unwrap().key.display().to_string()),
        ("drive.reserve_bytes", "0", "0", |c| c.drive.reserve_bytes.to_string()),
        ("drive.reserve_percent", "9", "9", |c| c.drive.reserve_percent.to_string()),
        ("drive.segment_bytes", "128MiB", "134217728", |c| c.drive.segment_bytes.to_string()),
        ("log.format", "json", "Json", |c| format!("{:?}", c.log.format)),
        ("log.level", "warn,drystone_s3gw=debug", "warn,drystone_s3gw=debug", |c| c.log.level.clone()),
        ("shutdown.deadline", "90s", "90s", |c| format!("{:?}", c.shutdown_deadline)),
    ];
    assert_eq!(rows.map(|row| row.0).to_vec(), {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_by_key(|name| rows.iter().position(|row| row.0 == *name));
        names
    });
    let variables: Vec<(String, &str)> =
        rows.iter().map(|row| (KEYS.iter().find(|key| key.name == row.0).unwrap().variable(), row.1)).collect();
    let environment: Environment = variables.into_iter().collect();
    // The file says otherwise for every key, with values that differ from the environment's.
    let config = Config::parse(Some(&default_file()), &environment).unwrap();
    for (key, _, expected, look) in rows {
        assert_eq!(look(&config), expected, "{key}");
    }
}

#[test]
fn the_file_overrides_the_default() {
    let config = Config::parse(Some("workers = 3\n[s3]\nlisten = \"127.0.0.1:0\"\n"), &Environment::default()).unwrap();
    assert_eq!((config.workers, config.s3.listen), (3, "127.0.0.1:0".parse().unwrap()));
}

#[test]
fn all_problems_are_reported_at_once_with_key_and_source() {
    let file = r#"
        drives = ["/a", "/b", "/a"]
        worker = 2
        [s3]
        listen = "localhost"
        header_timeout = 5
        inflight_bytes_max = "1MiB"
        [s3.tls]
        certificate = "/c.pem"
        [drive]
        segment_bytes = "100000001"
        reserve_percent = 51
    "#;
    let found = problems(file, &[("DRYSTONE_LOG_FORMAT", "xml"), ("DRYSTONE_S3_LISTN", "x"), ("DRYSTONE_BIN", "y")]);
    for expected in [
        "worker (set in the file): there is no such key; did you mean workers?",
        "drives (set in the file): /a is listed twice; each drive is a directory of its own",
        "s3.listen (set in the file): \"localhost\": invalid socket address syntax; write IP:PORT",
        "s3.header_timeout (set in the file): must be a duration such as \"5s\", not the integer 5",
        "s3.inflight_bytes_max (set in the file): 1MiB is outside 16MiB to 1TiB",
        "s3.tls.key (set by default): must be set too when s3.tls.certificate is",
        "drive.segment_bytes (set in the file): 100000001 is not a multiple of 1MiB",
        "drive.reserve_percent (set in the file): 51 is outside 0 to 50",
        "log.format (set by DRYSTONE_LOG_FORMAT): \"xml\" must be \"text\" or \"json\"",
        "DRYSTONE_S3_LISTN (set by DRYSTONE_S3_LISTN): there is no such key; did you mean s3.listen?",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected}\nnot in {found:#?}");
    }
    assert_eq!(found.len(), 10, "{found:#?}");
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let found = problems("state_dir = \n", &[]);
    assert!(found[0].starts_with("the file is not valid TOML: ") && found[0].contains("line 1"), "{found:#?}");
}

#[test]
fn a_section_given_as_a_value_and_a_missing_file_are_problems() {
    assert_eq!(
        problems("s3 = 1", &[]),
        ["s3 (set in the file): is a section, not a key; write [s3] and the keys below it"]
    );
    let Err(Problems(missing)) = Config::load(Some(Path::new("/nonexistent/x.toml")), &Environment::default()) else {
        panic!("loaded a file that is not there")
    };
    assert!(matches!(&missing[..], [Problem::Unreadable { .. }]), "{missing:?}");
}

#[test]
fn a_drive_cannot_be_the_state_directory_and_drives_cannot_be_empty() {
    let same = problems("state_dir = \"/a\"\ndrives = [\"/a\"]", &[]);
    assert!(same[0].contains("one of them is state_dir"), "{same:?}");
    assert_eq!(problems("drives = []", &[]), ["drives (set in the file): must list at least one directory"]);
}

proptest::proptest! {
    #[test]
    fn any_file_is_answered_without_panic(text in "[a-z0-9._=\\[\\]\"\n ]{0,200}") {
        drop(Config::parse(Some(&text), &Environment::default()));
    }
}
