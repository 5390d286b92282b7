//! What a plain process cannot have is refused by name, never left out silently.

use shoal_core::model::{PortMode, Task};

/// Names of what the task asks for and cannot get here.
pub(crate) fn impossible(task: &Task) -> Vec<&'static str> {
    let container = &task.spec.container;
    // A check that is switched off, or inherited from an image that is not looked at, is none.
    let checks = container.healthcheck.as_ref().is_some_and(|check| {
        !check.test.is_empty() && check.test.first().map(String::as_str) != Some("NONE")
    });
    // A process opens its port itself; only another number outside cannot be had.
    let maps_ports = task.ports.iter().any(|port| {
        port.mode == PortMode::Host && port.published_port != 0 && port.published_port != port.target_port
    });
    let asked = [
        ("mounts", !container.mounts.is_empty()),
        ("port mapping", maps_ports),
        ("hostname", !container.hostname.is_empty()),
        ("groups", !container.groups.is_empty()),
        ("tty", container.tty),
        ("open stdin", container.open_stdin),
        ("read-only root", container.read_only),
        ("hosts", !container.hosts.is_empty()),
        ("dns", has_dns(task)),
        ("healthcheck", checks),
        ("sysctls", !container.sysctls.is_empty()),
        ("capabilities", !container.cap_add.is_empty() || !container.cap_drop.is_empty()),
        ("ulimits", !container.ulimits.is_empty()),
        ("log driver", task.spec.log_driver.is_some()),
    ];
    asked.into_iter().filter_map(|(name, asked)| asked.then_some(name)).collect()
}

fn has_dns(task: &Task) -> bool {
    let container = &task.spec.container;
    [&container.dns_nameservers, &container.dns_search, &container.dns_options]
        .iter()
        .any(|list| !list.is_empty())
}
