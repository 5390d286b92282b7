//! The configuration as the daemon sees it: complete and valid.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use shoal_core::model::{AddressPools, Availability, PoolsError};

use super::ConfigError;
use super::error::Source;
#[cfg(test)]
use super::keys;
use super::layers::{self, Entry, Layer};
use super::values::{self, ApiListen, Engine, Flaw, JoinTarget, flaw};

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// Files of the API's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTls {
    /// Authority of the clients' certificates.
    pub ca: PathBuf,
    /// Certificate chain of the server.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What the node does about a cluster when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// Go on where it was; if in no cluster, wait for the API.
    #[default]
    Idle,
    /// Begin a cluster, if in none.
    Init,
    /// Join a cluster, if in none.
    Join(JoinTarget),
    /// Go on alone from this node's own state.
    ForceNewCluster,
}

/// The daemon's configuration. Every value has been validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Folder for keys, log and state.
    pub data_dir: PathBuf,
    /// UDP address of the node's endpoint.
    pub listen: SocketAddr,
    /// Address told to the other nodes, if the user chose one.
    pub advertise: Option<SocketAddr>,
    /// Where the HTTP API is served; never empty.
    pub api: Vec<ApiListen>,
    /// Files for a TCP API; set exactly if `api` has one.
    pub api_tls: Option<ApiTls>,
    /// What runs the containers.
    pub engine: Engine,
    /// TCP address for `/metrics` beside the API.
    pub metrics: Option<SocketAddr>,
    /// Addresses of this host at which published ports answer; none means all.
    pub publish: Vec<IpAddr>,
    /// Address of this host at which programs outside the cluster's networks may ask for names.
    pub names: Option<IpAddr>,
    /// What to do about a cluster.
    pub start: Start,
    /// From where networks of a cluster that this node begins get their ranges.
    pub address_pools: AddressPools,
    /// Whether this node takes tasks when it inits or joins.
    pub availability: Availability,
    /// Name that this node reports in place of the host's.
    pub name: Option<String>,
    /// Labels of this node's engine.
    pub labels: BTreeMap<String, String>,
    /// How logs are written.
    pub log_format: LogFormat,
    /// Which logs are written, as filter directives.
    pub log_level: String,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/shoal"),
            listen: SocketAddr::from(([0, 0, 0, 0], values::PORT_DEFAULT)),
            advertise: None,
            api: vec![ApiListen::Unix(PathBuf::from("/run/shoal/shoal.sock"))],
            api_tls: None,
            engine: Engine::Docker(PathBuf::from("/var/run/docker.sock")),
            metrics: None,
            publish: Vec::new(),
            names: None,
            start: Start::Idle,
            address_pools: AddressPools::default(),
            availability: Availability::Active,
            name: None,
            labels: BTreeMap::new(),
            log_format: LogFormat::Text,
            log_level: "info".into(),
        }
    }
}

impl NodeConfig {
    /// Read flags (`args[0]` is the program), environment and file, and validate.
    ///
    /// # Errors
    /// The first thing that is wrong, with its source and remedy; or clap's request to print help.
    pub fn load(args: &[OsString], environment: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Self::from_layer(&layers::read(args, environment)?)
    }

    pub(super) fn from_layer(layer: &Layer) -> Result<Self, ConfigError> {
        let base = Self::default();
        let listen = one(layer, "listen", values::addr)?.unwrap_or(base.listen);
        let api = api(layer)?.unwrap_or(base.api);
        let api_tls = api_tls(layer, &api)?;
        Ok(Self {
            data_dir: one(layer, "data-dir", path)?.unwrap_or(base.data_dir),
            listen,
            advertise: one(layer, "advertise", |text| values::advertise(text, listen))?,
            api,
            api_tls,
            engine: one(layer, "engine", values::engine)?.unwrap_or(base.engine),
            metrics: one(layer, "metrics", values::addr)?,
            publish: many(layer, "publish-address", ip)?,
            names: one(layer, "names-address", ip)?,
            start: start(layer)?,
            address_pools: address_pools(layer)?,
            availability: one(layer, "availability", availability)?.unwrap_or_default(),
            name: one(layer, "name", values::name)?,
            labels: many(layer, "label", values::label)?.into_iter().collect(),
            log_format: one(layer, "log-format", log_format)?.unwrap_or_default(),
            log_level: one(layer, "log-level", log_level)?.unwrap_or(base.log_level),
        })
    }
}

fn refuse(entry: &Entry, flaw: Flaw) -> ConfigError {
    ConfigError::invalid(&entry.source, super::redact(&flaw.reason), flaw.remedy)
}

fn one<T>(
    layer: &Layer,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, Flaw>,
) -> Result<Option<T>, ConfigError> {
    layer.one(name).map(|entry| parse(&entry.value).map_err(|f| refuse(entry, f))).transpose()
}

fn many<T>(
    layer: &Layer,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, Flaw>,
) -> Result<Vec<T>, ConfigError> {
    layer.list(name).iter().map(|entry| parse(&entry.value).map_err(|f| refuse(entry, f))).collect()
}

fn ip(text: &str) -> Result<IpAddr, Flaw> {
    text.parse().or_else(|_| {
        flaw(format!("{text:?} is no address"), "write such as 192.0.2.7 or 2001:db8::7, without a port")
    })
}

fn path(text: &str) -> Result<PathBuf, Flaw> {
    if text.is_empty() { flaw("it is empty", "write a path") } else { Ok(PathBuf::from(text)) }
}

fn availability(text: &str) -> Result<Availability, Flaw> {
    match text {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => flaw(format!("{text:?} is no availability"), "write active, pause or drain"),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Flaw> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => flaw(format!("{text:?} is no log format"), "write text or json"),
    }
}

fn log_level(text: &str) -> Result<String, Flaw> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => flaw(
            format!("{text:?} is no log level"),
            "write error, warn, info, debug or trace, or filters such as info,shoal_net=debug",
        ),
    }
}

fn address_pools(layer: &Layer) -> Result<AddressPools, ConfigError> {
    let number = |text: &str| {
        text.parse::<i64>()
            .or_else(|_| flaw(format!("{text:?} is no number"), "write the length of a prefix, such as 24"))
    };
    let (pools, length) = (layer.list("default-addr-pool"), layer.one("default-addr-pool-mask-length"));
    let size = one(layer, "default-addr-pool-mask-length", number)?;
    let texts: Vec<String> = pools.iter().map(|entry| entry.value.clone()).collect();
    AddressPools::new(&texts, size).map_err(|error| {
        let by_length = "write the length of a prefix that fits into each pool, such as 24";
        let (entry, remedy) = match (&error, length, pools.first()) {
            (PoolsError::Size(_), Some(length), _) => (Some(length), by_length),
            // What is wrong with a length that nobody named is wrong with the pools.
            (PoolsError::Size(_), None, pool) => (pool, "name --default-addr-pool-mask-length, too"),
            (PoolsError::Pool(_), length, pool) => (pool.or(length), "write ranges such as 10.64.0.0/10"),
        };
        let source = entry.map_or_else(|| Source::Flag("default-addr-pool"), |entry| entry.source.clone());
        ConfigError::invalid(&source, error.to_string(), remedy)
    })
}

/// Lists in a file may be empty on purpose; an API nowhere would lock the user out, so it is the default then.
fn api(layer: &Layer) -> Result<Option<Vec<ApiListen>>, ConfigError> {
    let mut found: Vec<ApiListen> = Vec::new();
    for entry in layer.list("api") {
        let listen = values::api(&entry.value).map_err(|f| refuse(entry, f))?;
        if found.contains(&listen) {
            let reason = format!("{listen} is there twice");
            return Err(ConfigError::invalid(&entry.source, reason, "leave one away"));
        }
        found.push(listen);
    }
    Ok((!found.is_empty()).then_some(found))
}

fn api_tls(layer: &Layer, api: &[ApiListen]) -> Result<Option<ApiTls>, ConfigError> {
    let files = ["api-ca", "api-cert", "api-key"];
    let said = files.iter().find_map(|name| layer.one(name));
    let tcp = layer.list("api").iter().find(|entry| entry.value.starts_with("tcp://"));
    let (source, reason): (&Source, _) = match (tcp, said) {
        (Some(tcp), _) => (&tcp.source, "a TCP API gives whoever reaches it power over the host"),
        (None, Some(said)) => (&said.source, "a file for TLS is named and no TCP API"),
        (None, None) => return Ok(None),
    };
    if !api.iter().any(|listen| matches!(listen, ApiListen::Tcp(_))) {
        return Err(ConfigError::invalid(
            source,
            reason,
            "add --api tcp://ADDR:PORT, or leave the file away",
        ));
    }
    let mut paths = Vec::with_capacity(files.len());
    for name in files {
        match one(layer, name, path)? {
            Some(path) => paths.push(path),
            None => return Err(ConfigError::invalid(source, reason, format!("name a file with --{name}"))),
        }
    }
    let [ca, cert, key] = <[PathBuf; 3]>::try_from(paths).unwrap_or_default();
    Ok(Some(ApiTls { ca, cert, key }))
}

fn start(layer: &Layer) -> Result<Start, ConfigError> {
    let join = one(layer, "join", values::join)?;
    let mut wishes: Vec<(&Entry, Start)> = Vec::new();
    for (name, wish) in [("init", Start::Init), ("force-new-cluster", Start::ForceNewCluster)] {
        if one(layer, name, values::switch)? == Some(true) {
            wishes.extend(layer.one(name).map(|entry| (entry, wish)));
        }
    }
    wishes.extend(layer.one("join").zip(join.map(Start::Join)));
    if let [(first, _), (second, _), ..] = &wishes[..] {
        return Err(ConfigError::Conflict {
            first: first.source.to_string(),
            second: second.source.to_string(),
            remedy: "a node begins a cluster, joins one, or goes on alone: leave one away (--init=false undoes a file's)",
        });
    }
    Ok(wishes.pop().map_or(Start::Idle, |(_, wish)| wish))
}

/// Names of every setting, for the test that the page documents each.
#[cfg(test)]
pub(super) fn documented_names() -> Vec<(String, String)> {
    keys::KEYS.iter().map(|key| (key.name.to_owned(), key.variable())).collect()
}
