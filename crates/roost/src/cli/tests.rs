//! What the command line takes and refuses. What commands do is tested against a hub in `tests/`.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn what_the_documents_say_is_taken() {
    for line in [
        "roost serve",
        "roost serve --role edge --redis redis://h:1 --token-key-file k --edge-addr 127.0.0.1:0",
        "roost serve --auth insecure --enable-echo --allow-insecure-remote --log-format json",
        "roost demo --once",
        "roost simulate --count 1000 --url ws://h:1 --token-key-file k --telemetry 5s",
        "roost simulate --token-file t",
        "roost command send d reboot {} --ttl 5m --id c1 --wait-until received --json",
        "roost command send d blob @file --binary --content-type image/png --no-wait",
        "roost command send d note -5 --text --header a=b --header c=d --wait-timeout 500ms",
        "roost command get d c1",
        "roost command list d --json",
        "roost command list d --since 1h --until 2026-11-20T08:00:00Z",
        "roost command send d n --ordering-key k --max-attempts 3 --durability fsync --watch",
        "roost command watch d c1 --cursor c --json",
        "roost command batch --devices - reboot {} --ttl 5m --id c1 --no-wait --json",
        "roost command batch --devices f n --wait-until sent --wait-timeout 1m --max-attempts 2",
        "roost command dead",
        "roost command dead d --limit 5 --json",
        "roost command redrive d c1 --id c2 --ttl 1h --max-attempts 5",
        "roost command cancel d c1",
        "roost device list --online --node n --json",
        "roost device get d",
        "roost device watch --no-snapshot",
        "roost device disconnect d --reason bye",
        "roost publish a/b - --server http://h:1 --api-key-file k",
        "roost subscribe a/+ b/# --count 3 --json",
        "roost node list --json",
        "roost token key --out f",
        "roost token api-key --name billing --tenant acme",
        "roost token device d --key-file k --ttl 1h",
        "roost bench idle --n 100 --redis redis://h:1 --json",
        "roost config check --config f",
        "roost config print --json --auth insecure",
        "roost config docs",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, kind) in [
        ("roost", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("roost serv", ErrorKind::InvalidSubcommand),
        ("roost command send d", ErrorKind::MissingRequiredArgument),
        ("roost command send d n --text", ErrorKind::MissingRequiredArgument),
        ("roost command send d n x --text --binary", ErrorKind::ArgumentConflict),
        ("roost command send d n --ttl soon", ErrorKind::ValueValidation),
        ("roost command send d n --header a", ErrorKind::ValueValidation),
        ("roost command send d n --wait-until lunch", ErrorKind::InvalidValue),
        ("roost command send d n --watch --no-wait", ErrorKind::ArgumentConflict),
        ("roost command send d n --max-attempts 0", ErrorKind::ValueValidation),
        ("roost command send d n --durability solid", ErrorKind::InvalidValue),
        ("roost command list d --since yesterday", ErrorKind::ValueValidation),
        ("roost command batch n", ErrorKind::MissingRequiredArgument),
        ("roost device list --online --offline", ErrorKind::ArgumentConflict),
        ("roost subscribe", ErrorKind::MissingRequiredArgument),
        ("roost simulate --count 0", ErrorKind::ValueValidation),
        ("roost simulate --token-file a --token-key-file b", ErrorKind::ArgumentConflict),
        ("roost token device a/b --key-file k", ErrorKind::ValueValidation),
        ("roost bench idle --n 0", ErrorKind::ValueValidation),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8), "{line}");
    }
}

#[test]
fn the_page_of_the_configuration_is_as_the_keys_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    let made = crate::config::Config::to_markdown(&serve::ConfigArgs::flags());
    let differs = made.lines().zip(page.lines()).find(|(made, page)| made != page);
    assert!(
        page == made,
        "docs/configuration.md is not what the keys are. Make it again:\n\
         cargo run -q -p roost -- config docs > docs/configuration.md\n\
         The first line that differs, as it ought to be and as it is: {differs:#?}"
    );
}

#[test]
fn each_flag_stands_for_a_key_that_there_is() {
    for (key, flag) in serve::ConfigArgs::flags() {
        assert!(crate::config::KEYS.contains(&key), "{flag} stands for {key}");
    }
}

#[test]
fn tables_are_as_wide_as_their_cells() {
    let mut table = output::Table::new(&["A", "LONG"]);
    table.add(vec!["wide".to_owned(), "x".to_owned()]);
    assert_eq!(table.lines(), ["A     LONG", "wide  x"]);
}
