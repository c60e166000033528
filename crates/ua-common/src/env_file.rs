//! `.env` as systemd's `EnvironmentFile=` reads it, since that is how the app's services get it.

/// One assignment.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub key: String,
    /// Its value, without the quotes.
    pub value: String,
    /// Written as `export KEY=…`: shells and dotenv libraries read it, systemd does not.
    pub exported: bool,
}

impl std::fmt::Debug for Assignment {
    /// Without the value: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Assignment")
            .field("key", &self.key)
            .field("exported", &self.exported)
            .finish_non_exhaustive()
    }
}

/// Every assignment of `text`, in order. Lines that are none are passed over, as their readers do.
pub fn assignments(text: &str) -> Vec<Assignment> {
    let mut rest = text;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let start = rest.trim_start();
        if start.starts_with(['#', ';']) {
            rest = after_line(start);
            continue;
        }
        let end = start.find(['\n', '\r']).unwrap_or(start.len());
        let Some(equals) = start[..end].find('=') else {
            rest = after_line(start);
            continue;
        };
        let name = start[..equals].trim_end();
        let (key, exported) = match name.strip_prefix("export") {
            Some(after) if after.starts_with([' ', '\t']) => (after.trim_start(), true),
            _ => (name, false),
        };
        let (value, after) = value(&start[equals + 1..]);
        if is_name(key) {
            found.push(Assignment { key: key.to_owned(), value, exported });
        }
        rest = after;
    }
    found
}

/// The value that `key` ends up with: the last assignment counts.
pub fn last<'a>(assignments: &'a [Assignment], key: &str) -> Option<&'a Assignment> {
    assignments.iter().rfind(|assignment| assignment.key == key)
}

fn is_name(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn after_line(text: &str) -> &str {
    text.find(['\n', '\r']).map_or("", |end| &text[end + 1..])
}

/// Reads one value and gives what follows its line. Quotes may hold line breaks; outside of them blanks at both ends
/// do not count.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    // How much of the value must stay, however blank: what was quoted or escaped.
    let mut kept = 0;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '\n' | '\r') => {
                return (finish(value, kept), &text[at + 1..]);
            }
            (None, ' ' | '\t') if value.is_empty() => {}
            (None, '\'' | '"') if value.len() == kept => quote = Some(c),
            (Some(open), close) if open == close => {
                quote = None;
                kept = value.len();
            }
            (None, '\\') => match chars.next() {
                None | Some((_, '\n')) => {}
                Some((_, escaped)) => {
                    value.push(escaped);
                    kept = value.len();
                }
            },
            (Some('"'), '\\') => match chars.next() {
                None | Some((_, '\n')) => {}
                Some((_, escaped)) => {
                    if !matches!(escaped, '"' | '\\' | '`' | '$') {
                        value.push('\\');
                    }
                    value.push(escaped);
                }
            },
            (_, c) => value.push(c),
        }
    }
    (finish(value, kept), "")
}

fn finish(mut value: String, kept: usize) -> String {
    let end = value.trim_end_matches([' ', '\t']).len().max(kept);
    value.truncate(end);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String, bool)> {
        assignments(text).into_iter().map(|it| (it.key, it.value, it.exported)).collect()
    }

    #[test]
    fn quotes_line_ends_and_export() {
        let text = "# note\r\nA=\"db_pull\"\r\nexport B='x y' \r\nC = plain # kept \r\n;D=1\nE=\"two\nlines\"\nnothing\nF=\"a\\\"b\\n\"\n9=no\nG=\n";
        let expected = [
            ("A", "db_pull", false),
            ("B", "x y", true),
            ("C", "plain # kept", false),
            ("E", "two\nlines", false),
            ("F", "a\"b\\n", false),
            ("G", "", false),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(k, v, e)| ((*k).to_owned(), (*v).to_owned(), *e)).collect();
        assert_eq!(read(text), expected);
    }

    #[test]
    fn the_last_assignment_counts() {
        let all = assignments("A=1\nA=2\n");
        assert_eq!(last(&all, "A").unwrap().value, "2");
        assert!(last(&all, "B").is_none());
    }

    #[test]
    fn a_quote_in_the_middle_is_text() {
        assert_eq!(read("A=it's\n"), [("A".to_owned(), "it's".to_owned(), false)]);
    }

    #[test]
    fn debug_tells_no_secret() {
        assert!(!format!("{:?}", assignments("T=hunter2")).contains("hunter2"));
    }
}
