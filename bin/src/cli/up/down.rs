//! `shoal down`.

use std::time::Duration;

use super::layout::{Layout, NODES, Record};
use super::{daemon, demo, engine};
use crate::cli::args::{ConvergeArgs, DownArgs};
use crate::cli::client::{Client, encode};
use crate::cli::error::{CliError, Outcome};
use crate::cli::output::{self, items, text};
use crate::cli::progress::{Goal, Watch};

/// Longer than the grace of the demo's containers.
const REMOVAL_TIMEOUT_NANOS: i64 = 30_000_000_000;
const NODE_GRACE: Duration = Duration::from_secs(15);
const TASK_GRACE: Duration = Duration::from_secs(3);

/// Stop and remove all that `up` made.
pub(crate) async fn down(flags: &DownArgs) -> Outcome {
    let path = Layout::path(flags.dir.dir.as_deref())?;
    if !path.exists() {
        output::print(&format!("Nothing to stop: no cluster is in {}.", path.display()));
        return Ok(());
    }
    let layout = Layout::open(&path)?;
    let Some(record) = layout.load()? else {
        output::print(&format!("Nothing to stop: no cluster is in {}.", path.display()));
        return layout.remove();
    };
    remove_services(&layout).await;
    stop_nodes(&record).await;
    remove_leftovers(&layout, &record).await?;
    layout.remove()?;
    output::print("All is stopped and removed.");
    Ok(())
}

/// Through the first node that answers. What stays behind here is removed by its label later.
async fn remove_services(layout: &Layout) {
    for index in 0..usize::from(NODES) {
        let client = layout.client(index).patience(Duration::from_secs(10));
        let Ok(services) = client.get("/services").await else { continue };
        let services: Vec<(String, String)> = items(&services)
            .iter()
            .map(|service| (text(service, "/ID").to_owned(), text(service, "/Spec/Name").to_owned()))
            .collect();
        if let Err(error) = remove_all(&client, &services).await {
            eprintln!("services: {error}; their containers are removed by label");
        }
        return;
    }
    eprintln!("no node answers; containers are removed by their label");
}

async fn remove_all(client: &Client, services: &[(String, String)]) -> Outcome {
    for (id, name) in services {
        output::print(&format!("Removing service {name}"));
        match client.delete(&format!("/services/{}", encode(id))).await {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
    }
    let flags = ConvergeArgs { timeout: Some(REMOVAL_TIMEOUT_NANOS), ..ConvergeArgs::default() };
    for (id, name) in services {
        Watch::new(client, id, name, &flags).until(Goal::Gone).await?;
    }
    Ok(())
}

async fn stop_nodes(record: &Record) {
    let processes: Vec<_> = record.nodes.iter().filter_map(|node| node.process).collect();
    let alive = processes.iter().filter(|process| daemon::is_running(**process)).count();
    if alive > 0 {
        output::print(&format!("Stopping {alive} nodes"));
    }
    let killed = daemon::stop(&processes, NODE_GRACE).await;
    if killed > 0 {
        eprintln!("{killed} nodes did not stop within {} s and were killed", NODE_GRACE.as_secs());
    }
}

async fn remove_leftovers(layout: &Layout, record: &Record) -> Outcome {
    let processes = daemon::stop_marked(&demo::mark(layout.root()), TASK_GRACE).await;
    if processes > 0 {
        output::print(&format!("Stopped {processes} leftover processes"));
    }
    let Some(engine) = engine::client(&record.engine) else { return Ok(()) };
    let nodes: Vec<String> = record.nodes.iter().filter_map(|node| node.node_id.clone()).collect();
    match engine::remove_containers(&engine, &nodes).await {
        Ok(0) => {}
        Ok(count) => output::print(&format!("Removed {count} leftover containers")),
        // The record stays, so that the next `down` finds them.
        Err(CliError::Client(error)) if error.is_unreachable() => {
            let words = format!(
                "{error}\nThe nodes are stopped; run `shoal down` again when the engine answers, to remove their containers."
            );
            return Err(CliError::Failed(words));
        }
        Err(error) => return Err(error),
    }
    engine::remove_image(&engine).await;
    Ok(())
}
