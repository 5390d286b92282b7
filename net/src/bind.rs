//! Binds what somebody else may have.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bind, however long somebody else has it; tries are so far apart, at first and at most. `error` holds what `tell` says of
/// the last failure, which is tried again after the given time, and nothing once it is bound.
pub(crate) async fn patiently<T>(
    apart: (Duration, Duration),
    error: &Mutex<String>,
    bind: impl Fn() -> io::Result<T>,
    tell: impl Fn(&io::Error, Duration) -> String,
) -> T {
    let say = |words: String| *error.lock().unwrap_or_else(PoisonError::into_inner) = words;
    let mut delay = apart.0;
    loop {
        match bind() {
            Ok(bound) => {
                say(String::new());
                return bound;
            }
            Err(cause) => say(tell(&cause, delay)),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(apart.1);
    }
}
