//! `/swarm`: begin, join, leave, settings, tokens.

use std::net::{IpAddr, SocketAddr};

use hyper::StatusCode;
use shoal_actors::api::{ApiError, InitOptions, JoinOptions, LocalState};
use shoal_core::model::{Cluster, ClusterSpec, ConfigId};
use shoal_core::store::{Expect, ObjectId, Write};

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::convert::{address_pools, autolock, availability, swarm_json, swarm_spec};
use super::super::decode::decode;
use super::super::error::HttpError;
use super::super::query::Query;
use super::super::types::{InitRequest, JoinRequest, SwarmSpec, UnlockKey, UnlockRequest};

/// Managers that a join request may name.
const REMOTES_MAX: usize = 64;

/// `GET /swarm`
pub(in crate::http) async fn inspect(context: &Context) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let cluster = snapshot.state.cluster().ok_or_else(|| HttpError::from(ApiError::NotInCluster))?;
    Ok(snapshot.mark(body::json(StatusCode::OK, &swarm_json(cluster))))
}

/// `POST /swarm/init`
pub(in crate::http) async fn init(context: &Context, bytes: &[u8]) -> Result<Answer, HttpError> {
    let request: InitRequest = decode(bytes, "")?;
    if request.auto_lock_managers == Some(true) {
        return Err(autolock("AutoLockManagers"));
    }
    check_listen(context, request.listen_addr.as_deref())?;
    check_data_path(request.data_path_addr.as_deref(), request.advertise_addr.as_deref())?;
    if request.data_path_port.is_some_and(|port| !matches!(port, 0 | 4789)) {
        return Err(HttpError::field(
            "DataPathPort",
            "networks take the port that the nodes use anyway: leave it out",
        ));
    }
    let address_pools = address_pools(request.default_addr_pool, request.subnet_size)?;
    let spec = swarm_spec(request.spec.unwrap_or_default(), &ClusterSpec::default())?;
    let options = InitOptions {
        advertise: advertise(request.advertise_addr),
        spec: ClusterSpec { address_pools, ..spec },
        availability: availability("Availability", request.availability.as_deref())?,
        force_new_cluster: request.force_new_cluster.unwrap_or_default(),
    };
    let id = context.api.init(options).await?;
    Ok(body::json(StatusCode::OK, &id.to_string()))
}

/// `POST /swarm/join`
pub(in crate::http) async fn join(context: &Context, bytes: &[u8]) -> Result<Answer, HttpError> {
    let request: JoinRequest = decode(bytes, "")?;
    check_listen(context, request.listen_addr.as_deref())?;
    check_data_path(request.data_path_addr.as_deref(), request.advertise_addr.as_deref())?;
    let remotes = request.remote_addrs.unwrap_or_default();
    if remotes.is_empty() || remotes.iter().any(String::is_empty) || remotes.len() > REMOTES_MAX {
        return Err(HttpError::field(
            "RemoteAddrs",
            format!("1 to {REMOTES_MAX} addresses of managers are wanted, as HOST or HOST:PORT"),
        ));
    }
    let token = request.join_token.unwrap_or_default();
    if token.is_empty() {
        return Err(HttpError::field(
            "JoinToken",
            "it is missing: docker swarm join-token worker, on a manager, shows it",
        ));
    }
    let options = JoinOptions {
        remotes,
        token,
        advertise: advertise(request.advertise_addr),
        availability: availability("Availability", request.availability.as_deref())?,
    };
    context.api.join(options).await?;
    Ok(body::empty(StatusCode::OK))
}

/// An address to advertise, if one is named.
fn advertise(addr: Option<String>) -> Option<String> {
    addr.filter(|addr| !addr.is_empty())
}

/// Where the daemon listens is said when it starts: a request can only agree.
fn check_listen(context: &Context, listen: Option<&str>) -> Result<(), HttpError> {
    let Some(text) = listen.filter(|text| !text.is_empty()) else { return Ok(()) };
    let own = context.api.local().addr;
    let parsed = text
        .parse::<SocketAddr>()
        .map(|addr| (addr.ip(), Some(addr.port())))
        .or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, None)));
    let agrees = parsed.as_ref().is_ok_and(|(ip, port)| {
        // 2377 on all addresses is what clients send when their user says nothing.
        ip.is_unspecified()
            && port.is_none_or(|port| port == 2377 || own.is_some_and(|own| own.port() == port))
            || own.is_some_and(|own| own.ip() == *ip && port.is_none_or(|port| port == own.port()))
    });
    if agrees {
        return Ok(());
    }
    Err(HttpError::field(
        "ListenAddr",
        format!(
            "{text:?}: where the daemon listens is set when it starts (node --listen); leave it out here"
        ),
    ))
}

/// There is one path for all data, so that a second one can only be the same.
fn check_data_path(data_path: Option<&str>, advertise: Option<&str>) -> Result<(), HttpError> {
    match data_path {
        None | Some("") => Ok(()),
        same if same == advertise => Ok(()),
        Some(_) => Err(HttpError::field(
            "DataPathAddr",
            "networks take the address that the nodes use anyway: leave it out, or give that one",
        )),
    }
}

/// `POST /swarm/leave?force`
pub(in crate::http) async fn leave(context: &Context, query: &Query) -> Result<Answer, HttpError> {
    let (local, force) = (context.api.local(), query.flag("force"));
    if local.state == LocalState::Inactive {
        return Err(HttpError::unavailable("This node is not part of a swarm"));
    }
    if local.is_manager && !force {
        return Err(HttpError::unavailable(
            "You are attempting to leave the swarm on a node that is participating as a manager. Demote it \
             first (docker node demote), so that the other managers keep their majority. The last manager \
             takes the whole state of the swarm with it. Use `--force` to leave all the same.",
        ));
    }
    context.api.leave(force).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `POST /swarm/update?version&rotateWorkerToken&rotateManagerToken&rotateManagerUnlockKey`
pub(in crate::http) async fn update(
    context: &Context,
    query: &Query,
    bytes: &[u8],
) -> Result<Answer, HttpError> {
    let version = query.version("swarm")?;
    let json: SwarmSpec = decode(bytes, "Spec")?;
    if query.flag("rotateManagerUnlockKey") {
        return Err(autolock("rotateManagerUnlockKey"));
    }
    let snapshot = context.read().await?;
    let cluster = snapshot.state.cluster().ok_or_else(|| HttpError::from(ApiError::NotInCluster))?;
    if cluster.meta.spec_version != version {
        return Err(HttpError::out_of_sequence());
    }
    let mut next = Cluster::clone(cluster);
    next.spec = swarm_spec(json, &cluster.spec)?;
    if query.flag("rotateWorkerToken") {
        next.tokens.worker = rotated(context, &cluster.tokens.worker);
    }
    if query.flag("rotateManagerToken") {
        next.tokens.manager = rotated(context, &cluster.tokens.manager);
    }
    context
        .propose(vec![Expect::SpecVersion(ObjectId::Cluster, version)], vec![Write::Cluster(Box::new(next))])
        .await?;
    Ok(body::empty(StatusCode::OK))
}

/// The token with a fresh secret: what stands before the last dash pins the authority and stays.
fn rotated(context: &Context, token: &str) -> String {
    // 128 random bits in base 36 are 25 characters, which is the form of a token's secret, too.
    let secret = context.draw(|rng| ConfigId::random(rng).to_string());
    match token.rsplit_once('-') {
        Some((fixed, _)) => format!("{fixed}-{secret}"),
        None => secret,
    }
}

/// `GET /swarm/unlockkey`: empty, as with Docker where managers are not locked.
pub(in crate::http) async fn unlock_key(context: &Context) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let key = UnlockKey { unlock_key: Some(String::new()) };
    Ok(snapshot.mark(body::json(StatusCode::OK, &key)))
}

/// `POST /swarm/unlock`
pub(in crate::http) fn unlock(context: &Context, bytes: &[u8]) -> HttpError {
    if let Err(error) = decode::<UnlockRequest>(bytes, "") {
        return error;
    }
    match context.api.local().state {
        LocalState::Inactive => HttpError::unavailable("This node is not part of a swarm"),
        _ => HttpError::conflict("swarm is not locked"),
    }
}
