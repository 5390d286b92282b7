//! Waiting for something to become true, never for ever.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Ask until there is an answer; the time it took comes with it.
///
/// # Errors
/// No answer within `limit`: the message names what was waited for and the last thing seen instead.
pub fn until<T>(
    what: &str,
    limit: Duration,
    every: Duration,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let begun = Instant::now();
    loop {
        let seen = match ask() {
            Ok(answer) => return Ok((answer, begun.elapsed())),
            Err(seen) => seen,
        };
        if begun.elapsed() >= limit {
            bail!("waited {limit:?} for {what}; last seen: {seen:#}");
        }
        thread::sleep(every);
    }
}

/// An `Ok` where `condition` holds, else an error that says what was seen; for [`until`].
///
/// # Errors
/// The condition does not hold.
pub fn seen(condition: bool, what: impl FnOnce() -> String) -> Result<()> {
    if condition {
        return Ok(());
    }
    bail!(what())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_last_thing_seen() {
        let mut asked = 0;
        let failure =
            until("the moon", Duration::from_millis(20), Duration::from_millis(5), || -> Result<()> {
                asked += 1;
                bail!("clouds {asked}")
            })
            .unwrap_err()
            .to_string();
        assert!(failure.contains("the moon") && failure.contains(&format!("clouds {asked}")), "{failure}");
    }

    #[test]
    fn answer_ends_the_wait() {
        let mut asked = 0;
        let (answer, _) = until("three", Duration::from_secs(5), Duration::from_millis(1), || {
            asked += 1;
            seen(asked == 3, || format!("{asked}"))?;
            Ok(asked)
        })
        .unwrap();
        assert_eq!(answer, 3);
    }
}
