//! The switch between the hosts, its cables and its faults.

use std::path::Path;

use anyhow::Result;

use super::namespace::Namespace;

/// The subnet of every lab. It exists only inside the lab, so labs and the machine never see each other's.
const NET: &str = "10.77.0";

/// Address of a host on the lab's wire.
pub fn address(host: usize) -> String {
    format!("{NET}.{host}")
}

/// A host's other address there.
pub fn address_v6(host: usize) -> String {
    format!("fd77::{host}")
}

/// A bridge in a namespace of its own: bridged packets would otherwise obey the machine's own FORWARD rules.
#[derive(Debug)]
pub(super) struct Switch {
    inside: Namespace,
}

impl Switch {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let script = format!(
            "ip link add br0 type bridge; ip addr add {} dev br0; ip link set br0 up",
            format_args!("{NET}.254/24")
        );
        Ok(Self { inside: Namespace::start("switch", &script, &dir.join("switch.log"))? })
    }

    /// Lay a cable to a host.
    pub(super) fn connect(&self, number: usize, host: &Namespace) -> Result<()> {
        let (switch, there) = (self.inside.pid().to_string(), host.pid().to_string());
        let port = format!("vh{number}");
        // Made inside the switch, so that the machine's own network never sees an end of it.
        self.inside.run(&["ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0"])?;
        let moved = crate::sh::must(
            std::process::Command::new("nsenter")
                .args(["--target", &switch, "--net", "--", "ip", "link", "set", "eth0", "netns", &there]),
            std::time::Duration::from_secs(10),
        );
        moved?;
        self.inside.run(&["ip", "link", "set", &port, "master", "br0", "up"])?;
        host.script(&format!(
            "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad; ip link set eth0 up; \
             ip route add default via {NET}.254",
            address(number),
            address_v6(number)
        ))?;
        Ok(())
    }

    /// Pull or plug a host's cable: the host sees its carrier go, the others see silence.
    pub(super) fn cable(&self, number: usize, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.inside.run(&["ip", "link", "set", &format!("vh{number}"), state]).map(drop)
    }

    /// Let nothing pass between hosts of different groups.
    pub(super) fn split(&self, groups: &[&[usize]]) -> Result<()> {
        let mut rules = String::new();
        for (at, from) in groups.iter().enumerate() {
            for to in groups.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, to)| to) {
                rules += &format!("iifname {{ {} }} oifname {{ {} }} drop\n", ports(from), ports(to));
            }
        }
        self.rules("split", 0, &rules)
    }

    /// Let nothing pass between two hosts, in either direction.
    pub(super) fn block(&self, one: usize, other: usize) -> Result<()> {
        self.split(&[&[one], &[other]])
    }

    /// Lose that many of a hundred packets, at random, in each direction.
    pub(super) fn lossy(&self, percent: u8) -> Result<()> {
        self.rules("loss", 1, &format!("numgen random mod 100 < {percent} drop\n"))
    }

    /// Undo splits and losses.
    pub(super) fn mend(&self) -> Result<()> {
        self.inside
            .script("for t in split loss; do nft delete table bridge $t 2>/dev/null || true; done")
            .map(drop)
    }

    fn rules(&self, name: &str, priority: u8, rules: &str) -> Result<()> {
        let table = format!(
            "nft delete table bridge {name} 2>/dev/null || true\nnft -f - <<'RULES'\ntable bridge {name} {{ chain forward {{ \
             type filter hook forward priority {priority};\n{rules}}}\n}}\nRULES\n"
        );
        self.inside.script(&table).map(drop)
    }
}

fn ports(group: &[usize]) -> String {
    group.iter().map(|host| format!("\"vh{host}\"")).collect::<Vec<_>>().join(", ")
}
