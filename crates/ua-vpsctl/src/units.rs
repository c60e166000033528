//! Which units are meant by a word, and how they are.

use std::fmt;

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::profile::{Profile, full};

/// A unit that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its whole name.
    pub unit: String,
    /// It was not named itself and is optional: a VPS that lacks it, or has it stopped, is as it should be.
    pub if_there: bool,
}

impl Chosen {
    /// As the scripts take it: with `?` before it they leave it alone where it is not.
    pub fn arg(&self) -> String {
        format!("{}{}", if self.if_there { "?" } else { "" }, self.unit)
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.unit, if self.if_there { " (if it is there and not stopped)" } else { "" })
    }
}

/// These units, and the optional ones where they are.
pub fn of(profile: &Profile, wanted: impl Fn(&str) -> bool) -> Vec<Chosen> {
    let names = profile.units().into_iter().map(|unit| Chosen { unit, if_there: false });
    let optional = profile.optional_units().into_iter().map(|unit| Chosen { unit, if_there: true });
    names.chain(optional).filter(|chosen| wanted(&chosen.unit)).collect()
}

/// The units that these words mean: whole names, or the part of one that only it has (`gateway`, `vp.coder.primary`); `all` is
/// all of the profile, the optional ones where they are.
pub fn named(profile: &Profile, words: &[String]) -> Result<Vec<Chosen>, Failure> {
    let known = profile.all_units();
    let all: Vec<&str> = known.iter().map(|unit| unit.trim_end_matches(".service")).collect();
    let mut units: Vec<Chosen> = Vec::new();
    for word in words {
        let found = if word == "all" {
            of(profile, |_| true)
        } else {
            let whole = all.iter().filter(|unit| **unit == word || full(unit) == *word);
            let part = all.iter().filter(|unit| is_part(unit, word));
            let whole: Vec<&str> = whole.copied().collect();
            let found: Vec<&str> = if whole.is_empty() { part.copied().collect() } else { whole };
            if found.len() != 1 {
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
            found.into_iter().map(|unit| Chosen { unit: full(unit), if_there: false }).collect()
        };
        for chosen in found {
            match units.iter_mut().find(|it| it.unit == chosen.unit) {
                // Named itself as well.
                Some(known) => known.if_there &= chosen.if_there,
                None => units.push(chosen),
            }
        }
    }
    Ok(units)
}

/// `gateway` of `universal-agent-gateway`, `vp.coder.primary` of `…@vp.coder.primary`.
fn is_part(unit: &str, word: &str) -> bool {
    !word.is_empty() && ['-', '@'].iter().any(|mark| unit.ends_with(&format!("{mark}{word}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let units = named(&Profile::built_in().unwrap(), &words).map_err(|failure| failure.to_string())?;
        Ok(units.iter().map(Chosen::arg).collect())
    }

    #[test]
    fn p63_all_is_all_and_a_word_is_one() {
        assert_eq!(args(&["all"]).unwrap().len(), 7);
        assert_eq!(args(&["gateway"]).unwrap(), ["universal-agent-gateway.service"]);
        assert_eq!(
            args(&["vp.coder.primary"]).unwrap(),
            ["universal-agent-vp-worker@vp.coder.primary.service"]
        );
        assert_eq!(args(&["universal-agent-api.service", "gateway", "api"]).unwrap().len(), 2);
        assert!(args(&["nginx"]).unwrap_err().contains("none of the profile's units"));
        for word in ["", "-x", "primary", "agent", "gateway; reboot"] {
            assert!(args(&[word]).is_err(), "{word}");
        }
    }

    #[test]
    fn a_part_that_two_units_have_is_none() {
        let mut profile = Profile::built_in().unwrap();
        profile.units.names.push("other-api".to_owned().try_into().unwrap());
        let said = named(&profile, &["api".to_owned()]).unwrap_err().to_string();
        assert_eq!(said, "`api` is more than one unit: universal-agent-api, other-api");
    }

    #[test]
    fn an_optional_unit_is_insisted_on_only_by_its_name() {
        assert_eq!(args(&["all"]).unwrap()[6], "?csi-ingester.service");
        for words in [&["csi-ingester"][..], &["ingester"], &["csi-ingester.service", "csi-ingester"]] {
            assert_eq!(args(words).unwrap(), ["csi-ingester.service"], "{words:?}");
        }
        for words in [["all", "csi-ingester"], ["csi-ingester", "all"]] {
            let units = args(&words).unwrap();
            assert!(units.len() == 7 && units.contains(&"csi-ingester.service".to_owned()), "{units:?}");
        }
    }
}
