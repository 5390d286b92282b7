//! `shoal swarm …`.

use serde_json::{Value, json};

use super::args::{InitArgs, JoinArgs, SwarmUpdate, SwarmVerb};
use super::client::Client;
use super::error::{CliError, Outcome};
use super::output::{self, Format, number, text};
use super::spec::json::put_some;
use crate::cli::args::TokenRole;

pub(crate) async fn run(client: &Client, verb: SwarmVerb) -> Outcome {
    match verb {
        SwarmVerb::Init(flags) => init(client, &flags).await,
        SwarmVerb::Join(flags) => join(client, &flags).await,
        SwarmVerb::JoinToken { role, rotate, quiet, format } => {
            join_token(client, role, rotate, quiet, format).await
        }
        SwarmVerb::Leave { force } => {
            client.post(&format!("/swarm/leave?force={force}"), &Value::Null).await?;
            output::print("This node has left the cluster.");
            Ok(())
        }
        SwarmVerb::Update(flags) => update(client, &flags).await,
        SwarmVerb::Ca { format } => {
            let cluster = client.get("/swarm").await?;
            let pem = text(&cluster, "/TLSInfo/TrustRoot");
            match format {
                Format::Table => output::print(pem),
                Format::Json => output::print(&output::json(&json!({"TrustRoot": pem}))),
            }
            Ok(())
        }
    }
}

/// The body of `POST /swarm/init`.
pub(crate) fn init_body(flags: &InitArgs) -> Value {
    let mut spec = json!({});
    settings(&mut spec, &flags.settings);
    let mut body = json!({
        "ListenAddr": flags.listen_addr,
        "AdvertiseAddr": flags.advertise_addr,
        "ForceNewCluster": flags.force_new_cluster,
        "Availability": flags.availability.to_string(),
        "Spec": spec,
    });
    let pools = &flags.default_addr_pool;
    put_some(&mut body, "DefaultAddrPool", (!pools.is_empty()).then(|| pools.clone()));
    put_some(&mut body, "SubnetSize", flags.default_addr_pool_mask_length);
    body
}

/// The body of `POST /swarm/join`.
pub(crate) fn join_body(flags: &JoinArgs) -> Value {
    json!({
        "ListenAddr": flags.listen_addr,
        "AdvertiseAddr": flags.advertise_addr,
        "RemoteAddrs": flags.remotes,
        "JoinToken": flags.token,
        "Availability": flags.availability.to_string(),
    })
}

/// Lay the flags over a cluster's settings.
pub(crate) fn settings(spec: &mut Value, flags: &SwarmUpdate) {
    put_some(spec, "CAConfig/NodeCertExpiry", flags.cert_expiry);
    put_some(spec, "Dispatcher/HeartbeatPeriod", flags.dispatcher_heartbeat);
    put_some(spec, "Orchestration/TaskHistoryRetentionLimit", flags.task_history_limit);
    put_some(spec, "Raft/SnapshotInterval", flags.snapshot_interval);
    put_some(spec, "Raft/KeepOldSnapshots", flags.max_snapshots);
}

async fn init(client: &Client, flags: &InitArgs) -> Outcome {
    let id = client.post("/swarm/init", &init_body(flags)).await?;
    let id = id.as_str().unwrap_or_default();
    output::print(&format!("The cluster is there; this node ({id}) manages it.\n"));
    show_join(client, TokenRole::Worker).await?;
    output::print("\nFor another manager: shoal swarm join-token manager");
    Ok(())
}

async fn join(client: &Client, flags: &JoinArgs) -> Outcome {
    client.post("/swarm/join", &join_body(flags)).await?;
    let info = client.get("/info").await?;
    let manager = info.pointer("/Swarm/ControlAvailable").and_then(Value::as_bool).unwrap_or_default();
    let role = if manager { "manager" } else { "worker" };
    output::print(&format!("This node joined the cluster as a {role}."));
    Ok(())
}

async fn join_token(client: &Client, role: TokenRole, rotate: bool, quiet: bool, format: Format) -> Outcome {
    if rotate {
        let cluster = client.get("/swarm").await?;
        let version = number(&cluster, "/Version/Index").unwrap_or_default();
        let which = match role {
            TokenRole::Worker => "rotateWorkerToken",
            TokenRole::Manager => "rotateManagerToken",
        };
        client.post(&format!("/swarm/update?version={version}&{which}=true"), &cluster["Spec"]).await?;
        if !quiet && format == Format::Table {
            output::print("The token was changed; the old one lets nobody in any more.\n");
        }
    }
    if !quiet && format == Format::Table {
        return show_join(client, role).await;
    }
    let token = token(client, role).await?;
    match format {
        Format::Table => output::print(&token),
        Format::Json => output::print(&output::json(&json!({"Role": name(role), "Token": token}))),
    }
    Ok(())
}

fn name(role: TokenRole) -> &'static str {
    match role {
        TokenRole::Worker => "worker",
        TokenRole::Manager => "manager",
    }
}

async fn token(client: &Client, role: TokenRole) -> Outcome<String> {
    let cluster = client.get("/swarm").await?;
    let pointer = match role {
        TokenRole::Worker => "/JoinTokens/Worker",
        TokenRole::Manager => "/JoinTokens/Manager",
    };
    let token = text(&cluster, pointer);
    if token.is_empty() { Err(CliError::failed("the node told no join token")) } else { Ok(token.to_owned()) }
}

async fn show_join(client: &Client, role: TokenRole) -> Outcome {
    let token = token(client, role).await?;
    let info = client.get("/info").await?;
    let own = text(&info, "/Swarm/NodeID").to_owned();
    let managers = info.pointer("/Swarm/RemoteManagers").map(output::items).unwrap_or_default();
    let here = managers.iter().find(|m| text(m, "/NodeID") == own).or_else(|| managers.first());
    let addr = here.map(|m| text(m, "/Addr").to_owned()).unwrap_or_default();
    let role = name(role);
    output::print(&format!("To add a {role}, run there:\n\n    shoal swarm join --token {token} {addr}"));
    Ok(())
}

async fn update(client: &Client, flags: &SwarmUpdate) -> Outcome {
    let cluster = client.get("/swarm").await?;
    let mut spec = cluster["Spec"].clone();
    settings(&mut spec, flags);
    if spec == cluster["Spec"] {
        return Err(CliError::Usage("nothing to change: name a setting, see --help".into()));
    }
    let version = number(&cluster, "/Version/Index").unwrap_or_default();
    client.post(&format!("/swarm/update?version={version}"), &spec).await?;
    output::print("The cluster's settings were changed.");
    Ok(())
}
