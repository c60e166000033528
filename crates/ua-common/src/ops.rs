//! The operator's token for the app's ops endpoints. It is never printed, logged, or put into an argument list.

use std::ffi::OsStr;
use std::path::Path;

use crate::env_file;
use crate::error::Failure;
use crate::exit::Exit;
use crate::settings::Surroundings;

/// The header that carries the token.
pub const TOKEN_HEADER: &str = "x-ua-ops-token";

/// The variable that holds it, here and in `.env`.
pub const TOKEN_VARIABLE: &str = "UA_OPS_TOKEN";

/// The token. It shows itself only to whoever sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token as `origin` gives it, such as a flag. An error never repeats it.
    pub fn given(text: &str, origin: &str) -> Result<Self, Failure> {
        // Anything else cannot stand in a header.
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        let message =
            format!("the token of {origin} is empty, or holds a character that no header can carry");
        Err(Failure::new(Exit::Usage, message).hint(format!("export {TOKEN_VARIABLE}=…")))
    }

    /// What goes on the wire.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token of the environment, else of the repository's `.env`; nothing if neither has one.
pub fn token(around: &Surroundings, repo: Option<&Path>) -> Result<Option<Token>, Failure> {
    let env = around.env.get(OsStr::new(TOKEN_VARIABLE)).filter(|value| !value.is_empty());
    if let Some(value) = env {
        return Token::given(&value.to_string_lossy(), TOKEN_VARIABLE).map(Some);
    }
    repo.map_or(Ok(None), stored)
}

/// The token of the repository's `.env` alone: what is there for a run that does not have this environment.
pub fn stored(repo: &Path) -> Result<Option<Token>, Failure> {
    let path = repo.join(".env");
    let origin = format!("`{}`", path.display());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(Exit::Usage, format!("cannot read {origin}: {error}"))),
    };
    // The rest of the file may be in any encoding.
    let all = env_file::assignments(&String::from_utf8_lossy(&bytes));
    match env_file::last(&all, TOKEN_VARIABLE).filter(|assignment| !assignment.value.is_empty()) {
        Some(assignment) => Token::given(&assignment.value, &origin).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_shows_itself() {
        let token = Token::given("hunter2", "--ops-token").unwrap();
        assert_eq!((format!("{token:?}").as_str(), token.reveal()), ("Token(…)", "hunter2"));
        for text in ["hunter2\r\nb: c", "hunter2 ", "hünter2", ""] {
            let error = Token::given(text, "`--ops-token`").unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(!format!("{error} {error:?}").contains("nter2"), "{error}");
        }
    }

    #[test]
    fn the_environment_comes_before_the_file_of_the_repository() {
        let repo = tempfile::tempdir().unwrap();
        let mut around = Surroundings {
            cwd: repo.path().to_owned(),
            home: None,
            config_home: None,
            env: std::collections::BTreeMap::new(),
            uid: 0,
        };
        let read = |around: &Surroundings, repo: Option<&Path>| {
            token(around, repo).map(|token| token.map(|token| token.0)).map_err(|error| error.to_string())
        };
        let here = Some(repo.path());
        assert_eq!(read(&around, here), Ok(None));
        std::fs::write(repo.path().join(".env"), b"# caf\xe9\r\nUA_OPS_TOKEN=\"of-the-file\"\r\n").unwrap();
        assert_eq!(read(&around, here), Ok(Some("of-the-file".to_owned())));
        assert_eq!(read(&around, None), Ok(None));
        around.env.insert(TOKEN_VARIABLE.into(), "".into());
        assert_eq!(read(&around, here), Ok(Some("of-the-file".to_owned())), "an empty variable is unset");
        around.env.insert(TOKEN_VARIABLE.into(), "of-the-environment".into());
        assert_eq!(read(&around, here), Ok(Some("of-the-environment".to_owned())));
        around.env.insert(TOKEN_VARIABLE.into(), "two words".into());
        assert!(read(&around, here).unwrap_err().contains(TOKEN_VARIABLE), "nothing falls back in silence");
    }

    #[test]
    fn an_unset_token_of_the_file_is_none() {
        let repo = tempfile::tempdir().unwrap();
        std::fs::write(repo.path().join(".env"), "UA_OPS_TOKEN=\n").unwrap();
        let around = Surroundings {
            cwd: repo.path().to_owned(),
            home: None,
            config_home: None,
            env: std::collections::BTreeMap::new(),
            uid: 0,
        };
        assert_eq!(token(&around, Some(repo.path())).unwrap(), None);
    }
}
