//! Names of workspaces: which may be mirrored under their own name, and which are none.

/// What a name at the root of the workspaces is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A workspace.
    Workspace,
    /// Never one: the mirror's own folders, and whatever is hidden.
    Never,
    /// One that cannot be mirrored, and why.
    Unsupported(&'static str),
}

/// Judges a name as it was listed. Bytes that are no text arrive as U+FFFD.
pub fn judge(name: &str) -> Name {
    if name.starts_with('.') || name.starts_with("remote_vps_") {
        return Name::Never;
    }
    let why = if name.is_empty() || name.contains('/') {
        "it is no file name"
    } else if name.starts_with('-') {
        "it begins with `-`"
    } else if name.contains('|') {
        "it holds `|`, which separates fields of the manifest"
    } else if name.chars().any(char::is_control) {
        "it holds a control character"
    } else if name.contains('\u{fffd}') {
        "it is not UTF-8 text"
    } else if name.len() > 255 {
        "it is longer than a file name can be"
    } else {
        return Name::Workspace;
    };
    Name::Unsupported(why)
}

/// Why somebody's word for a workspace cannot be an id; nothing if it can.
pub fn refuse(id: &str) -> Option<&'static str> {
    match judge(id) {
        Name::Workspace => None,
        Name::Never if id == "." || id == ".." => Some("it is no file name"),
        Name::Never => Some("names that begin with `.` or `remote_vps_` are never workspaces"),
        Name::Unsupported(why) => Some(why),
    }
}

/// The ids most like one that is unknown, best first.
pub fn nearest<'a>(id: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = known
        .map(|other| (strsim::normalized_damerau_levenshtein(id, other), other))
        .filter(|(likeness, _)| *likeness > 0.5)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(3).map(|(_, other)| other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["session_1", "cron 7", "größe", "a'b$(x)", "#1", ";2", "x..y", "\\", "*", "[a]"] {
            assert_eq!(judge(name), Name::Workspace, "{name}");
        }
        for name in [".", "..", ".git", "remote_vps_workspaces", ".a|b"] {
            assert_eq!(judge(name), Name::Never, "{name}");
        }
        for name in ["-x", "a|b", "a\nb", "a\u{1b}[2J", "", "a/b", "\u{fffd}x", &"y".repeat(256)] {
            assert!(matches!(judge(name), Name::Unsupported(_)), "{name:?}");
        }
    }

    #[test]
    fn a_mistyped_id_has_neighbours() {
        let known = ["session_20260221_abc", "cron_1", "session_20260221_abd"];
        assert_eq!(
            nearest("session_2026022_abc", known.into_iter()),
            ["session_20260221_abc", "session_20260221_abd"]
        );
        assert!(nearest("zzz", known.into_iter()).is_empty());
    }
}
