//! Tests over all sources together.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;
use shoal_core::model::Availability;

use super::*;

const TOKEN: &str = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-7p73s1dx5in4tatdymyhg9hu2";

fn load(flags: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<NodeConfig, ConfigError> {
    let mut written = tempfile::NamedTempFile::new().expect("tempfile");
    let mut args: Vec<OsString> = vec!["node".into()];
    if let Some(text) = file {
        written.write_all(text.as_bytes()).expect("write");
        args.extend(["--config".into(), written.path().into()]);
    }
    args.extend(flags.iter().map(OsString::from));
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NodeConfig::load(&args, &env)
}

fn refusal(flags: &[&str], env: &[(&str, &str)], file: Option<&str>) -> String {
    load(flags, env, file).expect_err("must be refused").to_string()
}

#[test]
fn nothing_said_gives_the_documented_defaults() {
    let config = load(&[], &[], None).expect("valid");
    assert_eq!(config, NodeConfig::default());
    assert_eq!(config.listen.to_string(), "0.0.0.0:2377");
    assert_eq!(config.api[0].to_string(), "unix:///run/shoal/shoal.sock");
    assert_eq!(config.engine.to_string(), "unix:///var/run/docker.sock");
}

#[test]
fn flags_outweigh_environment_which_outweighs_the_file() {
    let file = "listen = \"10.0.0.1:1\"\nname = \"file\"\nlog-level = \"warn\"\n";
    let env = [("SHOAL_LISTEN", "10.0.0.2:2"), ("SHOAL_NAME", "env")];
    let config = load(&["--listen", "10.0.0.3:3"], &env, Some(file)).expect("valid");
    assert_eq!(config.listen.to_string(), "10.0.0.3:3");
    assert_eq!(config.name.as_deref(), Some("env"));
    assert_eq!(config.log_level, "warn");
}

#[test]
fn every_setting_can_be_written_in_the_file() {
    let file = format!(
        r#"
data-dir = "/srv/shoal"
listen = "[::]:2400"
advertise = "10.0.0.7"
api = ["unix:///run/a.sock", "tcp://10.0.0.7:2376"]
api-ca = "/etc/ca.pem"
api-cert = "/etc/cert.pem"
api-key = "/etc/key.pem"
engine = "process"
metrics = "127.0.0.1:9421"
init = false
join = "{TOKEN}@10.0.0.1:2377,manager.example:2377"
force-new-cluster = false
availability = "drain"
name = "seven"
log-format = "json"
log-level = "info,shoal_net=debug"
[label]
zone = "a"
disk = "ssd"
"#
    );
    let config = load(&[], &[], Some(&file)).expect("valid");
    assert_eq!(config.advertise.map(|a| a.to_string()).as_deref(), Some("10.0.0.7:2400"));
    assert_eq!(config.api.len(), 2);
    assert_eq!(config.api_tls.map(|tls| tls.key), Some(PathBuf::from("/etc/key.pem")));
    assert_eq!(config.engine, Engine::Process);
    assert_eq!(config.availability, Availability::Drain);
    assert_eq!(config.labels.get("zone").map(String::as_str), Some("a"));
    let Start::Join(target) = config.start else { panic!("joins") };
    assert_eq!(target.token, TOKEN);
    assert_eq!(target.remotes, ["10.0.0.1:2377", "manager.example:2377"]);
}

#[test]
fn lists_of_the_environment_are_split_at_commas() {
    let env = [("SHOAL_LABEL", "a=1, b=2"), ("SHOAL_API", "unix:///a,unix:///b"), ("SHOAL_INIT", "1")];
    let config = load(&[], &env, None).expect("valid");
    assert_eq!((config.labels.len(), config.api.len()), (2, 2));
    assert_eq!(config.start, Start::Init);
}

#[test]
fn a_flag_can_undo_what_the_file_switches_on() {
    let config = load(&["--init=false"], &[], Some("init = true\n")).expect("valid");
    assert_eq!(config.start, Start::Idle);
}

#[test]
fn unknown_settings_are_refused_by_name_with_the_nearest_known_one() {
    let error = refusal(&[], &[], Some("# a comment\nlisten = \"0.0.0.0:1\"\nadvertize = \"1.2.3.4\"\n"));
    assert!(error.contains(":3 advertize: unknown setting; did you mean advertise?"), "{error}");
    let error = refusal(&[], &[("SHOAL_LISTN", "x")], None);
    assert!(error.contains("SHOAL_LISTN: unknown setting; did you mean SHOAL_LISTEN?"), "{error}");
    let error = refusal(&["--lisen", "x"], &[], None);
    assert!(error.contains("--lisen") && error.contains("--listen"), "{error}");
}

#[test]
fn the_clients_variables_do_not_disturb_the_daemon() {
    load(&[], &[("SHOAL_HOST", "unix:///x"), ("PATH", "/bin")], None).expect("valid");
}

#[test]
fn wrong_values_are_refused_with_source_and_remedy() {
    for (flags, env, file, source, remedy) in [
        (&["--listen", "here"][..], &[][..], None, "--listen: ", "an IP address and a port"),
        (&["--listen", "1.2.3.4:0"], &[], None, "--listen: ", "write the port"),
        (&["--advertise", "0.0.0.0"], &[], None, "--advertise: ", "that the other nodes reach"),
        (&["--api", "http://x"], &[], None, "--api: ", "unix://PATH or tcp://"),
        (&["--api", "unix://run/x"], &[], None, "--api: ", "three slashes"),
        (&["--api", "unix:///x", "--api", "unix:///x"], &[], None, "--api: ", "leave one away"),
        (&["--api", "tcp://0.0.0.0:2376"], &[], None, "--api: ", "--api-ca"),
        (&["--api-ca", "/x"], &[], None, "--api-ca: ", "--api tcp://"),
        (&["--engine", "podman"], &[], None, "--engine: ", "or process"),
        (&["--label", "=x"], &[], None, "--label: ", "K=V"),
        (&["--name", "a b"], &[], None, "--name: ", "letters"),
        (&[], &[("SHOAL_AVAILABILITY", "on")], None, "SHOAL_AVAILABILITY: ", "active, pause or drain"),
        (&[], &[("SHOAL_INIT", "maybe")], None, "SHOAL_INIT: ", "true or false"),
        (&[], &[("SHOAL_LOG_LEVEL", "loud=very")], None, "SHOAL_LOG_LEVEL: ", "error, warn, info"),
        (&[], &[], Some("\nlog-format = \"xml\""), ":2 log-format: ", "text or json"),
        (&[], &[], Some("init = \"yes\""), ":1 init: ", "true or false"),
        (&[], &[], Some("listen = 2377"), ":1 listen: ", "a string"),
        (&[], &[], Some("api = [1]"), ":1 api: ", "array of strings"),
        (&[], &[], Some("label = 3"), ":1 label: ", "a table of strings"),
        (&[], &[], Some("[label]\nzone = 3"), ":2 label: ", "strings as values"),
        (&[], &[], Some("listen = \n"), ":1: ", "not valid TOML"),
    ] {
        let error = refusal(flags, env, file);
        assert!(error.contains(source) && error.contains(remedy), "{flags:?} {env:?} {file:?}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = refusal(&["--config", "/nowhere/shoal.toml"], &[], None);
    assert!(error.contains("/nowhere/shoal.toml") && error.contains("--config"), "{error}");
}

#[test]
fn two_wishes_about_the_cluster_conflict_across_sources() {
    let error = refusal(&["--init"], &[("SHOAL_JOIN", &format!("{TOKEN}@10.0.0.1:2377"))], None);
    assert!(error.contains("--init and SHOAL_JOIN exclude each other"), "{error}");
    assert!(!error.contains("3pu6"), "{error}");
}

#[test]
fn a_token_is_never_echoed() {
    let secret = "7p73s1dx5in4tatdymyhg9hu2";
    let with = |tail: &str| format!("{TOKEN}{tail}");
    for (flags, env, file) in [
        (vec!["--join".to_owned(), with("")], None, None),
        (vec!["--join".to_owned(), with("@nowhere")], None, None),
        (vec!["--join".to_owned(), with("x@10.0.0.1:2377")], None, None),
        (vec![with("@10.0.0.1:2377")], None, None),
        (vec![format!("--jion={TOKEN}")], None, None),
        (vec![format!("--listen={TOKEN}")], None, None),
        (vec![], Some(with(":10.0.0.1")), None),
        (vec![], None, Some(format!("join = \"{TOKEN}\" trailing"))),
        (vec![], None, Some(format!("join = [\"{TOKEN}\"]"))),
        (vec![], None, Some(format!("api = \"{TOKEN}\""))),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let env: Vec<(&str, &str)> = env.iter().map(|v: &String| ("SHOAL_JOIN", v.as_str())).collect();
        let error = load(&flags, &env, file.as_deref()).expect_err("refused");
        assert!(!error.to_string().contains(secret), "{error}");
        assert!(
            !format!("{error:?}").contains(secret) || matches!(error, ConfigError::CommandLine(_)),
            "{error}"
        );
    }
    let config = load(&["--join", &with("@10.0.0.1:2377")], &[], None).expect("valid");
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn help_names_every_variable() {
    let help = command().render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, variable) in node_config::documented_names() {
        assert!(
            help.contains(&format!("--{name}")) && help.contains(&format!("[env: {variable}]")),
            "{name}"
        );
    }
}

#[test]
fn the_page_documents_every_setting_in_all_three_forms() {
    let page = include_str!("../../../docs/configuration.md");
    for (name, variable) in node_config::documented_names() {
        let row = format!("| `--{name}` | `{variable}` | `{name}` |");
        assert!(page.contains(&row), "docs/configuration.md lacks the row {row}");
    }
}

proptest! {
    #[test]
    fn any_file_is_taken_or_refused_without_a_panic(text in "\\PC{0,200}") {
        let _ = file::parse(&PathBuf::from("x.toml"), &text);
    }

    #[test]
    fn any_value_is_taken_or_refused_without_a_panic(text: String) {
        let _ = (values::addr(&text), values::api(&text), values::engine(&text), values::join(&text));
        let _ = (values::label(&text), values::name(&text), values::switch(&text));
        let _ = values::advertise(&text, NodeConfig::default().listen);
    }

    #[test]
    fn the_highest_source_that_speaks_wins(flag in prop::option::of(1u16..), env in prop::option::of(1u16..), file in prop::option::of(1u16..)) {
        let addr = |port: u16| format!("10.0.0.1:{port}");
        let flags = flag.map(|p| format!("--listen={}", addr(p)));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let variable = env.map(addr);
        let variable: Vec<(&str, &str)> = variable.iter().map(|v| ("SHOAL_LISTEN", v.as_str())).collect();
        let text = file.map(|p| format!("listen = \"{}\"", addr(p)));
        let config = load(&flags, &variable, text.as_deref()).expect("valid");
        prop_assert_eq!(config.listen.port(), flag.or(env).or(file).unwrap_or(2377));
    }

    #[test]
    fn labels_read_back_from_every_source(labels in prop::collection::btree_map("[a-z]{1,8}", "[a-z0-9]{0,8}", 0..5)) {
        let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let flags: Vec<String> = pairs.iter().map(|p| format!("--label={p}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let joined = pairs.join(",");
        let table: String = labels.iter().map(|(k, v)| format!("{k} = \"{v}\"\n")).collect();
        let none: BTreeMap<String, String> = BTreeMap::new();
        prop_assert_eq!(&load(&flags, &[], None).map_or_else(|_| none.clone(), |c| c.labels), &labels);
        prop_assert_eq!(&load(&[], &[("SHOAL_LABEL", &joined)], None).map_or_else(|_| none.clone(), |c| c.labels), &labels);
        let file = format!("[label]\n{table}");
        prop_assert_eq!(&load(&[], &[], Some(&file)).map_or(none, |c| c.labels), &labels);
    }
}
