//! `settings`: every value and where it comes from. Nobody is contacted.

use std::collections::BTreeMap;

use serde_json::json;
use ua_common::output::{Record, Records};
use ua_common::settings::{Settings, Surroundings};

/// The rows. A value that nobody gave is shown as it comes from others.
pub fn records(settings: &Settings, around: &Surroundings) -> Records<3> {
    let derived: BTreeMap<&str, String> = settings.derived(around).into_iter().collect();
    let row = |(key, value, origin): (&'static str, String, &ua_common::settings::Origin)| {
        let (value, origin) = match derived.get(key) {
            Some(value) => (value.clone(), "derived".to_owned()),
            None => (value, origin.to_string()),
        };
        Record {
            id: key.to_owned(),
            json: json!({"key": key, "value": value, "origin": origin}),
            cells: [key.to_owned(), if value.is_empty() { "-".to_owned() } else { value }, origin],
        }
    };
    Records { head: ["KEY", "VALUE", "ORIGIN"], rows: settings.rows().into_iter().map(row).collect() }
}
