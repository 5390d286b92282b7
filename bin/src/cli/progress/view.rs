//! How far a service is, judged from the API's objects. Pure, so that every case is tested without a cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cli::output::{items, number, text};

/// One slot of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotView {
    /// `3`, or the node's name for a global service.
    pub(crate) name: String,
    /// State of the task that shall run in it.
    pub(crate) state: String,
    /// Why it is not running, if it says so.
    pub(crate) why: String,
}

/// How far a service is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Tasks that shall run.
    pub(crate) wanted: u64,
    /// Tasks of the newest specification that run.
    pub(crate) running: u64,
    /// Tasks that shall end and have not yet.
    pub(crate) ending: u64,
    /// Whether the node is still rolling a change out.
    pub(crate) updating: bool,
    /// If the roll-out stopped, why.
    pub(crate) stopped: Option<String>,
    /// If the change was taken back, why.
    pub(crate) rolled_back: Option<String>,
    /// The slots that shall run, in order.
    pub(crate) slots: Vec<SlotView>,
}

impl View {
    /// Whether as many tasks run as asked, and no others.
    pub(crate) fn has_its_tasks(&self) -> bool {
        self.running == self.wanted && self.ending == 0
    }

    /// Whether the cluster is as asked, and no roll-out is under way.
    pub(crate) fn is_converged(&self) -> bool {
        self.has_its_tasks() && !self.updating
    }

    /// Why tasks wait, the most frequent reason first, with its count.
    pub(crate) fn reasons(&self) -> Vec<(usize, &str)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for slot in self.slots.iter().filter(|slot| slot.state != "running" && !slot.why.is_empty()) {
            *counts.entry(&slot.why).or_default() += 1;
        }
        let mut reasons: Vec<(usize, &str)> = counts.into_iter().map(|(why, count)| (count, why)).collect();
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        reasons
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{}/{} running", self.running, self.wanted);
        if self.ending > 0 {
            line.push_str(&format!(", {} ending", self.ending));
        }
        if let Some((count, why)) = self.reasons().first() {
            line.push_str(&format!("; {count} waiting: {why}"));
        } else if self.updating {
            line.push_str("; updating");
        }
        line
    }
}

/// Judge. `tasks` are all of the service's, `fresh` the ids of those of its newest specification.
pub(crate) fn view(service: &Value, tasks: &[Value], fresh: &BTreeSet<String>, nodes: &[Value]) -> View {
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (text(node, "/ID"), node)).collect();
    let mut slots: BTreeMap<(u64, &str), &Value> = BTreeMap::new();
    let mut failures: BTreeMap<(u64, &str), &Value> = BTreeMap::new();
    let mut view = View::default();
    for task in tasks {
        let live =
            matches!(text(task, "/DesiredState"), "running" | "ready" | "accepted" | "new" | "pending");
        let reachable = nodes.get(text(task, "/NodeID")).is_none_or(|n| text(n, "/Status/State") != "down");
        if !live {
            view.ending += u64::from(!has_ended(task) && is_placed(task) && reachable);
        } else if fresh.contains(text(task, "/ID")) {
            keep_newest(&mut slots, task);
        }
        if has_ended(task) && fresh.contains(text(task, "/ID")) && !text(task, "/Status/Err").is_empty() {
            keep_newest(&mut failures, task);
        }
    }
    view.slots = slots
        .iter()
        .map(|(slot, task)| slot_view(*slot, task, failures.get(slot).copied(), &nodes))
        .collect();
    view.running = view.slots.iter().filter(|slot| slot.state == "running").count() as u64;
    view.wanted = match number(service, "/Spec/Mode/Replicated/Replicas") {
        Some(replicas) => replicas,
        None if service.pointer("/Spec/Mode/Replicated").is_some() => 1,
        None => view.slots.len() as u64,
    };
    let message = text(service, "/UpdateStatus/Message");
    match text(service, "/UpdateStatus/State") {
        "updating" | "rollback_started" => view.updating = true,
        "paused" | "rollback_paused" => view.stopped = Some(format!("the update is paused: {message}")),
        "rollback_completed" => view.rolled_back = Some(format!("the update was rolled back: {message}")),
        _ => {}
    }
    view
}

fn has_ended(task: &Value) -> bool {
    matches!(
        text(task, "/Status/State"),
        "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned"
    )
}

fn is_placed(task: &Value) -> bool {
    !text(task, "/NodeID").is_empty()
}

fn stamp(task: &Value) -> (u64, &str) {
    (number(task, "/Version/Index").unwrap_or_default(), text(task, "/CreatedAt"))
}

fn keep_newest<'a>(slots: &mut BTreeMap<(u64, &'a str), &'a Value>, task: &'a Value) {
    let slot = number(task, "/Slot").unwrap_or_default();
    let node = if slot == 0 { text(task, "/NodeID") } else { "" };
    let newest = slots.entry((slot, node)).or_insert(task);
    if stamp(task) > stamp(newest) {
        *newest = task;
    }
}

fn slot_view(
    (slot, node): (u64, &str),
    task: &Value,
    failure: Option<&Value>,
    nodes: &BTreeMap<&str, &Value>,
) -> SlotView {
    let name = match (slot, nodes.get(node)) {
        (0, Some(node)) => text(node, "/Description/Hostname").to_owned(),
        (0, None) => node.to_owned(),
        (slot, _) => slot.to_string(),
    };
    let state = text(task, "/Status/State").to_owned();
    let (error, message) = (text(task, "/Status/Err"), text(task, "/Status/Message"));
    let now = if error.is_empty() { message } else { error };
    let why = match failure {
        _ if state == "running" => String::new(),
        // What a task does now says little while it fails again and again.
        Some(failure) => format!("the last attempt failed: {}", text(failure, "/Status/Err")),
        None => now.to_owned(),
    };
    SlotView { name, state, why }
}

/// The ids of tasks in an answer.
pub(crate) fn ids(tasks: &Value) -> BTreeSet<String> {
    items(tasks).iter().map(|task| text(task, "/ID").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(id: &str, slot: u64, desired: &str, state: &str, why: &str) -> Value {
        json!({"ID": id, "Slot": slot, "NodeID": "n1", "DesiredState": desired, "Version": {"Index": 1},
               "Status": {"State": state, "Err": why, "Message": "started"}})
    }

    fn judge(service: &Value, tasks: &[Value]) -> View {
        let fresh =
            tasks.iter().map(|t| text(t, "/ID").to_owned()).filter(|id| !id.starts_with("old")).collect();
        view(service, tasks, &fresh, &[json!({"ID": "n1", "Status": {"State": "ready"}})])
    }

    fn web(replicas: u64) -> Value {
        json!({"Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}}})
    }

    #[test]
    fn converged_when_every_slot_runs() {
        let tasks = [task("a", 1, "running", "running", ""), task("b", 2, "running", "running", "")];
        assert!(judge(&web(2), &tasks).is_converged());
        assert!(!judge(&web(3), &tasks).is_converged());
    }

    #[test]
    fn old_tasks_do_not_count_as_running() {
        let view = judge(&web(1), &[task("old", 1, "running", "running", "")]);
        assert_eq!((view.running, view.is_converged()), (0, false));
    }

    #[test]
    fn not_converged_while_surplus_tasks_end() {
        let tasks = [task("a", 1, "running", "running", ""), task("old", 2, "shutdown", "running", "")];
        let view = judge(&web(1), &tasks);
        assert_eq!((view.ending, view.is_converged()), (1, false));
        let tasks = [task("a", 1, "running", "running", ""), task("old", 2, "shutdown", "shutdown", "")];
        assert!(judge(&web(1), &tasks).is_converged());
    }

    #[test]
    fn tasks_on_a_node_that_is_down_are_not_waited_for() {
        let tasks = [task("a", 1, "running", "running", ""), task("old", 1, "shutdown", "running", "")];
        let fresh = BTreeSet::from(["a".to_owned()]);
        let down = [json!({"ID": "n1", "Status": {"State": "down"}})];
        assert!(view(&web(1), &tasks, &fresh, &down).is_converged());
    }

    #[test]
    fn the_line_tells_the_most_frequent_reason() {
        let why = "no suitable node (insufficient resources on 3 nodes)";
        let tasks = [
            task("a", 1, "running", "pending", why),
            task("b", 2, "running", "pending", why),
            task("c", 3, "running", "running", ""),
            task("d", 4, "ready", "preparing", "pulling image"),
        ];
        assert_eq!(judge(&web(4), &tasks).line(), format!("1/4 running; 2 waiting: {why}"));
    }

    #[test]
    fn a_slot_that_fails_again_and_again_says_why() {
        let mut failed = task("a", 1, "shutdown", "failed", "non-zero exit (1)");
        failed["CreatedAt"] = json!("1");
        let view = judge(&web(1), &[failed, task("b", 1, "ready", "ready", "")]);
        assert_eq!(view.line(), "0/1 running; 1 waiting: the last attempt failed: non-zero exit (1)");
    }

    #[test]
    fn a_failed_update_stops_the_wait() {
        let mut service = web(1);
        service["UpdateStatus"] = json!({"State": "paused", "Message": "task x failed"});
        let view = judge(&service, &[task("a", 1, "running", "running", "")]);
        assert_eq!(view.stopped.as_deref(), Some("the update is paused: task x failed"));
        service["UpdateStatus"] = json!({"State": "rollback_completed"});
        assert!(judge(&service, &[task("a", 1, "running", "running", "")]).rolled_back.is_some());
        service["UpdateStatus"] = json!({"State": "updating"});
        assert!(judge(&service, &[task("a", 1, "running", "running", "")]).updating);
    }

    #[test]
    fn a_global_service_wants_a_task_on_each_node_that_got_one() {
        let service = json!({"Spec": {"Mode": {"Global": {}}}});
        let mut one = task("a", 0, "running", "running", "");
        one.as_object_mut().expect("object").remove("Slot");
        assert!(judge(&service, &[one]).is_converged());
    }
}
