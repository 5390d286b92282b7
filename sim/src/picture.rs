//! A picture of a run around its failure: one HTML file that needs nothing else, with a lane for each host and
//! virtual time along them. `picture/` has the page; here is what goes into it.

mod header;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

pub use self::window::Window;
use crate::event::Event;

const PAGE: &str = include_str!("picture/page.html");
const STYLE: &str = include_str!("picture/page.css");
/// In the order in which they need each other.
const SCRIPTS: [&str; 9] = [
    include_str!("picture/model.js"),
    include_str!("picture/words.js"),
    include_str!("picture/layout.js"),
    include_str!("picture/scene.js"),
    include_str!("picture/messages.js"),
    include_str!("picture/map.js"),
    include_str!("picture/list.js"),
    include_str!("picture/legend.js"),
    include_str!("picture/page.js"),
];

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    from_us: u64,
    to_us: u64,
    lanes: Vec<usize>,
    events: Vec<&'a Event>,
}

/// The page that shows the events of a window, and what still held from before it. `options` are printed on top,
/// with the command that repeats the run: their field `command` if they have one, otherwise the one that follows
/// from `seed`, `profile` and `chaos`.
#[must_use]
pub fn draw(title: &str, options: &Value, hosts: usize, events: &[Event], window: Window) -> String {
    let shown = window.shown(events);
    let lanes = lanes(hosts, &shown);
    let facts = header::facts(options, window, shown.len());
    let data = Data { from_us: window.from_us, to_us: window.to_us, lanes, events: shown };
    filled(PAGE, |slot| match slot {
        "title" => escaped(title),
        "style" => STYLE.to_owned(),
        "facts" => facts.clone(),
        "command" => escaped(&header::command(options)),
        "options" => escaped(&format!("{options:#}")),
        "data" => embedded(&data),
        "script" => SCRIPTS.concat(),
        _ => String::new(),
    })
}

/// The lanes: every host of the run, and whoever else is named.
fn lanes(hosts: usize, events: &[&Event]) -> Vec<usize> {
    let named = events.iter().flat_map(|event| event.what.hosts());
    (1..=hosts).chain(named).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The template with every `{{slot}}` filled. What is filled in is not looked at again.
fn filled(template: &str, fill: impl Fn(&str) -> String) -> String {
    let mut pieces = template.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (slot, rest) = piece.split_once("}}").unwrap_or(("", piece));
        page.push_str(&fill(slot));
        page.push_str(rest);
    }
    page
}

/// Text for a place in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// JSON for a place in a `script` element, which nothing in it can end. The three signs stand in strings only.
fn embedded(data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
