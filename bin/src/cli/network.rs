//! `shoal network …`.

use serde_json::{Value, json};

use super::args::{ListArgs, NetworkCreate, NetworkVerb};
use super::client::{Client, encode, filters};
use super::error::{CliError, Outcome};
use super::output::{self, Format, items, number, text};
use super::spec::json::{edit_map, put};

pub(crate) async fn run(client: &Client, verb: NetworkVerb) -> Outcome {
    match verb {
        NetworkVerb::Create(flags) => create(client, &flags).await,
        NetworkVerb::Ls { list } => ls(client, list).await,
        NetworkVerb::Inspect { networks, verbose, pretty, .. } => {
            inspect(client, &networks, verbose, pretty).await
        }
        NetworkVerb::Names { service, list } => names(client, service.as_deref(), list).await,
        NetworkVerb::Prune { filter } => prune(client, &filter).await,
        NetworkVerb::Rm { networks } => {
            for network in networks {
                client.delete(&format!("/networks/{}", encode(&network))).await?;
                output::print(&network);
            }
            Ok(())
        }
    }
}

async fn create(client: &Client, flags: &NetworkCreate) -> Outcome {
    let created = client.post("/networks/create", &create_body(flags)?).await?;
    output::print(text(&created, "/Id"));
    Ok(())
}

/// The body of `POST /networks/create`.
pub(crate) fn create_body(flags: &NetworkCreate) -> Outcome<Value> {
    let mut body = json!({"Name": flags.name, "Driver": flags.driver, "Scope": "swarm"});
    for (name, asked) in
        [("Attachable", flags.attachable), ("Internal", flags.internal), ("EnableIPv6", flags.ipv6)]
    {
        if asked {
            put(&mut body, name, true);
        }
    }
    if flags.gateway.len() > flags.subnet.len() {
        return Err(CliError::Usage("each --gateway needs the --subnet that it is in".into()));
    }
    if flags.ip_range.len() > flags.subnet.len() {
        return Err(CliError::Usage("each --ip-range needs the --subnet that it is a part of".into()));
    }
    let ranges = flags.subnet.iter().enumerate().map(|(place, subnet)| {
        let mut range = json!({"Subnet": subnet});
        if let Some(gateway) = flags.gateway.get(place) {
            put(&mut range, "Gateway", gateway.to_string());
        }
        if let Some(part) = flags.ip_range.get(place) {
            put(&mut range, "IPRange", part.as_str());
        }
        range
    });
    let ranges: Vec<Value> = ranges.collect();
    if !ranges.is_empty() {
        put(&mut body, "IPAM/Config", ranges);
    }
    edit_map(&mut body, "Labels", &flags.label, &[]);
    edit_map(&mut body, "Options", &flags.opt, &[]);
    Ok(body)
}

async fn ls(client: &Client, list: ListArgs) -> Outcome {
    let networks = client.get("/networks").await?;
    if list.quiet {
        items(&networks).iter().for_each(|network| output::print(text(network, "/Id")));
    } else if list.format == Format::Json {
        output::print(&output::json(&networks));
    } else {
        output::print(&table(items(&networks)));
    }
    Ok(())
}

/// The table of `network ls`.
pub(crate) fn table(networks: &[Value]) -> String {
    let row = |network: &Value| {
        let ranges = network.pointer("/IPAM/Config").map(items).unwrap_or_default();
        let ranges: Vec<&str> = ranges.iter().map(|range| text(range, "/Subnet")).collect();
        vec![
            text(network, "/Id").chars().take(12).collect(),
            text(network, "/Name").to_owned(),
            text(network, "/Driver").to_owned(),
            text(network, "/Scope").to_owned(),
            ranges.join(", "),
        ]
    };
    let mut rows: Vec<Vec<String>> = networks.iter().map(row).collect();
    rows.sort_by(|a, b| a[1].cmp(&b[1]));
    output::table(&["ID", "NAME", "DRIVER", "SCOPE", "SUBNET"], &rows)
}

async fn inspect(client: &Client, networks: &[String], verbose: bool, pretty: bool) -> Outcome {
    let mut found = Vec::new();
    for network in networks {
        let path = format!("/networks/{}?verbose={}", encode(network), verbose || pretty);
        found.push(client.get(&path).await?);
    }
    if pretty {
        found.iter().for_each(|network| output::print(&describe(network)));
    } else {
        output::print(&output::json(&Value::Array(found)));
    }
    Ok(())
}

fn describe(network: &Value) -> String {
    let ranges = network.pointer("/IPAM/Config").map(items).unwrap_or_default();
    let range = |range: &Value| {
        let part = text(range, "/IPRange");
        let part = if part.is_empty() { String::new() } else { format!(", addresses from {part}") };
        format!("{} (gateway {}{part})", text(range, "/Subnet"), text(range, "/Gateway"))
    };
    let pairs = |name: &str| {
        let map = network.get(name).and_then(Value::as_object).into_iter().flatten();
        map.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let flags = ["Internal", "Attachable", "EnableIPv6"];
    let flags = flags.iter().filter(|flag| network[**flag] == true).map(|flag| flag.to_lowercase());
    let services = network.get("Services").and_then(Value::as_object).into_iter().flatten();
    let service = |(name, service): (&String, &Value)| {
        let tasks = service.get("Tasks").map(items).unwrap_or_default().len();
        let address = match text(service, "/VIP") {
            "" => String::new(),
            address => format!("{address}, "),
        };
        format!("{name} ({address}{tasks} tasks)")
    };
    let lines = [
        ("ID", text(network, "/Id").to_owned()),
        ("Name", text(network, "/Name").to_owned()),
        ("Driver", text(network, "/Driver").to_owned()),
        ("Scope", text(network, "/Scope").to_owned()),
        ("Ranges", ranges.iter().map(range).collect::<Vec<_>>().join(", ")),
        ("Is", flags.collect::<Vec<_>>().join(" ")),
        ("Labels", pairs("Labels")),
        ("Options", pairs("Options")),
        ("Services", services.map(service).collect::<Vec<_>>().join(", ")),
        ("Created", text(network, "/Created").to_owned()),
    ];
    lines.iter().filter(|(_, v)| !v.is_empty()).map(|(name, value)| format!("{name:<14}{value}\n")).collect()
}

async fn names(client: &Client, service: Option<&str>, list: ListArgs) -> Outcome {
    let query = service.map(|name| format!("?service={}", encode(name))).unwrap_or_default();
    let found = client.get(&format!("/shoal/v1/names{query}")).await?;
    if list.quiet {
        items(&found).iter().for_each(|service| output::print(text(service, "/ID")));
    } else if list.format == Format::Json {
        output::print(&output::json(&found));
    } else {
        output::print(&names_table(items(&found)));
    }
    Ok(())
}

/// The table of `network names`: each service with its virtual addresses, and its tasks below it.
fn names_table(services: &[Value]) -> String {
    let words = |of: &Value, pointer: &str| -> String {
        let all = of.pointer(pointer).map(items).unwrap_or_default();
        all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let ports = |of: &Value| {
        let all = of.get("Ports").map(items).unwrap_or_default().iter();
        all.map(port).collect::<Vec<_>>().join(", ")
    };
    let mut services: Vec<&Value> = services.iter().collect();
    services.sort_by_key(|service| text(service, "/Name"));
    let mut rows = Vec::new();
    for service in services {
        let networks = service.get("Networks").map(items).unwrap_or_default();
        let address = |network: &Value| match words(network, "/VirtualAddresses").as_str() {
            "" => text(network, "/Name").to_owned(),
            addresses => format!("{} {addresses}", text(network, "/Name")),
        };
        let addresses: Vec<String> = networks.iter().map(address).collect();
        let name = text(service, "/Name").to_owned();
        rows.push(vec![
            name,
            addresses.join(", "),
            String::new(),
            String::new(),
            String::new(),
            ports(service),
        ]);
        for task in service.get("Tasks").map(items).unwrap_or_default() {
            rows.push(vec![
                format!(" {}", text(task, "/Name")),
                words(task, "/Addresses"),
                text(task, "/Node").to_owned(),
                text(task, "/Health").to_owned(),
                if task["TakesTraffic"] == true { "yes" } else { "no" }.to_owned(),
                ports(task),
            ]);
        }
    }
    output::table(&["NAME", "ADDRESSES", "NODE", "HEALTH", "TRAFFIC", "PORTS"], &rows)
}

fn port(port: &Value) -> String {
    let published =
        number(port, "/PublishedPort").map_or_else(|| "*".to_owned(), |number| number.to_string());
    let target = number(port, "/TargetPort").unwrap_or_default();
    format!("{published}->{target}/{}", text(port, "/Protocol"))
}

async fn prune(client: &Client, wanted: &[(String, String)]) -> Outcome {
    let keys: std::collections::BTreeSet<&str> = wanted.iter().map(|(key, _)| key.as_str()).collect();
    let values = |key: &str| -> Vec<&str> {
        wanted.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    };
    let all: Vec<(&str, Vec<&str>)> = keys.into_iter().map(|key| (key, values(key))).collect();
    let all: Vec<(&str, &[&str])> = all.iter().map(|(key, values)| (*key, values.as_slice())).collect();
    let pruned = client.post(&format!("/networks/prune?{}", filters(&all)), &Value::Null).await?;
    let names = pruned.get("NetworksDeleted").map(items).unwrap_or_default();
    names.iter().filter_map(Value::as_str).for_each(output::print);
    Ok(())
}

/// Put the ids of networks in the place of their names: the node tells ids, so that only those can be compared.
pub(crate) async fn ids(client: &Client, targets: &[String]) -> Outcome<Vec<String>> {
    let mut ids = Vec::with_capacity(targets.len());
    for target in targets {
        let network = client.get(&format!("/networks/{}?scope=swarm", encode(target))).await?;
        ids.push(text(&network, "/Id").to_owned());
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_described_for_people() {
        let network = json!({"Id": "9", "Name": "back", "Driver": "overlay", "Scope": "swarm", "Internal": true, "EnableIPv6": false,
            "IPAM": {"Config": [{"Subnet": "10.7.0.0/24", "Gateway": "10.7.0.1", "IPRange": "10.7.0.128/25"}]},
            "Labels": {"a": "b"}, "Services": {"web": {"VIP": "10.7.0.2", "Tasks": [{}, {}]}, "db": {"VIP": "", "Tasks": []}}});
        let text = describe(&network);
        assert!(
            text.contains("Ranges        10.7.0.0/24 (gateway 10.7.0.1, addresses from 10.7.0.128/25)\n"),
            "{text}"
        );
        assert!(text.contains("Is            internal\nLabels        a=b\n"), "{text}");
        assert!(text.contains("Services      db (0 tasks), web (10.7.0.2, 2 tasks)\n"), "{text}");
    }

    #[test]
    fn names_are_listed_with_what_they_lead_to() {
        let port =
            json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"});
        let task = |slot: u8, health: &str, takes: bool| {
            json!({"Name": format!("web.{slot}.x"), "Node": "h1", "Addresses": [format!("10.128.0.{slot}")],
                "Health": health, "TakesTraffic": takes, "Ports": []})
        };
        let services = [
            json!({"Name": "web", "Ports": [port], "Tasks": [task(3, "healthy", true), task(4, "starting", false)],
                "Networks": [{"Name": "back", "VirtualAddresses": ["10.128.0.2"]}, {"Name": "more", "VirtualAddresses": []}]}),
            json!({"Name": "api", "Networks": [], "Ports": [], "Tasks": []}),
        ];
        let shown = names_table(&services);
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(lines[1], "api", "{shown}");
        assert!(lines[2].starts_with("web ") && lines[2].contains("back 10.128.0.2, more"), "{shown}");
        assert!(lines[2].ends_with("8080->80/tcp"), "{shown}");
        assert!(
            lines[3].starts_with(" web.3.x   10.128.0.3") && lines[3].ends_with("h1     healthy    yes"),
            "{shown}"
        );
        assert!(lines[4].ends_with("h1     starting   no"), "{shown}");
    }

    #[test]
    fn networks_are_listed_by_name_with_their_ranges() {
        let ranges = json!([{"Subnet": "10.128.0.0/20"}, {"Subnet": "fd00::/64"}]);
        let networks = [
            json!({"Id": "0123456789abcdef", "Name": "web", "Driver": "overlay", "Scope": "swarm", "IPAM": {"Config": ranges}}),
            json!({"Id": "f0", "Name": "host", "Driver": "host", "Scope": "local", "IPAM": {"Config": null}}),
        ];
        let text = table(&networks);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("f0") && lines[1].ends_with("host      local"), "{text}");
        assert!(lines[2].starts_with("0123456789ab   web "), "{text}");
        assert!(lines[2].ends_with("swarm   10.128.0.0/20, fd00::/64"), "{text}");
    }
}
