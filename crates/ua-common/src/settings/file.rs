//! `ua.toml`: where it is looked for, who may have written it, and what it says.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::KEYS;
use super::{Layer, Origin, Raw, Settings, SettingsError, Surroundings};

/// A file that was found, trusted and read.
#[derive(Debug)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What it gives.
    pub layer: Layer,
}

/// Who wrote it decides what it may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Project,
    User,
}

/// The file that `UA_CONFIG` names, else the nearest `ua.toml` from the working directory up to the git top level.
pub fn project(around: &Surroundings) -> Result<Option<File>, SettingsError> {
    if let Some(named) = around.var("UA_CONFIG") {
        return read(&around.cwd.join(named), Kind::Project, around).map(Some);
    }
    let top = around.git_top().unwrap_or(&around.cwd);
    let dirs = around.cwd.ancestors().take_while(|dir| dir.starts_with(top));
    dirs.map(|dir| dir.join("ua.toml")).find_map(|path| optional(&path, Kind::Project, around)).transpose()
}

/// The user's own file.
pub fn user(around: &Surroundings) -> Result<Option<File>, SettingsError> {
    let Some(home) = &around.config_home else { return Ok(None) };
    optional(&home.join("ua").join("ua.toml"), Kind::User, around).transpose()
}

/// Nothing only if there is no such file; a file that cannot be looked at is an error.
fn optional(path: &Path, kind: Kind, around: &Surroundings) -> Option<Result<File, SettingsError>> {
    match std::fs::symlink_metadata(path) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            None
        }
        _ => Some(read(path, kind, around)),
    }
}

fn read(path: &Path, kind: Kind, around: &Surroundings) -> Result<File, SettingsError> {
    let unreadable = |why| SettingsError::Unreadable { path: path.to_path_buf(), why };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // Judged on the open file, so that what is read is what was judged.
    trust(path, &file.metadata().map_err(unreadable)?, around.uid)?;
    let text = std::io::read_to_string(file).map_err(unreadable)?;
    Ok(File { path: path.to_path_buf(), layer: parse(&text, path, kind)? })
}

/// Refuses a file that somebody else owns or can write.
fn trust(path: &Path, meta: &std::fs::Metadata, uid: u32) -> Result<(), SettingsError> {
    let shown =
        shlex::try_quote(&path.to_string_lossy()).map_or_else(|_| "FILE".to_owned(), |text| text.to_string());
    let untrusted =
        |why: String, mend: String| Err(SettingsError::Untrusted { path: path.to_path_buf(), why, mend });
    if !meta.is_file() {
        return untrusted("it is not a regular file".to_owned(), format!("ls -l {shown}"));
    }
    if meta.uid() != uid && meta.uid() != 0 {
        let why = format!("user id {} owns it, neither you ({uid}) nor root", meta.uid());
        return untrusted(why, format!("sudo chown {uid} {shown}"));
    }
    if meta.mode() & 0o022 != 0 {
        let why = format!("others can write it (mode {:04o})", meta.mode() & 0o7777);
        return untrusted(why, format!("chmod go-w {shown}"));
    }
    Ok(())
}

/// Refuses a project file inside the mirror: its content comes from the VPS.
pub(super) fn refuse_within_mirror(
    path: &Path,
    settings: &Settings,
    around: &Surroundings,
) -> Result<(), SettingsError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    match settings.mirror(around) {
        Some(mirror) if real(path).starts_with(real(&mirror)) => Err(SettingsError::Untrusted {
            path: path.to_path_buf(),
            why: format!("it lies in the mirror `{}`, whose files come from the VPS", mirror.display()),
            mend: "cd out of the mirror".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn parse(text: &str, path: &Path, kind: Kind) -> Result<Layer, SettingsError> {
    let line = |offset: usize| text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line(span.start));
        let wrong = text.lines().nth(line - 1).unwrap_or_default().trim();
        let why = format!("`{}`: {}", wrong.escape_debug(), error.message());
        SettingsError::Syntax { path: path.to_path_buf(), line, why }
    })?;
    let mut layer = Layer::new();
    for (section, value) in table.get_ref() {
        let DeValue::Table(keys) = value.get_ref() else {
            return Err(unknown(path, line(section.span().start), section.get_ref()));
        };
        for (key, value) in keys {
            let dotted = format!("{}.{}", section.get_ref(), key.get_ref());
            let line = line(key.span().start);
            let Some(known) = KEYS.iter().find(|known| known.key == dotted) else {
                return Err(unknown(path, line, &dotted));
            };
            if kind == Kind::Project && known.sensitive() {
                let (key, env) = (known.key, known.env);
                return Err(SettingsError::Sensitive { path: path.to_path_buf(), line, key, env });
            }
            let raw = raw(value).ok_or_else(|| SettingsError::Syntax {
                path: path.to_path_buf(),
                line,
                why: format!("`{dotted}` takes text, a number, true or false, or a list of texts"),
            })?;
            let origin = match kind {
                Kind::Project => Origin::Project(path.to_path_buf(), line),
                Kind::User => Origin::User(path.to_path_buf(), line),
            };
            layer.insert(known.key, (raw, origin));
        }
    }
    Ok(layer)
}

fn unknown(path: &Path, line: usize, key: &str) -> SettingsError {
    let nearest = KEYS
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(known.key, key), known.key))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key);
    SettingsError::UnknownKey { path: path.to_path_buf(), line, key: key.to_owned(), nearest }
}

fn raw(value: &Spanned<DeValue<'_>>) -> Option<Raw> {
    match value.get_ref() {
        DeValue::Array(items) => {
            items.iter().map(|item| scalar(item.get_ref())).collect::<Option<_>>().map(Raw::List)
        }
        scalar_value => scalar(scalar_value).map(Raw::Text),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}
