//! The operator's token for the app's ops endpoints. It is never printed, logged, or put into an argument list.

use std::ffi::OsStr;
use std::path::Path;

use crate::env_file;
use crate::settings::Surroundings;

/// Header that carries the token.
pub const TOKEN_HEADER: &str = "x-ua-ops-token";

/// The variable that holds it, here and in `.env`.
const VARIABLE: &str = "UA_OPS_TOKEN";

/// The token. It shows itself only to whoever sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// What goes on the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn new(text: &str) -> Option<Self> {
        // Anything else cannot stand in a header.
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token of the environment, else of the repository's `.env`.
pub fn token(around: &Surroundings, repo: Option<&Path>) -> Option<Token> {
    let env = around.env.get(OsStr::new(VARIABLE)).and_then(|value| value.to_str());
    if let Some(token) = env.and_then(Token::new) {
        return Some(token);
    }
    let text = std::fs::read_to_string(repo?.join(".env")).ok()?;
    let all = env_file::assignments(&text);
    env_file::last(&all, VARIABLE).and_then(|assignment| Token::new(&assignment.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shows_itself() {
        let token = Token::new("hunter2").unwrap();
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(Token::new("a\r\nb: c").is_none() && Token::new("").is_none());
    }
}
