//! Anchored path patterns: `*` and `?` within one name, `**` for any number of directories.

use serde::Deserialize;

/// A pattern for paths relative to the repository's top.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Vec<String>);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        let plain = parts.iter().all(|part| !matches!(part.as_str(), "" | "." | ".."));
        if plain && !text.chars().any(char::is_control) {
            return Ok(Self(parts));
        }
        Err(format!(
            "`{}` is not a relative path pattern without `.`, `..` and empty parts",
            text.escape_debug()
        ))
    }
}

impl Pattern {
    /// Makes a pattern for `path` that can be written in one line: `?` stands for a control character, for U+FFFD and for
    /// what a pattern gives a meaning.
    pub fn for_path(path: &str) -> Self {
        let plain = |c: char| !c.is_control() && !matches!(c, '*' | '?' | char::REPLACEMENT_CHARACTER);
        let text: String = path.chars().map(|c| if plain(c) { c } else { '?' }).collect();
        Self(text.split('/').map(str::to_owned).collect())
    }

    /// Does it mean `path`?
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        parts(&self.0, &names)
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Is one of `patterns` meant?
pub fn any(patterns: &[Pattern], path: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path))
}

fn parts(pattern: &[String], names: &[&str]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            // At the end it means everything below, and not the directory itself.
            if rest.is_empty() {
                !names.is_empty()
            } else {
                (0..=names.len()).any(|skip| parts(rest, &names[skip..]))
            }
        }
        (Some((first, rest)), Some((name, names))) => {
            let (first, name): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
            within(&first, &name) && parts(rest, names)
        }
        _ => false,
    }
}

fn within(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => (0..=name.len()).any(|skip| within(rest, &name[skip..])),
        (Some(('?', rest)), Some((_, name))) => within(rest, name),
        (Some((a, rest)), Some((b, name))) => a == b && within(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().matches(path)
    }

    #[test]
    fn p10_a_runtime_directory_is_not_a_package_of_the_same_name() {
        assert!(matches("artifacts/**", "artifacts/a/b") && matches("tmp/**", "tmp/x"));
        assert!(!matches("artifacts/**", "src/universal_agent/artifacts/__init__.py"));
        assert!(!matches("tmp/**", "src/universal_agent/tools/tmp/__init__.py"));
    }

    #[test]
    fn any_depth_includes_none() {
        for path in [".env", "a/.env", "a/b/.env"] {
            assert!(matches("**/.env", path), "{path}");
        }
        assert!(matches("**/.env.*", "web-ui/.env.local") && !matches("**/.env", "a/.environment"));
        assert!(matches("**/__pycache__/**", "a/__pycache__/b.pyc"));
        assert!(matches("**/*.key", "certs/server.key") && !matches("**/*.key", "keys/server.keys"));
        assert!(matches("a?c/*.md", "abc/x.md") && !matches("a?c/*.md", "abc/d/x.md"));
    }

    #[test]
    fn pattern_matches_control_characters() {
        assert!(matches("a?b", "a\nb") && matches("*", "a\n\t\u{7f}b") && matches("**/x*", "d\ne/x\r"));
        assert!(!matches("a?b", "a\n\nb") && !matches("a b", "a\nb"));
    }

    #[test]
    fn pattern_for_path_means_that_path() {
        for path in [
            "a\nb",
            "d\te/f\u{7f}",
            "**",
            "a*/?",
            "x\u{fffd}",
            "it's \"so\" [1]",
            "back\\slash",
            "-rf",
            "end ",
        ] {
            let pattern = Pattern::for_path(path);
            assert!(pattern.matches(path), "{pattern}");
            assert_eq!(Pattern::try_from(pattern.to_string()).unwrap(), pattern);
            assert!(!pattern.matches("other"), "{pattern}");
        }
        assert_eq!(Pattern::for_path("a\nb*").to_string(), "a?b?");
    }

    #[test]
    fn odd_patterns_are_refused() {
        for text in ["", "/a", "a//b", "../a", "a/.", "a\n"] {
            Pattern::try_from(text.to_owned()).unwrap_err();
        }
    }
}
