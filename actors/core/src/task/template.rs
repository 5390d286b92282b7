//! Expands `{{.Task.Slot}}` and its kind in the environment, host name and mounts of a task. Only the names that Docker
//! documents are known; anything else is refused by name, never passed on as text.

use std::collections::BTreeMap;

use crate::model::{ContainerSpec, NodeId, Slot, Task};

/// Most bytes that an expanded value may have.
pub const TEMPLATE_BYTES_MAX: usize = 64 << 10;

/// A template cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not one of the names that exist.
    #[error("template: unknown placeholder {{{{{0}}}}}")]
    Unknown(String),
    /// `{{` without `}}`.
    #[error("template: a placeholder is not closed in {0:?}")]
    Unclosed(String),
    /// The value is longer than [`TEMPLATE_BYTES_MAX`].
    #[error("template: the value is longer than {TEMPLATE_BYTES_MAX} bytes")]
    TooLong,
}

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Expansion<'a> {
    task: &'a Task,
    node_id: NodeId,
    hostname: &'a str,
    service_labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Expansion<'a> {
    /// For a task on a node with that host name.
    #[must_use]
    pub fn new(task: &'a Task, node_id: NodeId, hostname: &'a str) -> Self {
        Self { task, node_id, hostname, service_labels: None }
    }

    /// With the labels of its service, for `{{.Service.Labels.x}}`.
    #[must_use]
    pub fn with_service_labels(self, labels: &'a BTreeMap<String, String>) -> Self {
        Self { service_labels: Some(labels), ..self }
    }

    /// The task's container with everything expanded that may hold a template.
    ///
    /// # Errors
    /// If a template is unknown, unclosed or too long.
    pub fn container(&self) -> Result<ContainerSpec, TemplateError> {
        let mut spec = self.task.spec.container.clone();
        spec.hostname = self.expand(&spec.hostname)?;
        for line in &mut spec.env {
            *line = self.expand(line)?;
        }
        for mount in &mut spec.mounts {
            mount.source = self.expand(&mount.source)?;
            mount.target = self.expand(&mount.target)?;
        }
        Ok(spec)
    }

    /// One value.
    ///
    /// # Errors
    /// If it holds a template that is unknown or unclosed, or becomes too long.
    pub fn expand(&self, text: &str) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let (before, tail) = rest.split_at(start);
            let end = tail.find("}}").ok_or_else(|| TemplateError::Unclosed(clip(text)))?;
            out.push_str(before);
            out.push_str(&self.value(&tail[2..end])?);
            if out.len() > TEMPLATE_BYTES_MAX {
                return Err(TemplateError::TooLong);
            }
            rest = &tail[end + 2..];
        }
        if out.len() + rest.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, placeholder: &str) -> Result<String, TemplateError> {
        let unknown = || TemplateError::Unknown(clip(placeholder));
        // Go lets `{{-` and `-}}` eat blanks around; the trimming of the outside is not offered.
        let name = placeholder.trim();
        Ok(match name {
            ".Service.ID" => self.task.service_id.to_string(),
            ".Service.Name" => self.task.service_name.to_string(),
            ".Node.ID" => self.node_id.to_string(),
            ".Node.Hostname" => self.hostname.to_string(),
            ".Task.ID" => self.task.id.to_string(),
            ".Task.Name" => self.task.name(),
            ".Task.Slot" => match self.task.slot {
                Slot::Replica(number) => number.to_string(),
                Slot::Node(node) => node.to_string(),
            },
            _ => {
                let key = label_key(name).ok_or_else(unknown)?;
                self.service_labels.and_then(|labels| labels.get(key)).ok_or_else(unknown)?.clone()
            }
        })
    }
}

/// `.Service.Labels.x` or, for keys with dots and dashes, `index .Service.Labels "x.y"`.
fn label_key(name: &str) -> Option<&str> {
    if let Some(key) = name.strip_prefix(".Service.Labels.") {
        return (!key.is_empty()).then_some(key);
    }
    let key = name.strip_prefix("index")?.trim_start().strip_prefix(".Service.Labels")?.trim();
    key.strip_prefix('"')?.strip_suffix('"').filter(|key| !key.contains('"'))
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fsm::tests::task;
    use super::*;
    use crate::model::NodeId;

    #[test]
    fn every_documented_placeholder_is_expanded() {
        let task = task();
        let labels = BTreeMap::from([("tier".to_string(), "front".to_string()), ("a.b".into(), "c".into())]);
        let node = NodeId::from_u128(5);
        let expansion = Expansion::new(&task, node, "host").with_service_labels(&labels);
        let expand = |text: &str| expansion.expand(text).unwrap();
        assert_eq!(expand("{{.Service.ID}}"), task.service_id.to_string());
        assert_eq!(expand("a{{ .Service.Name }}b{{.Task.Slot}}"), "awebb1");
        assert_eq!(expand("{{.Service.Labels.tier}}{{index .Service.Labels \"a.b\"}}"), "frontc");
        assert_eq!(expand("{{.Node.ID}}/{{.Node.Hostname}}"), format!("{node}/host"));
        assert_eq!(expand("{{.Task.ID}}"), task.id.to_string());
        assert_eq!(expand("{{.Task.Name}}"), task.name());
    }

    #[test]
    fn the_slot_of_a_global_task_is_its_node() {
        let node = NodeId::from_u128(5);
        let task = Task { slot: Slot::Node(node), ..task() };
        assert_eq!(Expansion::new(&task, node, "h").expand("{{.Task.Slot}}").unwrap(), node.to_string());
    }

    #[test]
    fn unknown_placeholders_are_refused_by_name() {
        let task = task();
        let expansion = Expansion::new(&task, NodeId::default(), "h");
        let error = expansion.expand("x{{.Task.Color}}").unwrap_err();
        assert_eq!(error.to_string(), "template: unknown placeholder {{.Task.Color}}");
        assert!(expansion.expand("{{.Service.Labels.none}}").is_err());
        assert!(matches!(expansion.expand("{{.Task.ID"), Err(TemplateError::Unclosed(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_plain_text_stays(text in ".{0,80}") {
            let task = task();
            let expansion = Expansion::new(&task, NodeId::default(), "h");
            let expanded = expansion.expand(&text);
            if !text.contains("{{") {
                prop_assert_eq!(expanded.unwrap(), text);
            }
        }
    }
}
