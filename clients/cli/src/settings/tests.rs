use std::fs;

use super::*;

fn read_all(args: &[&str]) -> Result<Option<Cli>, Error> {
    read(["fanfare"].iter().chain(args).map(OsString::from))
}

fn file(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("fanfare-settings-{}-{name}.toml", std::process::id()));
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn server(args: &[&str]) -> ServerCommand {
    match read_all(args).unwrap().unwrap().command {
        Command::Server(args) => args,
        other => panic!("not a server: {other:?}"),
    }
}

#[test]
fn the_declaration_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn no_command_means_dev() {
    assert!(matches!(read_all(&[]).unwrap().unwrap().command, Command::Dev(_)));
    assert!(matches!(read_all(&["--log", "debug"]).unwrap().unwrap().command, Command::Dev(_)));
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let path = file(
        "precedence",
        "grpc-listen = \"127.0.0.1:7\"\nretention-events = 5\njwt-allow-no-expiry = true\nhttp-listen = \"127.0.0.1:8\"\n",
    );
    let args = server(&["server", "--config", &path]);
    assert_eq!((args.server.grpc_listen.port(), args.server.retention_events), (7, 5));
    assert!(args.common.tokens.jwt_allow_no_expiry);
    assert_eq!(args.server.tenants_max, 100_000);
    let args = server(&["server", "--config", &path, "--grpc-listen", "127.0.0.1:9"]);
    assert_eq!((args.server.grpc_listen.port(), args.server.retention_events), (9, 5));
}

#[test]
fn a_wrong_file_is_refused_with_its_line() {
    let error = |name, text| read_all(&["server", "--config", &file(name, text)]).unwrap_err().to_string();
    let unknown = error("unknown", "log = \"info\"\ngrpc-lsten = \"127.0.0.1:7\"\n");
    assert!(
        unknown.contains(":2: \"grpc-lsten\" is no setting (did you mean \"grpc-listen\"?)"),
        "{unknown}"
    );
    assert!(error("kind", "retention-events = 1.5\n").contains(":1: retention-events cannot be a fraction"));
    assert!(error("value", "retention-age = \"1 year\"\n").contains("want a number and a unit"));
    assert!(error("syntax", "retention-age = \n").contains("TOML parse error"));
}

#[test]
fn times_and_sizes_need_sensible_units() {
    assert_eq!(duration::duration("250ms"), Ok(std::time::Duration::from_millis(250)));
    assert!(duration::duration("10").is_err());
    assert_eq!("2MiB".parse(), Ok(duration::Size(2 << 20)));
    assert!("2MB".parse::<duration::Size>().is_err());
}

#[test]
fn help_shows_no_secret_of_the_file() {
    let path = file(
        "secret-help.toml",
        "jwt-secret = \"not-to-be-shown-0123456789abcdef0123\"\nretention-events = 4321\n",
    );
    let Err(Error::Usage(help)) = read_all(&["server", "--config", &path, "--help"]) else {
        panic!("no help")
    };
    let text = help.to_string();
    assert!(text.contains("4321") && !text.contains("not-to-be-shown"), "{text}");
}
