//! Names of workspaces: which may be mirrored under their own name, and which are none.
//!
//! A workspace at the root has its name as its id. One in a directory of workspaces (`sync.nested`) has an id of two
//! parts, `vp_coder_primary_external/vp-mission-1`, which is also its path on both sides.

use ua_common::settings::value::Patterns;

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

/// Most bytes of an id: those of two parts are file names, too, by [`file_name`].
const LONGEST: usize = 255;

/// Judges a name as it was listed. Bytes that are no text arrive as U+FFFD.
pub fn judge(name: &str) -> Name {
    let parts = name.split_once('/');
    let judged = match parts {
        None => part(name),
        Some((container, name)) => match part(container) {
            Name::Workspace => part(name),
            other => other,
        },
    };
    if judged == Name::Workspace && name.len() > LONGEST {
        return Name::Unsupported(if parts.is_some() {
            "it is longer than 255 bytes"
        } else {
            "it is longer than a file name can be"
        });
    }
    judged
}

fn part(name: &str) -> Name {
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
    } else {
        return Name::Workspace;
    };
    Name::Unsupported(why)
}

/// Why somebody's word for a workspace cannot be an id; nothing if it can.
pub fn refuse(id: &str, nested: &Patterns) -> Option<&'static str> {
    match (judge(id), container(id)) {
        (Name::Workspace, Some(container)) if !nested.matches(container) => {
            Some("no pattern of `sync.nested` matches its first part")
        }
        (Name::Workspace, None) if nested.matches(id) => {
            Some("`sync.nested` makes it a directory of workspaces; the id of one in it has two parts")
        }
        (Name::Workspace, _) => None,
        (Name::Never, _) if matches!(id, "." | "..") => Some("it is no file name"),
        (Name::Never, _) => Some("names that begin with `.` or `remote_vps_` are never workspaces"),
        (Name::Unsupported(why), _) => Some(why),
    }
}

/// The directory of workspaces that a workspace is in; nothing for one at the root.
pub fn container(id: &str) -> Option<&str> {
    id.split_once('/').map(|(container, _)| container)
}

/// The name of a workspace in its directory.
pub fn leaf(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, name)| name)
}

/// The id as a name of one file. No id holds `|`, so no two have the same name.
pub fn file_name(id: &str) -> String {
    id.replace('/', "|")
}

/// The id whose [`file_name`] this is.
pub fn of_file_name(name: &str) -> String {
    name.replace('|', "/")
}

/// The ids most like one that is unknown, best first. Without its directory a workspace is known by its name.
pub fn nearest<'a>(id: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let likeness = |other: &str| {
        let whole = strsim::normalized_damerau_levenshtein(id, other);
        if id.contains('/') {
            whole
        } else {
            whole.max(strsim::normalized_damerau_levenshtein(id, leaf(other)))
        }
    };
    let mut near: Vec<(f64, &str)> = known.map(|other| (likeness(other), other)).collect();
    near.retain(|(likeness, _)| *likeness > 0.5);
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
            assert_eq!(judge(&format!("vp_external/{name}")), Name::Workspace, "{name}");
        }
        for name in
            [".", "..", ".git", "remote_vps_workspaces", ".a|b", "../x", "./x", "a/..", "a/.git", ".a/b"]
        {
            assert_eq!(judge(name), Name::Never, "{name}");
        }
        let (long, half) = ("y".repeat(256), "y".repeat(128));
        let both = format!("{half}/{half}");
        for name in [
            "-x",
            "a|b",
            "a\nb",
            "a\u{1b}[2J",
            "",
            "\u{fffd}x",
            &long,
            "/",
            "/a",
            "a/",
            "a//b",
            "a/b/c",
            "a/b/..",
            "-a/b",
            "a/-b",
            "a|b/c",
            "a/b|c",
            "a/b\nc",
            &both,
        ] {
            assert!(matches!(judge(name), Name::Unsupported(_)), "{name:?}");
        }
        assert_eq!(judge(&both[2..]), Name::Workspace);
    }

    #[test]
    fn nested_id_needs_a_matching_directory() {
        let nested = Patterns(vec!["vp_*_external".to_owned()]);
        for id in ["session_1", "vp_x_external/m", "vp_x_external_archive"] {
            assert_eq!(refuse(id, &nested), None, "{id}");
        }
        for id in [
            "vp_x_external",
            "session_1/x",
            "vp_x_external/m/n",
            "vp_x_external/..",
            "../m",
            "vp_x_external/",
        ] {
            assert!(refuse(id, &nested).is_some(), "{id}");
        }
        let none = Patterns::default();
        assert!(refuse("vp_x_external", &none).is_none() && refuse("vp_x_external/m", &none).is_some());
    }

    #[test]
    fn file_names_of_ids_are_distinct() {
        let ids = ["a/b", "a", "b", "a_b", "a b", "ab"];
        let names: std::collections::BTreeSet<String> = ids.iter().map(|id| file_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        for id in ids {
            assert_eq!(of_file_name(&file_name(id)), id);
            assert!(!file_name(id).contains('/'));
        }
    }

    #[test]
    fn a_mistyped_id_has_neighbours() {
        let known =
            ["session_20260221_abc", "cron_1", "session_20260221_abd", "vp_coder_primary_external/m_17"];
        assert_eq!(
            nearest("session_2026022_abc", known.into_iter()),
            ["session_20260221_abc", "session_20260221_abd"]
        );
        assert_eq!(nearest("m_18", known.into_iter()), ["vp_coder_primary_external/m_17"]);
        assert_eq!(nearest("vp_coder_external/m_17", known.into_iter()), ["vp_coder_primary_external/m_17"]);
        assert!(nearest("zzz", known.into_iter()).is_empty());
    }
}
