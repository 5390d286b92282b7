//! `shoal service …`.

use serde_json::Value;

use super::args::{ConvergeArgs, CreateArgs, ListArgs, PsArgs, ServiceVerb, UpdateArgs};
use super::client::{Client, encode, filters};
use super::error::{CliError, Outcome};
use super::output::{self, Format, items, number, text};
use super::progress::{Goal, Watch};
use super::spec::json::put;
use super::{network, registry, spec, tasks};

pub(crate) async fn run(client: &Client, verb: ServiceVerb) -> Outcome {
    match verb {
        ServiceVerb::Create(flags) => create(client, &flags).await,
        ServiceVerb::Ls { list } => ls(client, list).await,
        ServiceVerb::Ps { services, ps } => ps_of(client, &services, &ps).await,
        ServiceVerb::Inspect { services, pretty, .. } => inspect(client, &services, pretty).await,
        ServiceVerb::Scale { targets, converge } => scale(client, &targets, &converge).await,
        ServiceVerb::Update(flags) => update(client, &flags).await,
        ServiceVerb::Rollback { service, converge } => update(client, &back(service, converge)).await,
        ServiceVerb::Rm { services, converge } => rm(client, &services, &converge).await,
    }
}

fn here(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

async fn create(client: &Client, flags: &CreateArgs) -> Outcome {
    let env = spec::environment(&flags.env_file, &flags.env, &here)?;
    let body = spec::create(flags, env)?;
    let headers = registry_headers(flags.shared.with_registry_auth, flags.image())?;
    let created = client.post_with("/services/create", &headers, &body).await?;
    warn(&created);
    let id = text(&created, "/ID");
    output::print(id);
    let name = flags.name.as_deref().unwrap_or(id);
    watch(client, id, name, &flags.converge, Goal::Stable).await
}

fn registry_headers(wanted: bool, image: &str) -> Outcome<Vec<(&'static str, String)>> {
    if !wanted {
        return Ok(Vec::new());
    }
    Ok(registry::auth_for(image)?.map(|auth| ("x-registry-auth", auth)).into_iter().collect())
}

fn warn(answer: &Value) {
    for warning in answer.get("Warnings").map(items).unwrap_or_default() {
        eprintln!("warning: {}", warning.as_str().unwrap_or_default());
    }
}

async fn watch(client: &Client, id: &str, name: &str, flags: &ConvergeArgs, goal: Goal) -> Outcome {
    if flags.detach { Ok(()) } else { Watch::new(client, id, name, flags).until(goal).await }
}

async fn ls(client: &Client, list: ListArgs) -> Outcome {
    let services = client.get("/services?status=true").await?;
    if list.quiet {
        items(&services).iter().for_each(|service| output::print(text(service, "/ID")));
    } else if list.format == Format::Json {
        output::print(&output::json(&services));
    } else {
        output::print(&table(items(&services)));
    }
    Ok(())
}

/// The table of `service ls`.
pub(crate) fn table(services: &[Value]) -> String {
    let mut rows: Vec<Vec<String>> = services
        .iter()
        .map(|service| {
            let mode = service.pointer("/Spec/Mode").and_then(Value::as_object);
            let mode = mode.and_then(|m| m.keys().next()).map(|k| k.to_lowercase()).unwrap_or_default();
            let count = |name: &str| number(service, &format!("/ServiceStatus/{name}")).unwrap_or_default();
            let ports = service.pointer("/Spec/EndpointSpec/Ports").map(items).unwrap_or_default();
            let ports: Vec<String> = ports.iter().map(|port| port_of(&service["Spec"], port)).collect();
            let image = text(service, "/Spec/TaskTemplate/ContainerSpec/Image");
            vec![
                text(service, "/ID").chars().take(12).collect(),
                text(service, "/Spec/Name").to_owned(),
                mode,
                format!("{}/{}", count("RunningTasks"), count("DesiredTasks")),
                image.split('@').next().unwrap_or_default().to_owned(),
                ports.join(", "),
            ]
        })
        .collect();
    rows.sort_by(|a, b| a[1].cmp(&b[1]));
    output::table(&["ID", "NAME", "MODE", "RUNNING", "IMAGE", "PORTS"], &rows)
}

fn port_of(spec: &Value, port: &Value) -> String {
    let published = number(port, "/PublishedPort").map_or_else(|| "*".to_owned(), |p| p.to_string());
    let target = number(port, "/TargetPort").unwrap_or_default();
    let words = format!("{}:{published}->{target}/{}", text(port, "/PublishMode"), text(port, "/Protocol"));
    match spec::places::of(spec, port) {
        "" => words,
        at => format!("{words} at {at}"),
    }
}

async fn find(client: &Client, service: &str) -> Outcome<Value> {
    Ok(client.get(&format!("/services/{}", encode(service))).await?)
}

async fn ps_of(client: &Client, services: &[String], flags: &PsArgs) -> Outcome {
    let mut found = Vec::new();
    for service in services {
        let service = find(client, service).await?;
        let list =
            client.get(&format!("/tasks?{}", filters(&[("service", &[text(&service, "/ID")])]))).await?;
        found.extend(items(&list).iter().cloned());
    }
    tasks::print(client, found, flags).await
}

async fn inspect(client: &Client, services: &[String], pretty: bool) -> Outcome {
    let mut found = Vec::new();
    for service in services {
        found.push(client.get(&format!("/services/{}?insertDefaults=true", encode(service))).await?);
    }
    if pretty {
        let is_in_one = |service: &Value| !places(service).is_empty();
        let networks = if found.iter().any(is_in_one) { client.get("/networks").await? } else { Value::Null };
        found.iter().for_each(|service| output::print(&describe(service, items(&networks))));
    } else {
        output::print(&output::json(&Value::Array(found)));
    }
    Ok(())
}

/// The networks that a service asks for.
fn places(service: &Value) -> &[Value] {
    service.pointer("/Spec/TaskTemplate/Networks").map(items).unwrap_or_default()
}

/// A place in a network: its name, the service's virtual addresses there, further names.
fn place(service: &Value, wish: &Value, networks: &[Value]) -> String {
    let target = text(wish, "/Target");
    let network = networks.iter().find(|network| text(network, "/Id") == target);
    let mut words = vec![network.map_or(target, |network| text(network, "/Name")).to_owned()];
    let addresses = service.pointer("/Endpoint/VirtualIPs").map(items).unwrap_or_default();
    let own = addresses.iter().filter(|address| text(address, "/NetworkID") == target);
    words.extend(own.map(|address| text(address, "/Addr").to_owned()));
    let aliases = wish.get("Aliases").map(items).unwrap_or_default();
    let aliases: Vec<&str> = aliases.iter().filter_map(Value::as_str).collect();
    if !aliases.is_empty() {
        words.push(format!("as {}", aliases.join(" and ")));
    }
    words.join(" ")
}

fn describe(service: &Value, networks: &[Value]) -> String {
    let container = "/Spec/TaskTemplate/ContainerSpec";
    let list = |pointer: String| {
        let found = service.pointer(&pointer).map(items).unwrap_or_default();
        found.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    let mode = service.pointer("/Spec/Mode").map(Value::to_string).unwrap_or_default();
    let ports = service.pointer("/Spec/EndpointSpec/Ports").map(items).unwrap_or_default();
    let update =
        format!("{} {}", text(service, "/UpdateStatus/State"), text(service, "/UpdateStatus/Message"));
    let lines = [
        ("ID", text(service, "/ID").to_owned()),
        ("Name", text(service, "/Spec/Name").to_owned()),
        ("Mode", mode),
        ("Image", text(service, &format!("{container}/Image")).to_owned()),
        ("Command", list(format!("{container}/Command"))),
        ("Arguments", list(format!("{container}/Args"))),
        ("Constraints", list("/Spec/TaskTemplate/Placement/Constraints".to_owned())),
        ("Ports", ports.iter().map(|port| port_of(&service["Spec"], port)).collect::<Vec<_>>().join(", ")),
        (
            "Networks",
            places(service).iter().map(|wish| place(service, wish, networks)).collect::<Vec<_>>().join(", "),
        ),
        ("Endpoint", text(service, "/Spec/EndpointSpec/Mode").to_owned()),
        ("Update", update.trim().to_owned()),
        ("Created", text(service, "/CreatedAt").to_owned()),
        ("Changed", text(service, "/UpdatedAt").to_owned()),
    ];
    lines.iter().filter(|(_, v)| !v.is_empty()).map(|(name, value)| format!("{name:<14}{value}\n")).collect()
}

/// Write a changed specification, on the version that was read.
async fn write(
    client: &Client,
    service: &Value,
    spec: &Value,
    query: &str,
    headers: &[(&str, String)],
) -> Outcome {
    let version = number(service, "/Version/Index").unwrap_or_default();
    let path = format!("/services/{}/update?version={version}{query}", encode(text(service, "/ID")));
    warn(&client.post_with(&path, headers, spec).await?);
    Ok(())
}

async fn scale(client: &Client, targets: &[(String, u64)], flags: &ConvergeArgs) -> Outcome {
    let mut begun = Vec::new();
    for (name, replicas) in targets {
        let service = find(client, name).await?;
        if !service.pointer("/Spec/Mode/Replicated").is_some_and(Value::is_object) {
            return Err(CliError::Failed(format!("{name}: only services of mode replicated have a scale")));
        }
        let mut spec = service["Spec"].clone();
        put(&mut spec, "Mode/Replicated/Replicas", *replicas);
        write(client, &service, &spec, "", &[]).await?;
        output::print(&format!("{name} scaled to {replicas}"));
        begun.push((text(&service, "/ID").to_owned(), name));
    }
    for (id, name) in begun {
        watch(client, &id, name, flags, Goal::Reached).await?;
    }
    Ok(())
}

async fn update(client: &Client, flags: &UpdateArgs) -> Outcome {
    let service = find(client, &flags.service).await?;
    let mut spec = service["Spec"].clone();
    let env = spec::environment(&[], &flags.env_add, &here)?;
    let flags = &with_network_ids(client, flags).await?;
    spec::update(&mut spec, flags, &env)?;
    let changed = spec != service["Spec"];
    if flags.rollback && changed {
        return Err(CliError::Usage(
            "--rollback goes back and changes nothing else: leave the other flags away".into(),
        ));
    }
    if !flags.rollback && !changed && !flags.shared.with_registry_auth {
        return Err(CliError::Usage(
            "nothing to change: what was asked for is so already; --force makes new tasks".into(),
        ));
    }
    let query = if flags.rollback { "&rollback=previous" } else { "" };
    let image = text(&spec, "/TaskTemplate/ContainerSpec/Image").to_owned();
    let headers = registry_headers(flags.shared.with_registry_auth, &image)?;
    write(client, &service, &spec, query, &headers).await?;
    output::print(&flags.service);
    let goal = if flags.rollback { Goal::RolledBack } else { Goal::Stable };
    watch(client, text(&service, "/ID"), &flags.service, &flags.converge, goal).await
}

/// What `service update --rollback` says.
fn back(service: String, converge: ConvergeArgs) -> UpdateArgs {
    UpdateArgs { service, converge, rollback: true, ..UpdateArgs::default() }
}

/// The flags with the ids of networks, as specifications hold them.
async fn with_network_ids(client: &Client, flags: &UpdateArgs) -> Outcome<UpdateArgs> {
    let mut flags = flags.clone();
    flags.network_rm = network::ids(client, &flags.network_rm).await?;
    let added: Vec<String> = flags.network_add.iter().map(|n| text(n, "/Target").to_owned()).collect();
    for (network, id) in flags.network_add.iter_mut().zip(network::ids(client, &added).await?) {
        put(network, "Target", id);
    }
    Ok(flags)
}

async fn rm(client: &Client, services: &[String], flags: &ConvergeArgs) -> Outcome {
    let mut begun = Vec::new();
    for name in services {
        let service = find(client, name).await?;
        client.delete(&format!("/services/{}", encode(name))).await?;
        output::print(name);
        begun.push((text(&service, "/ID").to_owned(), name));
    }
    for (id, name) in begun {
        watch(client, &id, name, flags, Goal::Gone).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::args::{Cli, Verb};

    #[test]
    fn a_rollback_is_the_update_that_goes_back_and_changes_nothing_else() {
        use clap::Parser as _;
        let words = ["shoal", "service", "rollback", "--detach", "web"];
        let cli = Cli::try_parse_from(words).expect("parses");
        let Verb::Service(ServiceVerb::Rollback { service, converge }) = cli.verb else { panic!("rollback") };
        let flags = back(service, converge);
        assert!(flags.rollback && flags.converge.detach && flags.service == "web", "{flags:?}");
        let mut spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "a"}}});
        let before = spec.clone();
        spec::update(&mut spec, &flags, &[]).expect("nothing to change");
        assert_eq!(spec, before);
        assert!(Cli::try_parse_from(["shoal", "service", "rollback", "web", "--image", "b"]).is_err());
    }

    #[test]
    fn a_description_names_networks_addresses_and_aliases() {
        let service = json!({
            "Spec": {
                "Name": "web",
                "Labels": {"shoal.publish.8080": "10.0.0.0/8"},
                "TaskTemplate": {"Networks": [{"Target": "n1", "Aliases": ["www", "w"]}, {"Target": "n2"}]},
                "EndpointSpec": {"Mode": "vip", "Ports": [
                    {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
            },
            "Endpoint": {"VirtualIPs": [{"NetworkID": "n1", "Addr": "10.128.0.2/20"}]},
        });
        let text = describe(&service, &[json!({"Id": "n1", "Name": "back"})]);
        assert!(
            text.contains("Networks      back 10.128.0.2/20 as www and w, n2\nEndpoint      vip\n"),
            "{text}"
        );
        assert!(text.contains("Ports         ingress:8080->80/tcp at 10.0.0.0/8\n"), "{text}");
    }
}
