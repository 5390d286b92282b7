//! Every setting of the daemon, once: its name in the file, which gives the flag and the variable.

/// How a setting is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One text.
    Text,
    /// `true` or `false`; as a flag, its presence means `true`.
    Switch,
    /// Several texts: a repeated flag, a comma-separated variable, a TOML array.
    List,
    /// Several `K=V`: as a list, or a TOML table.
    Table,
}

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Its name in the file, and without the dashes its flag's.
    pub(super) name: &'static str,
    /// How it is written.
    pub(super) shape: Shape,
}

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape }
}

/// The settings that all three sources know.
pub(super) const KEYS: [Key; 21] = [
    key("data-dir", Shape::Text),
    key("listen", Shape::Text),
    key("advertise", Shape::Text),
    key("api", Shape::List),
    key("api-ca", Shape::Text),
    key("api-cert", Shape::Text),
    key("api-key", Shape::Text),
    key("engine", Shape::Text),
    key("metrics", Shape::Text),
    key("publish-address", Shape::List),
    key("names-address", Shape::Text),
    key("init", Shape::Switch),
    key("join", Shape::Text),
    key("force-new-cluster", Shape::Switch),
    key("default-addr-pool", Shape::List),
    key("default-addr-pool-mask-length", Shape::Text),
    key("availability", Shape::Text),
    key("name", Shape::Text),
    key("label", Shape::Table),
    key("log-format", Shape::Text),
    key("log-level", Shape::Text),
];

impl Key {
    /// The key of that name in a file.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        KEYS.into_iter().find(|key| key.name == name)
    }

    /// Its variable, `SHOAL_DATA_DIR` for `data-dir`.
    pub(super) fn variable(self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// What every variable of Shoal begins with.
pub(super) const PREFIX: &str = "SHOAL_";
/// The variable that names the file.
pub(super) const CONFIG_VARIABLE: &str = "SHOAL_CONFIG";
/// Variables of the command line `shoal`, which may be set in the daemon's environment too.
pub(super) const CLIENT_VARIABLES: [&str; 6] =
    ["SHOAL_HOST", "SHOAL_TLS_CA", "SHOAL_TLS_CERT", "SHOAL_TLS_KEY", "SHOAL_DIR", "SHOAL_JOIN_TOKEN"];
