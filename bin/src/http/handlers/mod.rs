//! One function for each endpoint, grouped by noun.

pub(super) mod containers;
pub(super) mod events;
pub(super) mod later;
pub(super) mod names;
pub(super) mod networks;
pub(super) mod nodes;
pub(super) mod ports;
pub(super) mod prune;
pub(super) mod services;
pub(super) mod swarm;
pub(super) mod system;
pub(super) mod tasks;

use super::error::HttpError;

/// Of the objects that a word could mean, the one that it means: by its whole id, else its name, else a
/// prefix of its id that no other has.
fn pick<T>(
    kind: &str,
    wanted: &str,
    objects: impl Iterator<Item = T>,
    id: impl Fn(&T) -> String,
    is_named: impl Fn(&T) -> bool,
) -> Result<T, HttpError> {
    let missing = || HttpError::not_found(format!("{kind} {wanted} not found"));
    if wanted.is_empty() {
        return Err(missing());
    }
    let (mut named, mut prefixed) = (Vec::new(), Vec::new());
    for object in objects {
        let id = id(&object);
        if id == wanted {
            return Ok(object);
        }
        if is_named(&object) {
            named.push(object);
        } else if id.starts_with(wanted) {
            prefixed.push(object);
        }
    }
    let mut found = if named.is_empty() { prefixed } else { named };
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(missing()),
        (Some(_), more) => Err(HttpError::invalid(format!(
            "{kind} {wanted} is ambiguous ({} matches found): use the whole id",
            more + 1
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(wanted: &str) -> Result<&'static str, String> {
        let objects = [("abc1", "web"), ("abd2", "db"), ("ab", "twin"), ("x9", "twin"), ("db9", "cache")];
        pick("service", wanted, objects.into_iter(), |o| o.0.to_owned(), |o| o.1 == wanted)
            .map(|o| o.0)
            .map_err(|e| e.message)
    }

    #[test]
    fn an_object_is_found_by_id_then_name_then_prefix() {
        assert_eq!(picked("ab"), Ok("ab"));
        assert_eq!(picked("db"), Ok("abd2"));
        assert_eq!(picked("abc"), Ok("abc1"));
        assert_eq!(picked("db9"), Ok("db9"));
        assert_eq!(picked("nope"), Err("service nope not found".into()));
        assert!(picked("a").unwrap_err().contains("ambiguous (3 matches found)"));
        assert!(picked("twin").unwrap_err().contains("ambiguous (2 matches found)"));
        assert!(picked("").is_err());
    }
}
