//! Constraints: `node.labels.zone == a`. Joined by AND.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Node;

/// The attribute of a node that a constraint looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Attribute {
    /// `node.id`
    NodeId,
    /// `node.hostname`
    Hostname,
    /// `node.role`
    Role,
    /// `node.ip`, an address or a network in CIDR form
    Ip,
    /// `node.platform.os`
    PlatformOs,
    /// `node.platform.arch`
    PlatformArch,
    /// `node.labels.KEY`
    NodeLabel(String),
    /// `engine.labels.KEY`
    EngineLabel(String),
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// What it looks at.
    pub attribute: Attribute,
    /// Whether the value shall be equal, or unequal.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// Why a constraint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A label's name holds what no label's name may.
    #[error("constraint {0:?}: letters, digits and . _ - / are wanted in the name of a label")]
    LabelName(String),
    /// No operator.
    #[error("constraint {0:?} has no operator: write KEY==VALUE or KEY!=VALUE")]
    NoOperator(String),
    /// Key unknown.
    #[error(
        "constraint key {0:?} is unknown: node.id, node.hostname, node.role, node.ip, \
         node.platform.os, node.platform.arch, node.labels.KEY and engine.labels.KEY are there"
    )]
    UnknownKey(String),
    /// Value missing or malformed.
    #[error("constraint {key} has the value {value:?}: {wanted}")]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wanted.
        wanted: &'static str,
    },
}

impl FromStr for Attribute {
    type Err = ConstraintError;

    fn from_str(key: &str) -> Result<Self, ConstraintError> {
        let lower = key.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "node.id" => Self::NodeId,
            "node.hostname" => Self::Hostname,
            "node.role" => Self::Role,
            "node.ip" => Self::Ip,
            "node.platform.os" => Self::PlatformOs,
            "node.platform.arch" => Self::PlatformArch,
            _ => {
                let label = |prefix: &str| {
                    lower
                        .starts_with(prefix)
                        .then(|| key[prefix.len()..].to_owned())
                        .filter(|l| !l.is_empty())
                };
                let named = |name: String, make: fn(String) -> Self| {
                    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
                    if fits { Ok(make(name)) } else { Err(ConstraintError::LabelName(key.to_owned())) }
                };
                if let Some(name) = label("node.labels.") {
                    named(name, Self::NodeLabel)?
                } else if let Some(name) = label("engine.labels.") {
                    named(name, Self::EngineLabel)?
                } else {
                    return Err(ConstraintError::UnknownKey(key.to_owned()));
                }
            }
        })
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeId => f.write_str("node.id"),
            Self::Hostname => f.write_str("node.hostname"),
            Self::Role => f.write_str("node.role"),
            Self::Ip => f.write_str("node.ip"),
            Self::PlatformOs => f.write_str("node.platform.os"),
            Self::PlatformArch => f.write_str("node.platform.arch"),
            Self::NodeLabel(key) => write!(f, "node.labels.{key}"),
            Self::EngineLabel(key) => write!(f, "engine.labels.{key}"),
        }
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let (key, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((key, value)), None) => (key, true, value),
            (None, Some((key, value))) => (key, false, value),
            (Some(eq), Some(ne)) if eq.0.len() < ne.0.len() => (eq.0, true, eq.1),
            (Some(_), Some(ne)) => (ne.0, false, ne.1),
            (None, None) => return Err(ConstraintError::NoOperator(text.to_owned())),
        };
        let attribute: Attribute = key.trim().parse()?;
        let value = value.trim().to_owned();
        let bad =
            |wanted| ConstraintError::BadValue { key: attribute.to_string(), value: value.clone(), wanted };
        if value.is_empty() {
            return Err(bad("a value is wanted"));
        }
        match attribute {
            Attribute::Ip if parse_network(&value).is_none() => {
                Err(bad("an address or a network such as 10.0.0.0/8 is wanted"))
            }
            Attribute::Role if !matches!(value.to_ascii_lowercase().as_str(), "manager" | "worker") => {
                Err(bad("manager or worker is wanted"))
            }
            _ => Ok(Self { attribute, equal, value }),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.attribute, if self.equal { "==" } else { "!=" }, self.value)
    }
}

impl Constraint {
    /// Whether the node fits.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        self.holds(node) == self.equal
    }

    fn holds(&self, node: &Node) -> bool {
        let same = |actual: &str| actual.eq_ignore_ascii_case(&self.value);
        let description = node.description.as_ref();
        match &self.attribute {
            Attribute::NodeId => same(&node.id.to_string()),
            Attribute::Hostname => same(node.hostname()),
            Attribute::Role => same(&node.role.to_string()),
            Attribute::Ip => {
                let addr = description.and_then(|d| d.addr.parse::<SocketAddr>().ok());
                addr.zip(parse_network(&self.value))
                    .is_some_and(|(addr, network)| in_network(addr.ip(), network))
            }
            Attribute::PlatformOs => description.is_some_and(|d| same(&d.platform.os)),
            Attribute::PlatformArch => description.is_some_and(|d| {
                same(normal_arch(&d.platform.architecture)) || same(&d.platform.architecture)
            }),
            Attribute::NodeLabel(key) => node.spec.labels.get(key).is_some_and(|v| same(v)),
            Attribute::EngineLabel(key) => {
                description.and_then(|d| d.engine.labels.get(key)).is_some_and(|v| same(v))
            }
        }
    }
}

/// The Go name of an architecture, as image platforms use it.
#[must_use]
pub fn normal_arch(arch: &str) -> &str {
    match arch {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armhf" | "armv7l" => "arm",
        other => other,
    }
}

fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr.parse().ok()?, Some(bits.parse().ok()?)),
        None => (text.parse().ok()?, None),
    };
    let most = if matches!(addr, IpAddr::V4(_)) { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((addr, bits))
}

fn in_network(addr: IpAddr, (network, bits): (IpAddr, u8)) -> bool {
    match (addr, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            bits == 0 || (u32::from(a) ^ u32::from(n)) >> (32 - u32::from(bits)) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            bits == 0 || (u128::from(a) ^ u128::from(n)) >> (128 - u32::from(bits)) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{NodeDescription, NodeId, Platform, Role};

    fn node() -> Node {
        let mut node = Node { id: NodeId::from_u128(7), role: Role::Manager, ..Node::default() };
        node.spec.labels.insert("zone".into(), "eu".into());
        let mut description = NodeDescription {
            hostname: "h1".into(),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            addr: "10.77.0.1:2377".into(),
            ..NodeDescription::default()
        };
        description.engine.labels.insert("disk".into(), "ssd".into());
        node.description = Some(description);
        node
    }

    #[test]
    fn every_attribute_of_swarm_is_matched() {
        for (text, fits) in [
            ("node.id==0000000000000000000000007", true),
            ("node.hostname == h1", true),
            ("node.hostname!=h1", false),
            ("node.role==manager", true),
            ("node.role!=worker", true),
            ("node.ip==10.77.0.1", true),
            ("node.ip==10.77.0.0/16", true),
            ("node.ip==10.78.0.0/16", false),
            ("node.ip!=fd00::/8", true),
            ("node.platform.os==linux", true),
            ("node.platform.arch==x86_64", true),
            ("node.platform.arch==amd64", true),
            ("node.labels.zone==eu", true),
            ("node.labels.rack==r1", false),
            ("node.labels.rack!=r1", true),
            ("engine.labels.disk==ssd", true),
        ] {
            assert_eq!(text.parse::<Constraint>().map(|c| c.matches(&node())), Ok(fits), "{text}");
        }
    }

    #[test]
    fn malformed_constraints_are_refused_by_name() {
        for text in [
            "node.role",
            "node.rolle==manager",
            "node.ip==300.1.1.1",
            "node.ip==10.0.0.0/33",
            "node.role==boss",
            "node.labels.==x",
            "engine.labels.a=\n==.",
            "node.labels.a b==c",
            "node.id==",
        ] {
            let error = text.parse::<Constraint>().expect_err(text).to_string();
            assert!(error.contains("constraint"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<Constraint>();
        }

        #[test]
        fn a_constraint_reads_back_as_written(key in "[a-z]{1,9}", value in "[a-z0-9]{1,9}", equal: bool) {
            let constraint = Constraint { attribute: Attribute::NodeLabel(key), equal, value };
            prop_assert_eq!(constraint.to_string().parse::<Constraint>(), Ok(constraint));
        }
    }
}
