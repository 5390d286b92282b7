//! Small steps on JSON objects, with paths such as `TaskTemplate/ContainerSpec/Image`.

use serde_json::{Map, Value};

/// The object at the path; made where it is missing (Docker writes `null` for empty objects).
pub(crate) fn object<'a>(root: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut at = root;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = make_object(at).entry(name).or_insert(Value::Null);
    }
    make_object(at)
}

fn make_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// Write a value.
pub(crate) fn put(root: &mut Value, path: &str, value: impl Into<Value>) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    object(root, parent).insert(name.to_owned(), value.into());
}

/// Write a value if there is one.
pub(crate) fn put_some<T: Into<Value>>(root: &mut Value, path: &str, value: Option<T>) {
    if let Some(value) = value {
        put(root, path, value);
    }
}

/// Change the list at the path; an empty list is not written.
pub(crate) fn edit_list(root: &mut Value, path: &str, edit: impl FnOnce(&mut Vec<Value>)) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let pointer = format!("/{path}");
    let mut list = root.pointer(&pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list.clone();
    edit(&mut list);
    if list == before {
        return;
    }
    if list.is_empty() {
        object(root, parent).remove(name);
    } else {
        put(root, path, list);
    }
}

/// Put pairs into the map at the path and take keys out of it; nothing is written where nothing is asked.
pub(crate) fn edit_map(root: &mut Value, path: &str, add: &[(String, String)], remove: &[String]) {
    if add.is_empty() && remove.is_empty() {
        return;
    }
    let map = object(root, path);
    for key in remove {
        map.remove(key);
    }
    for (key, value) in add {
        map.insert(key.clone(), Value::from(value.as_str()));
    }
}
