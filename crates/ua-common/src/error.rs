//! Errors that know their exit code and their remedy.
//!
//! Modules that wrap a program or own a domain define enums of facts; each fact implements [`Fact`]. On the way up it
//! travels as a [`Failure`] inside `anyhow`, so context can be added without losing the code.

use crate::exit::Exit;

/// An error that says which exit code it means and what to do about it. The message never contains the remedy.
pub trait Fact: std::error::Error + Send + Sync + 'static {
    /// The exit code of a run that ends with this error.
    fn exit(&self) -> Exit;

    /// The next command for the person, if there is one.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// A [`Fact`] under way to the top: its text, code and hint.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    /// The exit code of the run.
    pub exit: Exit,
    /// The next command for the person.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure said in place, where an enum of its own would have one member.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit, hint: None }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The failure inside `error`, wherever in its chain; without one the run just [`Exit::Failed`].
    pub fn within(error: &anyhow::Error) -> (Exit, Option<&str>) {
        error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Self>())
            .map_or((Exit::Failed, None), |failure| (failure.exit, failure.hint.as_deref()))
    }
}

impl<F: Fact> From<F> for Failure {
    fn from(fact: F) -> Self {
        let mut message = fact.to_string();
        let mut source = std::error::Error::source(&fact);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { message, exit: fact.exit(), hint: fact.hint() }
    }
}
