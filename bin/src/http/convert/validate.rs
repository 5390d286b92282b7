//! Checks of names and the like.

use shoal_core::model::Availability;

use super::super::error::HttpError;
use super::{word, word_of};

/// Characters that a service's name may have: it becomes a host name.
const NAME_LEN_MAX: usize = 63;
/// Characters that a DNS name may have.
const DNS_NAME_LEN_MAX: usize = 253;
/// Characters that a network's name may have.
const NETWORK_NAME_LEN_MAX: usize = 128;
/// Names that mean an engine's own networks to its clients.
const NETWORK_NAMES_OF_ENGINES: [&str; 5] = ["bridge", "host", "none", "ingress", "docker_gwbridge"];
/// Characters that an image reference may have.
const IMAGE_LEN_MAX: usize = 4096;

const AVAILABILITIES: [(&str, Availability); 3] =
    [("active", Availability::Active), ("pause", Availability::Pause), ("drain", Availability::Drain)];

/// A node's availability; active if nothing is said.
pub(in crate::http) fn availability(path: &str, value: Option<&str>) -> Result<Availability, HttpError> {
    word(path, value, &AVAILABILITIES)
}

/// The word for an availability.
pub(super) fn availability_word(value: Availability) -> Option<String> {
    word_of(value, &AVAILABILITIES)
}

/// A service's name.
pub(super) fn name(path: &str, name: &str) -> Result<(), HttpError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !(inside && edge(name.chars().next()) && edge(name.chars().next_back())) {
        return Err(HttpError::field(
            path,
            format!(
                "{name:?} is no valid name: letters and digits are wanted, with - _ . only between them, since \
                 it becomes a DNS name"
            ),
        ));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(HttpError::field(path, format!("the name must be {NAME_LEN_MAX} characters or fewer")));
    }
    Ok(())
}

/// A network's name.
pub(super) fn network_name(path: &str, name: &str) -> Result<(), HttpError> {
    let inside = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !(inside && name.starts_with(|c: char| c.is_ascii_alphanumeric())) {
        return Err(HttpError::field(
            path,
            format!(
                "{name:?} is no valid name: letters, digits and - _ . are wanted, a letter or digit first"
            ),
        ));
    }
    if name.len() > NETWORK_NAME_LEN_MAX {
        let problem = format!("the name must be {NETWORK_NAME_LEN_MAX} characters or fewer");
        return Err(HttpError::field(path, problem));
    }
    if NETWORK_NAMES_OF_ENGINES.contains(&name) {
        let problem = format!("{name:?} is the name of a network that engines have: choose another");
        return Err(HttpError::field(path, problem));
    }
    Ok(())
}

/// A further name of a service in a network.
pub(super) fn alias(path: &str, alias: &str) -> Result<(), HttpError> {
    let inside = alias.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let labels = || alias.split('.').all(|label| (1..=63).contains(&label.len()));
    if !(inside && labels() && alias.len() <= DNS_NAME_LEN_MAX) {
        let problem =
            format!("{alias:?} is no DNS name: letters, digits and - _ are wanted, in parts with . between");
        return Err(HttpError::field(path, problem));
    }
    Ok(())
}

/// An image reference, as far as its form tells.
pub(super) fn image(path: &str, image: &str) -> Result<(), HttpError> {
    if image.is_empty() {
        return Err(HttpError::field(path, "image reference must be provided"));
    }
    let bad =
        |why: &str| Err(HttpError::field(path, format!("{image:?} is not a valid repository/tag: {why}")));
    if image.len() > IMAGE_LEN_MAX {
        return Err(HttpError::field(path, format!("longer than {IMAGE_LEN_MAX} characters")));
    }
    if !image.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@+[]".contains(c)) {
        return bad("letters, digits and - _ . / : @ are wanted");
    }
    if !image.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
        return bad("it must begin with a letter or digit");
    }
    let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    if digest.is_some_and(|d| d.split_once(':').is_none_or(|(a, hex)| a.is_empty() || hex.len() < 32)) {
        return bad("behind @ a digest such as sha256:… is wanted");
    }
    let (domain, path_and_tag) = match rest.split_once('/') {
        Some((first, tail)) if first.contains(['.', ':', '[']) || first == "localhost" => (Some(first), tail),
        _ => (None, rest),
    };
    let (name, tag) = path_and_tag.split_once(':').map_or((path_and_tag, None), |(n, t)| (n, Some(t)));
    if domain == Some("") || name.is_empty() || name.split('/').any(str::is_empty) {
        return bad("a name is missing");
    }
    if name.chars().any(|c| c.is_ascii_uppercase()) {
        return bad("the repository must be in lower case");
    }
    if tag.is_some_and(|t| t.is_empty() || t.len() > 128 || t.contains(['/', ':'])) {
        return bad("behind : a tag is wanted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_services_are_checked() {
        for good in ["web", "a", "my-web_1.x", "0", &"a".repeat(63)] {
            assert!(name("Spec.Name", good).is_ok(), "{good}");
        }
        for bad in ["-web", "web-", "we b", "wéb", "a/b", &"a".repeat(64)] {
            let error = name("Spec.Name", bad).unwrap_err().message;
            assert!(error.starts_with("Spec.Name: "), "{error}");
        }
    }

    #[test]
    fn names_of_networks_are_checked() {
        for good in ["web", "a", "0-_.", "my-net_1.x-", &"a".repeat(128)] {
            assert!(network_name("Name", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-net",
            ".net",
            "a b",
            "é",
            "a/b",
            "bridge",
            "host",
            "none",
            "ingress",
            "docker_gwbridge",
            &"a".repeat(129),
        ] {
            let error = network_name("Name", bad).unwrap_err().message;
            assert!(error.starts_with("Name: "), "{error}");
        }
    }

    #[test]
    fn image_references_are_checked() {
        for good in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "r.example:5000/a/b_c:t",
            "localhost/x",
            "a@sha256:0123456789012345678901234567890123456789012345678901234567890123",
            "Registry.example:80/a",
        ] {
            assert!(image("Image", good).is_ok(), "{good}");
        }
        for bad in ["", " ", "Nginx", "a:", "a b", "a//b", "-a", "a@sha256", "a@sha256:12", "a:b:c", "é"] {
            assert!(image("Image", bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn checks_never_panic(text: String) {
            let _ = name("x", &text);
            let _ = image("x", &text);
            let _ = network_name("x", &text);
            let _ = availability("x", Some(&text));
        }
    }
}
