//! `settings`: every value and where it comes from. Nobody is contacted.

use serde_json::json;
use ua_common::output::{Record, Records};
use ua_common::settings::Settings;

/// The rows.
pub fn records(settings: &Settings) -> Records<3> {
    let row = |(key, value, origin): (&'static str, String, &ua_common::settings::Origin)| Record {
        id: key.to_owned(),
        json: json!({"key": key, "value": value, "origin": origin.to_string()}),
        cells: [key.to_owned(), if value.is_empty() { "-".to_owned() } else { value }, origin.to_string()],
    };
    Records { head: ["KEY", "VALUE", "ORIGIN"], rows: settings.rows().into_iter().map(row).collect() }
}
