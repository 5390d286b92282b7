//! What a metrics page says, and whether every name on it is described.

use std::collections::{BTreeMap, BTreeSet};

/// Endings that a family's samples may add to its name.
const SUFFIXES: [&str; 6] = ["_total", "_created", "_bucket", "_count", "_sum", "_info"];

/// A metrics page.
#[derive(Debug, Default)]
pub struct Page {
    /// Text of each family.
    pub help: BTreeMap<String, String>,
    /// Type of each family.
    pub kind: BTreeMap<String, String>,
    /// Each sample: its name, its labels as written, its value.
    pub samples: Vec<(String, String, f64)>,
}

impl Page {
    /// Read one.
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                page.help.insert(name.to_owned(), help.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                page.kind.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                page.samples.extend(sample(line));
            }
        }
        page
    }

    /// Names of samples whose family has no text or no type.
    pub fn undescribed(&self) -> BTreeSet<String> {
        let described = |name: &str| {
            let has = |map: &BTreeMap<String, String>, name: &str| {
                map.get(name).is_some_and(|text| !text.is_empty())
            };
            has(&self.help, name) && has(&self.kind, name)
        };
        self.samples
            .iter()
            .map(|(name, _, _)| name)
            .filter(|name| {
                let family = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
                !described(name) && !family.is_some_and(described)
            })
            .cloned()
            .collect()
    }

    /// Sum of all samples with a name.
    pub fn sum(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> =
            self.samples.iter().filter(|(n, _, _)| n == name).map(|(_, _, v)| *v).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

fn sample(line: &str) -> Option<(String, String, f64)> {
    let (head, tail) = match line.find('{') {
        Some(open) => {
            let close = line.rfind('}')?;
            ((line.get(..open)?, line.get(open..=close)?), line.get(close + 1..)?)
        }
        None => {
            let space = line.find(' ')?;
            ((line.get(..space)?, ""), line.get(space..)?)
        }
    };
    let value = tail.split_whitespace().next()?.parse().ok()?;
    Some((head.0.to_owned(), head.1.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_of_a_family_without_text_is_named() {
        let page = Page::parse(
            "# HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"+Inf\"} 3\na_seconds_sum 1.5\n\
             # TYPE b counter\nb_total{x=\"{}\"} 2\nb_total 1\n# EOF\n",
        );
        assert_eq!(page.undescribed().into_iter().collect::<Vec<_>>(), ["b_total"]);
        assert_eq!(page.sum("b_total"), Some(3.0));
        assert_eq!(page.sum("c"), None);
    }
}
