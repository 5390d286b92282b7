mod sample;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::event::What;

const ALL: Window = Window { from_us: 0, to_us: u64::MAX };

fn event(at_us: u64, what: What) -> Event {
    Event { at_us, what }
}

fn note(at_us: u64, text: &str) -> Event {
    event(at_us, What::Note { host: None, text: text.to_owned() })
}

fn message(at_us: u64, arrived_us: Option<u64>) -> Event {
    event(
        at_us,
        What::Message { from: 1, to: 2, label: "RaftAppend".to_owned(), bytes: 9, digest: 0, arrived_us },
    )
}

fn task(at_us: u64, task: &str, step: &str) -> Event {
    event(at_us, What::Task { host: 1, task: task.to_owned(), step: step.to_owned() })
}

/// What the page's script will read.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn drawn(events: &[Event], window: Window) -> Vec<Event> {
    let page = draw("a run", &json!({ "seed": 7 }), 3, events, window);
    serde_json::from_value(data(&page)["events"].clone()).unwrap()
}

#[test]
fn nothing_that_happened_can_leave_its_place_in_the_page() {
    let evil = "</script><script>alert('1 & \"2\"')</script><!--{{data}}";
    let options = json!({ "seed": 7, "profile": evil, "more": [evil] });
    let page = draw(evil, &options, 1, &[note(1, evil)], ALL);
    assert_eq!(page.matches("<script").count(), 2, "the data and the program");
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!page.contains("<!--"));
    assert!(page.contains("<title>&lt;/script&gt;&lt;script&gt;alert(&#39;1 &amp; &quot;2&quot;&#39;)"));
    assert_eq!(data(&page)["events"][0]["what"]["text"], evil);
}

#[test]
fn the_page_asks_nobody_for_anything() {
    let page = draw("a run", &json!({}), 3, &sample::events(), ALL);
    for word in ["http:", "https:", "src=", "@import", "url(", "fetch(", "{{"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn the_events_in_the_page_are_those_that_happened() {
    let mut events = sample::events();
    let page = draw("a run", &json!({}), 5, &events, ALL);
    let read: Vec<Event> = serde_json::from_value(data(&page)["events"].clone()).unwrap();
    events.sort_by_key(|event| event.at_us);
    assert_eq!(read, events);
}

#[test]
fn a_lost_message_is_in_the_page_as_one_that_never_arrives() {
    let events = [message(5, Some(9)), message(6, None)];
    let page = draw("a run", &json!({}), 2, &events, ALL);
    assert_eq!(data(&page)["events"][0]["what"]["arrived_us"], 9);
    assert_eq!(data(&page)["events"][1]["what"]["arrived_us"], Value::Null);
}

#[test]
fn every_host_has_a_lane_and_so_has_one_that_is_only_named() {
    let held = event(1, What::Held { host: 7, held: true });
    let fault = event(2, What::Fault { id: 1, text: String::new(), hosts: vec![2, 9] });
    let page = draw("a run", &json!({}), 3, &[held, fault], ALL);
    assert_eq!(data(&page)["lanes"], json!([1, 2, 3, 7, 9]));
}

#[test]
fn only_the_window_is_shown() {
    let events: Vec<_> = (0..10).map(|at| note(at, "")).collect();
    let shown = drawn(&events, Window { from_us: 3, to_us: 6 });
    assert_eq!(shown, events[3..=6]);
}

#[test]
fn what_began_before_the_window_and_still_holds_is_shown() {
    let fault = |at, id| event(at, What::Fault { id, text: String::new(), hosts: vec![] });
    let events = [
        event(1, What::Up { host: 1 }),
        event(1, What::Up { host: 2 }),
        event(2, What::Leads { host: 1, term: 1 }),
        fault(3, 1),
        fault(3, 2),
        event(4, What::Mended { id: 1 }),
        task(4, "gone", "started"),
        task(5, "here", "started"),
        task(6, "gone", "removed"),
        message(7, Some(8)),
        message(7, Some(12)),
        event(8, What::Down { host: 2, killed: true }),
        note(11, ""),
    ];
    let shown = drawn(&events, Window { from_us: 10, to_us: 20 });
    assert_eq!(shown, [0, 2, 4, 7, 10, 11, 12].map(|at| events[at].clone()));
}

#[test]
fn the_window_is_around_what_broke() {
    let second = Duration::from_secs(1);
    let broken = event(5_000_000, What::Broken { judge: String::new(), text: String::new() });
    let events = [note(0, ""), broken, message(8_000_000, Some(9_000_000))];
    let around = |at, before, after| {
        let window = Window::around(&events, at, second * before, second * after);
        (window.from_us / 1_000_000, window.to_us / 1_000_000)
    };
    assert_eq!(around(None, 2, 1), (3, 6), "the first judge's word");
    assert_eq!(around(Some(7_000_000), 2, 1), (5, 8), "as told");
    assert_eq!(around(None, 60, 60), (0, 9), "no longer than the run");
    let quiet = Window::around(&events[2..], None, second, second);
    assert_eq!(quiet, Window { from_us: 8_000_000, to_us: 9_000_000 }, "nothing broke: the end");
}

#[test]
fn the_command_repeats_the_run() {
    let options = json!({ "seed": u64::MAX, "profile": "lossy", "chaos": { "secs": 60, "nanos": 0 } });
    let command = header::command(&options);
    assert!(command.ends_with(" run --seed 18446744073709551615 --profile lossy --seconds 60"), "{command}");
    assert_eq!(header::command(&json!({ "seed": 7, "command": "sim again" })), "sim again");
}

#[test]
fn the_facts_are_the_short_options_with_the_seed_first() {
    let options =
        json!({ "chaos": { "secs": 2, "nanos": 500_000_000 }, "weights": { "kill": 1 }, "seed": 7 });
    let facts = header::facts(&options, Window { from_us: 1_500_000, to_us: 2_000_000 }, 3);
    let fact = |name, value| format!("<span class=\"fact\"><i>{name}</i> {value}</span>");
    let wanted = [("seed", "7"), ("chaos", "2.5 s"), ("window", "1.5 to 2 s"), ("events", "3")]
        .map(|(n, v)| fact(n, v));
    assert_eq!(facts, wanted.concat());
}

#[test]
#[ignore = "writes a page to look at into the folder for temporary files"]
fn a_sample_to_look_at() {
    let options = json!({ "seed": 4711, "profile": "everything", "hosts": 5, "managers": 3, "chaos": { "secs": 60, "nanos": 0 } });
    let page =
        draw("seed 4711: BROKEN", &options, 5, &sample::events(), Window { from_us: 0, to_us: 60_000_000 });
    let file = std::env::temp_dir().join("shoal-picture.html");
    std::fs::write(&file, page).unwrap();
    println!("{}", file.display());
}
