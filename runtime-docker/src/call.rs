//! Bounds each call to the engine in time, and tells whose fault a failure is.

use std::time::Duration;

use bollard::errors::Error;
use shoal_core::model::TaskId;
use shoal_core::task::ControllerError;

/// Looking at a container.
pub(crate) const LOOK_TIME_MAX: Duration = Duration::from_secs(10);
/// Making, starting or removing one, which a busy engine takes long for.
pub(crate) const CHANGE_TIME_MAX: Duration = Duration::from_secs(120);

/// Most characters of the engine's words that are passed on.
const WORDS_MAX: usize = 1024;

/// What the engine says with a 5xx while it starts, stops or has lost containerd. Everything else that it answers to a
/// create or a start with 500 (a port that is taken, a program that is not there) is about the container.
const PASSING: [&str; 11] = [
    "shutting down",
    "context canceled",
    "context deadline exceeded",
    "connection refused",
    "connection reset",
    "transport is closing",
    "code = unavailable",
    "containerd.sock",
    "grpc: the client connection is closing",
    "eof",
    "daemon is not running",
];

/// A call within its time.
pub(crate) async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(time, call).await {
        Ok(result) => result.map_err(Failure::Engine),
        Err(_) => Err(Failure::TimeOut(time)),
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(Error),
    TimeOut(Duration),
}

impl Failure {
    /// The HTTP status, if the engine answered.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Engine(Error::DockerResponseServerError { status_code, .. }) => Some(*status_code),
            _ => None,
        }
    }

    /// In words.
    pub(crate) fn words(&self) -> String {
        let words = match self {
            Self::Engine(Error::DockerResponseServerError { message, .. }) => message.trim().to_string(),
            Self::Engine(Error::DockerStreamError { error }) => error.trim().to_string(),
            Self::Engine(error) => with_causes(error),
            Self::TimeOut(time) => format!("no answer within {} s", time.as_secs()),
        };
        words.chars().take(WORDS_MAX).collect()
    }

    /// Of a call that makes or starts a container.
    pub(crate) fn of_change(self, task: TaskId) -> ControllerError {
        let words = self.words();
        match self.status() {
            Some(404) => ControllerError::NotFound(task),
            Some(status) if status < 500 => ControllerError::Task(words),
            Some(500) if !passing(&words) => ControllerError::Task(words),
            _ => ControllerError::Unavailable(words),
        }
    }

    /// Of a call that looks at, stops or removes a container: never the task's fault, but for a request that is wrong.
    pub(crate) fn of_look(self, task: TaskId) -> ControllerError {
        match self.status() {
            Some(404) => ControllerError::NotFound(task),
            Some(400) => ControllerError::Task(self.words()),
            _ => ControllerError::Unavailable(self.words()),
        }
    }

    /// Of a call about no task in particular.
    pub(crate) fn unavailable(self) -> ControllerError {
        ControllerError::Unavailable(self.words())
    }
}

fn passing(words: &str) -> bool {
    let words = words.to_lowercase();
    PASSING.iter().any(|sign| words.contains(sign))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    for _ in 0..4 {
        let Some(inner) = cause else { break };
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words.push_str(": ");
            words.push_str(&inner_words);
        }
        cause = inner.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Failure {
        Failure::Engine(Error::DockerResponseServerError { status_code, message: message.into() })
    }

    #[test]
    fn an_engine_that_answers_blames_the_task_and_one_that_restarts_does_not() {
        let task = TaskId::from_u128(1);
        let blamed = [(400, "bad mount"), (409, "conflict"), (500, "port is already allocated")];
        for (status, words) in blamed {
            assert_eq!(answer(status, words).of_change(task), ControllerError::Task(words.into()));
        }
        let forgiven =
            [(500, "rpc error: code = Unavailable desc = transport is closing"), (503, "x"), (502, "y")];
        for (status, words) in forgiven {
            assert_eq!(answer(status, words).of_change(task), ControllerError::Unavailable(words.into()));
        }
        assert_eq!(answer(404, "none").of_look(task), ControllerError::NotFound(task));
        assert_eq!(answer(500, "any").of_look(task), ControllerError::Unavailable("any".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_hangs_is_unavailable_after_its_time() {
        let hang = std::future::pending::<Result<(), Error>>();
        let failure = within(LOOK_TIME_MAX, hang).await.unwrap_err();
        assert_eq!(failure.unavailable(), ControllerError::Unavailable("no answer within 10 s".into()));
    }
}
