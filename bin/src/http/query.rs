//! The part of an address behind `?`: parameters, Docker's booleans, Docker's filters.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::error::HttpError;

/// Parameters that a request may have at most.
const PARAMETERS_MAX: usize = 64;

/// Decoded parameters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Read a query string. Of a name said twice the first counts, as with Docker.
    ///
    /// # Errors
    /// 400 on malformed escapes or too many parameters.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, HttpError> {
        let mut found = BTreeMap::new();
        for (at, pair) in text.unwrap_or_default().split('&').filter(|p| !p.is_empty()).enumerate() {
            if at >= PARAMETERS_MAX {
                return Err(HttpError::invalid(format!("more than {PARAMETERS_MAX} query parameters")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (unescape(name, true)?, unescape(value, true)?);
            found.entry(name).or_insert(value);
        }
        Ok(Self(found))
    }

    /// A parameter's value; none if it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter as Docker reads booleans: set, unless empty, 0, no, none or false.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "none" | "false")
        })
    }

    /// The version of an object that an update relies on.
    ///
    /// # Errors
    /// 400 if it is missing or no number.
    pub(super) fn version(&self, of: &str) -> Result<u64, HttpError> {
        let text = self.get("version").unwrap_or_default();
        text.parse().map_err(|_| {
            HttpError::invalid(format!(
                "invalid {of} version '{text}': inspect the {of} and send its Version.Index as version="
            ))
        })
    }

    /// The filters, of which only `allowed` ones are taken.
    ///
    /// # Errors
    /// 400 on malformed JSON or a filter that is not known.
    pub(super) fn filters(&self, allowed: &[&str]) -> Result<Filters, HttpError> {
        let filters = Filters::parse(self.get("filters"))?;
        match filters.0.keys().find(|key| !allowed.contains(&key.as_str())) {
            Some(key) => Err(HttpError::invalid(format!(
                "invalid filter '{key}': the filters here are {}",
                allowed.iter().filter(|a| !a.starts_with('_')).copied().collect::<Vec<_>>().join(", ")
            ))),
            None => Ok(filters),
        }
    }
}

/// Docker's filters: for each name the values of which one must fit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Read filters in either of Docker's two forms, `{"name":["value"]}` and `{"name":{"value":true}}`.
    ///
    /// # Errors
    /// 400 if they are neither.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, HttpError> {
        let bad =
            || HttpError::invalid("invalid filters: a JSON object such as {\"name\":[\"value\"]} is wanted");
        let Some(text) = text else { return Ok(Self::default()) };
        let Value::Object(object) = serde_json::from_str(text).map_err(|_| bad())? else {
            return Err(bad());
        };
        let mut filters = BTreeMap::new();
        for (name, values) in object {
            let values: BTreeSet<String> = match values {
                Value::Array(items) => items
                    .into_iter()
                    .map(|item| item.as_str().map(str::to_owned).ok_or_else(bad))
                    .collect::<Result<_, _>>()?,
                Value::Object(items) => items
                    .into_iter()
                    .map(|(value, set)| Ok((value, set.as_bool().ok_or_else(bad)?)))
                    .filter_map(|item: Result<_, HttpError>| match item {
                        Ok((_, false)) => None,
                        Ok((value, true)) => Some(Ok(value)),
                        Err(error) => Some(Err(error)),
                    })
                    .collect::<Result<_, _>>()?,
                _ => return Err(bad()),
            };
            if !values.is_empty() {
                filters.insert(name, values);
            }
        }
        Ok(Self(filters))
    }

    /// The values of a filter.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Whether the filter was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether one of the filter's values fits, or the filter was not given.
    pub(super) fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.iter().any(|value| fits(value)))
    }

    /// Whether all of a filter's `key` or `key=value` are among the labels.
    pub(super) fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(name).all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|actual| actual == value),
            None => labels.contains_key(wanted),
        })
    }
}

/// Undo `%41` escapes, and `+` for a blank where that is usual.
///
/// # Errors
/// 400 on a broken escape or bytes that are not UTF-8.
pub(super) fn unescape(text: &str, plus: bool) -> Result<String, HttpError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if plus => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                    _ => return Err(HttpError::invalid("the address has a broken % escape")),
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| HttpError::invalid("the address is not valid UTF-8"))
}

/// Write a text as a part of an address.
pub(super) fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let each = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(each).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_filters_are_read() {
        for text in [r#"{"label":["a=b"],"id":["x"]}"#, r#"{"label":{"a=b":true},"id":{"x":true,"y":false}}"#]
        {
            let filters = Filters::parse(Some(text)).unwrap();
            assert_eq!(filters.values("label").collect::<Vec<_>>(), ["a=b"]);
            assert_eq!(filters.values("id").collect::<Vec<_>>(), ["x"]);
            assert!(!filters.any("id", |value| value == "y"));
            assert!(filters.any("name", |_| false));
        }
        for text in ["[]", "{", r#"{"a":1}"#, r#"{"a":[1]}"#, r#"{"a":{"b":1}}"#] {
            assert!(Filters::parse(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_filter_is_refused_by_name() {
        let query = Query::parse(Some("filters=%7B%22colour%22%3A%5B%22red%22%5D%7D")).unwrap();
        let message = query.filters(&["id", "_up-to-date"]).unwrap_err().message;
        assert_eq!(message, "invalid filter 'colour': the filters here are id");
    }

    #[test]
    fn booleans_are_dockers() {
        let query = Query::parse(Some("a=1&b=0&c=&d=false&e=True&f=None&g&h=no")).unwrap();
        let set: Vec<_> =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i"].into_iter().filter(|n| query.flag(n)).collect();
        assert_eq!(set, ["a", "e"]);
    }

    #[test]
    fn labels_match_by_key_or_by_pair() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let fits = |text: &str| Filters::parse(Some(text)).unwrap().labels("label", &labels);
        assert!(fits(r#"{"label":["a"]}"#) && fits(r#"{"label":["a=1"]}"#) && fits("{}"));
        assert!(!fits(r#"{"label":["a=2"]}"#) && !fits(r#"{"label":["a","b"]}"#));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String) {
            let _ = Query::parse(Some(&text));
            let _ = Filters::parse(Some(&text));
        }

        #[test]
        fn what_was_escaped_reads_back(text: String) {
            prop_assert_eq!(unescape(&escape(&text), true).unwrap(), text);
        }
    }
}
