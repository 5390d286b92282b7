//! What goes wrong, and the status and words that the client gets.

use hyper::StatusCode;
use shoal_actors::api::ApiError;
use shoal_core::store::{ApplyError, ObjectId};

/// An error as the client sees it: a status and `{"message": …}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct HttpError {
    /// The status.
    pub(super) status: StatusCode,
    /// The words.
    pub(super) message: String,
}

impl HttpError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400: the request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400: a field is wrong.
    pub(super) fn field(path: &str, problem: impl AsRef<str>) -> Self {
        Self::invalid(format!("{path}: {}", problem.as_ref()))
    }

    /// 403: it is there, and this cannot be done to it.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is no such object.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 404: there is no such page.
    pub(super) fn no_page() -> Self {
        Self::not_found("page not found")
    }

    /// 409: the request conflicts with how things are.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 413: the body is too large.
    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body is larger than {limit} bytes, which is the most that is taken here"),
        )
    }

    /// 408: the body did not arrive in time.
    pub(super) fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not arrive in time")
    }

    /// 500: our own fault.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 501: not there (yet).
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// 503: not here, or not now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The user's version of an object is an old one.
    pub(super) fn out_of_sequence() -> Self {
        Self::conflict("rpc error: code = Unknown desc = update out of sequence")
    }
}

fn object_name(object: ObjectId) -> String {
    match object {
        ObjectId::Cluster => "the swarm".to_owned(),
        ObjectId::Node(id) => format!("node {id}"),
        ObjectId::Service(id) => format!("service {id}"),
        ObjectId::Task(id) => format!("task {id}"),
        ObjectId::Network(id) => format!("network {id}"),
        ObjectId::Attachment(id) => format!("container {id} in the cluster's networks"),
    }
}

impl From<ApplyError> for HttpError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::OutOfSequence(_) => Self::out_of_sequence(),
            ApplyError::NotFound(object) => Self::not_found(format!("{} not found", object_name(object))),
            ApplyError::Exists(object) => Self::conflict(format!("{} exists already", object_name(object))),
            ApplyError::NameTaken(_) => {
                Self::conflict(format!("rpc error: code = AlreadyExists desc = {error}"))
            }
            ApplyError::StaleTerm { .. } => {
                Self::unavailable(format!("the leader changed meanwhile, try again: {error}"))
            }
            ApplyError::NoSuchNetwork(_) => Self::not_found(error.to_string()),
            ApplyError::NetworkNameTaken(_) => Self::conflict(error.to_string()),
            ApplyError::NetworkInUse { .. } | ApplyError::NotAttachable(_) => {
                Self::forbidden(error.to_string())
            }
            ApplyError::PortTaken { .. }
            | ApplyError::NoPortLeft
            | ApplyError::SubnetTaken { .. }
            | ApplyError::NoSubnetLeft
            | ApplyError::NoAddressLeft(_) => {
                Self::invalid(format!("rpc error: code = InvalidArgument desc = {error}"))
            }
            ApplyError::NodeRemoved(_) => Self::conflict(error.to_string()),
        }
    }
}

impl From<ApiError> for HttpError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NotInCluster
            | ApiError::NotManager
            | ApiError::AlreadyMember
            | ApiError::NoLeader(_)
            | ApiError::NotReady(_) => Self::unavailable(error.to_string()),
            ApiError::Refused(refused) => refused.into(),
            ApiError::Invalid(message) => Self::invalid(message),
            ApiError::Conflict(message) => Self::conflict(message),
            ApiError::Internal(message) => Self::internal(message),
        }
    }
}
