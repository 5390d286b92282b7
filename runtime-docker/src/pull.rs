//! Fetches an image that is not there.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{BollardRequest, Docker};
use futures_util::StreamExt;
use shoal_core::model::RegistryAuth;
use shoal_core::task::{ControllerError, Progress};

use crate::call::Failure;

/// A registry may be slow, but not silent for longer.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Layers that are followed.
const LAYERS_MAX: usize = 512;

/// Why a pull failed: the engine's or the registry's words, or nobody there to do it.
pub(crate) enum PullError {
    Refused(String),
    Unavailable(ControllerError),
}

/// Pull an image; tells how many layers are there.
pub(crate) async fn pull(
    docker: &Docker,
    image: &str,
    auth: Option<&RegistryAuth>,
    progress: &Progress,
) -> Result<(), PullError> {
    progress(format!("pulling {image}"));
    let docker = match auth {
        Some(auth) => with_auth(docker.clone(), auth)?,
        None => docker.clone(),
    };
    let (name, tag) = split_reference(image);
    let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
    let mut lines = std::pin::pin!(docker.create_image(Some(options), None, None));
    let mut layers = Layers::default();
    loop {
        let line = match tokio::time::timeout(SILENCE_MAX, lines.next()).await {
            Ok(Some(Ok(line))) => line,
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(sort(Failure::Engine(error))),
            Err(_) => return Err(sort(Failure::TimeOut(SILENCE_MAX))),
        };
        if let Some((done, all)) = layers.take(&line) {
            progress(format!("pulling {image}: {done} of {all} layers"));
        }
    }
}

fn sort(failure: Failure) -> PullError {
    use bollard::errors::Error;
    let answered = failure.status().is_some_and(|status| !matches!(status, 502..=504))
        || matches!(failure, Failure::Engine(Error::DockerStreamError { .. }));
    if answered { PullError::Refused(failure.words()) } else { PullError::Unavailable(failure.unavailable()) }
}

/// The credentials go out in the very form in which the client sent them: the engine reads URL-safe base64, which the
/// client library would not produce.
fn with_auth(docker: Docker, auth: &RegistryAuth) -> Result<Docker, PullError> {
    let mut value = bollard_header(&auth.0.0)
        .ok_or_else(|| PullError::Refused("the registry credentials are not a header value".into()))?;
    value.set_sensitive(true);
    Ok(docker.with_request_modifier(move |mut request: BollardRequest| {
        request.headers_mut().insert("x-registry-auth", value.clone());
        request
    }))
}

fn bollard_header(bytes: &[u8]) -> Option<http::HeaderValue> {
    http::HeaderValue::from_bytes(bytes).ok()
}

/// Name, and tag or digest; `latest` if neither is said, since the engine would fetch all tags.
fn split_reference(image: &str) -> (&str, &str) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    (name, digest.or(tag).unwrap_or("latest"))
}

/// Which layers were named, and which of them are there.
#[derive(Default)]
struct Layers(BTreeMap<String, bool>);

impl Layers {
    /// Done and all, if that changed.
    fn take(&mut self, line: &CreateImageInfo) -> Option<(usize, usize)> {
        let (id, status) = (line.id.as_deref()?, line.status.as_deref()?);
        if status.starts_with("Pulling from") || self.0.len() >= LAYERS_MAX {
            return None;
        }
        let done = matches!(status, "Pull complete" | "Already exists");
        if self.0.insert(id.to_string(), done) == Some(done) {
            return None;
        }
        Some((self.0.values().filter(|done| **done).count(), self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_split_into_name_and_tag_or_digest() {
        for (image, name, tag) in [
            ("busybox", "busybox", "latest"),
            ("busybox:1", "busybox", "1"),
            ("host:5000/a/b", "host:5000/a/b", "latest"),
            ("host:5000/a/b:2", "host:5000/a/b", "2"),
            ("a/b@sha256:ff", "a/b", "sha256:ff"),
            ("host:5000/b:2@sha256:ff", "host:5000/b", "sha256:ff"),
        ] {
            assert_eq!(split_reference(image), (name, tag), "{image}");
        }
    }

    #[test]
    fn progress_counts_layers() {
        let mut layers = Layers::default();
        let mut take = |id: &str, status: &str| {
            layers.take(&CreateImageInfo {
                id: Some(id.into()),
                status: Some(status.into()),
                ..CreateImageInfo::default()
            })
        };
        assert_eq!(take("latest", "Pulling from library/busybox"), None);
        assert_eq!(take("a", "Pulling fs layer"), Some((0, 1)));
        assert_eq!(take("b", "Already exists"), Some((1, 2)));
        assert_eq!(take("a", "Downloading"), None);
        assert_eq!(take("a", "Pull complete"), Some((2, 2)));
    }
}
