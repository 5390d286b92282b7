//! Text that people and other nodes write: ids, constraints, join tokens, queries, a configuration file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::model::NodeId;
use shoal_core::model::constraint::Constraint;
use shoal_net::ca::JoinToken;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(constraint) = text.parse::<Constraint>() {
        assert_eq!(constraint.to_string().parse::<Constraint>().expect("reads back"), constraint);
    }
    let _ = text.parse::<JoinToken>();
    shoal::http::fuzzing::query(text);
    shoal::config::fuzz_file(text);
});
