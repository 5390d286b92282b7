//! JSON in: what is unknown is refused by its path, what has the wrong type too.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::HttpError;
use super::fold::Folded;

/// Unknown fields that are named at most in one error.
const UNKNOWN_NAMED_MAX: usize = 8;

/// Decode a body. `root` is the name of the whole in errors (`Spec`), or empty.
///
/// # Errors
/// 400 that names the field.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], root: &str) -> Result<T, HttpError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(HttpError::invalid("the request has no body: a JSON object is wanted"));
    }
    let whole: Value = serde_json::from_slice(bytes)
        .map_err(|error| HttpError::invalid(format!("the body is not valid JSON: {error}")))?;
    let mut track = serde_path_to_error::Track::new();
    let mut unknown = Vec::new();
    let tracked = serde_path_to_error::Deserializer::new(Folded(whole), &mut track);
    let decoded: Result<T, _> = serde_ignored::deserialize(tracked, |path| {
        if unknown.len() < UNKNOWN_NAMED_MAX {
            unknown.push(join(root, &tidy(&path.to_string())));
        }
    });
    let value = decoded.map_err(|error| {
        let path = track.path().to_string();
        match join(root, if path == "." { "" } else { &path }) {
            place if place.is_empty() => HttpError::invalid(format!("the body does not fit: {error}")),
            place => HttpError::field(&place, error.to_string()),
        }
    })?;
    match unknown.as_slice() {
        [] => Ok(value),
        [one] => Err(HttpError::invalid(format!("unknown field {one}"))),
        several => Err(HttpError::invalid(format!("unknown fields {}", several.join(", ")))),
    }
}

/// A path without the marks that the tracker puts where an `Option` was entered.
fn tidy(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
}

fn join(root: &str, path: &str) -> String {
    match (root.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (false, true) => root.to_owned(),
        (false, false) => format!("{root}.{path}"),
    }
}

/// Whether a value says nothing: null, false, zero, empty, or made of such alone.
pub(super) fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_neutral),
        Value::Object(fields) => fields.values().all(is_neutral),
    }
}

/// Refuse what is known and not supported, unless it says nothing.
///
/// # Errors
/// 400 that names the field and the remedy.
pub(super) fn refuse(path: &str, value: Option<&Value>, remedy: &str) -> Result<(), HttpError> {
    match value {
        Some(value) if !is_neutral(value) => Err(HttpError::field(path, remedy)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        count: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        inner: Option<Inner>,
        list: Option<Vec<Inner>>,
    }

    fn fails(text: &str) -> String {
        decode::<Outer>(text.as_bytes(), "Spec").expect_err(text).message
    }

    #[test]
    fn an_unknown_field_is_named_by_its_path() {
        assert_eq!(fails(r#"{"Inner":{"Foo":1}}"#), "unknown field Spec.Inner.Foo");
        assert_eq!(fails(r#"{"List":[{},{"Foo":null}]}"#), "unknown field Spec.List.1.Foo");
        assert_eq!(fails(r#"{"A":1,"B":{"C":1}}"#), "unknown fields Spec.A, Spec.B");
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let message = fails(r#"{"Inner":{"Count":"three"}}"#);
        assert!(message.starts_with("Spec.Inner.Count: "), "{message}");
        let message = fails(r#"{"Inner":{"Labels":{"a":1}}}"#);
        assert!(message.starts_with("Spec.Inner.Labels.a: "), "{message}");
    }

    #[test]
    fn field_names_are_taken_in_any_case_as_go_takes_them() {
        let read = decode::<Outer>(br#"{"inner":{"COUNT":1,"Labels":{"Key":"v","key":"w"}}}"#, "").unwrap();
        let inner = read.inner.unwrap();
        assert_eq!((inner.count, inner.labels.unwrap().len()), (Some(1), 2));
        assert_eq!(fails(r#"{"Inner":{"Count":1,"count":2}}"#), "unknown field Spec.Inner.count");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", " ", "{", "[]", "{} {}", "nul"] {
            assert!(decode::<Outer>(text.as_bytes(), "").is_err(), "{text}");
        }
        assert!(decode::<Outer>("[".repeat(100_000).as_bytes(), "").is_err());
    }

    #[test]
    fn neutral_values_say_nothing() {
        for text in ["null", "false", "0", "0.0", r#""""#, "[]", "{}", r#"{"A":null,"B":[{"C":""}]}"#] {
            assert!(is_neutral(&serde_json::from_str(text).unwrap()), "{text}");
        }
        for text in ["true", "-1", r#""x""#, "[1]", r#"{"A":{"B":"x"}}"#] {
            assert!(!is_neutral(&serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode::<Outer>(&bytes, "Spec");
        }
    }
}
