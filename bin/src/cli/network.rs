//! `shoal network …`.

use serde_json::{Value, json};

use super::args::{ListArgs, NetworkCreate, NetworkVerb};
use super::client::{Client, encode};
use super::error::{CliError, Outcome};
use super::output::{self, Format, items, text};
use super::spec::json::{edit_map, put};

pub(crate) async fn run(client: &Client, verb: NetworkVerb) -> Outcome {
    match verb {
        NetworkVerb::Create(flags) => create(client, &flags).await,
        NetworkVerb::Ls { list } => ls(client, list).await,
        NetworkVerb::Inspect { networks, verbose, .. } => inspect(client, &networks, verbose).await,
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
    let ranges = flags.subnet.iter().enumerate().map(|(place, subnet)| {
        let mut range = json!({"Subnet": subnet});
        if let Some(gateway) = flags.gateway.get(place) {
            put(&mut range, "Gateway", gateway.to_string());
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

async fn inspect(client: &Client, networks: &[String], verbose: bool) -> Outcome {
    let mut found = Vec::new();
    for network in networks {
        found.push(client.get(&format!("/networks/{}?verbose={verbose}", encode(network))).await?);
    }
    output::print(&output::json(&Value::Array(found)));
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
