//! Which units are meant by a word, and how they are.

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::profile::{Profile, full};

/// The units that these words mean: whole names, or the part of one that only it has (`gateway`, `vp.coder.primary`); `all` is
/// all of the profile.
pub fn named(profile: &Profile, words: &[String]) -> Result<Vec<String>, Failure> {
    let all: Vec<&str> = profile.units.names.iter().map(|name| &**name).collect();
    let mut units: Vec<String> = Vec::new();
    for word in words {
        let found: Vec<&str> = if word == "all" {
            all.clone()
        } else {
            let whole = all.iter().filter(|unit| **unit == word || full(unit) == *word);
            let part = all.iter().filter(|unit| is_part(unit, word));
            let whole: Vec<&str> = whole.copied().collect();
            if whole.is_empty() { part.copied().collect() } else { whole }
        };
        if found.is_empty() || (found.len() > 1 && word != "all") {
            let why = if found.is_empty() {
                "none of the profile's units".to_owned()
            } else {
                format!("more than one unit: {}", found.join(", "))
            };
            let message = format!("`{}` is {why}", word.escape_debug());
            return Err(
                Failure::new(Exit::Usage, message).hint(format!("all, or one of: {}", all.join(", ")))
            );
        }
        units.extend(found.into_iter().map(full));
    }
    units.dedup();
    Ok(units)
}

/// `gateway` of `universal-agent-gateway`, `vp.coder.primary` of `…@vp.coder.primary`.
fn is_part(unit: &str, word: &str) -> bool {
    !word.is_empty() && ['-', '@'].iter().any(|mark| unit.ends_with(&format!("{mark}{word}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        named(&Profile::built_in().unwrap(), &words).map_err(|failure| failure.to_string())
    }

    #[test]
    fn p63_all_is_all_and_a_word_is_one() {
        assert_eq!(of(&["all"]).unwrap().len(), 6);
        assert_eq!(of(&["gateway"]).unwrap(), ["universal-agent-gateway.service"]);
        assert_eq!(
            of(&["vp.coder.primary"]).unwrap(),
            ["universal-agent-vp-worker@vp.coder.primary.service"]
        );
        assert_eq!(of(&["universal-agent-api.service", "universal-agent-api"]).unwrap().len(), 1);
        assert!(of(&["nginx"]).unwrap_err().contains("none of the profile's units"));
        for word in ["", "-x", "primary", "agent", "gateway; reboot"] {
            assert!(of(&[word]).is_err(), "{word}");
        }
    }
}
