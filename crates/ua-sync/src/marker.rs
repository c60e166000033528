//! The ready marker, which the app writes when a run has ended.

use serde::Deserialize;
use serde_json::value::RawValue;

/// Longest marker that is read, in bytes. The app's are 300.
pub const LONGEST: u64 = 64 * 1024;

/// What a marker says.
#[derive(Clone, Debug, PartialEq)]
pub enum Marker {
    /// The run has ended.
    Ended {
        /// When, as text exactly as the marker has it.
        epoch: String,
        /// When, in seconds since 1970.
        at: f64,
        /// How: one of the states that end a run.
        state: String,
    },
    /// The run has not ended, in words.
    Open(String),
    /// It is no marker, and why.
    Bad(String),
}

#[derive(Deserialize)]
struct Written<'a> {
    ready: Option<serde_json::Value>,
    state: Option<serde_json::Value>,
    #[serde(borrow)]
    completed_at_epoch: Option<&'a RawValue>,
    #[serde(borrow)]
    updated_at_epoch: Option<&'a RawValue>,
}

/// Reads a marker. Only what stands at its top level counts, and only these states end a run.
pub fn read(bytes: &[u8], ending: &[String]) -> Marker {
    let written: Written<'_> = match serde_json::from_slice(bytes) {
        Ok(written) => written,
        Err(error) => return Marker::Bad(format!("it is not a JSON object of the app: {error}")),
    };
    if written.ready != Some(serde_json::Value::Bool(true)) {
        return Marker::Open("its marker is not ready".to_owned());
    }
    let state = written.state.as_ref().and_then(serde_json::Value::as_str);
    let Some(state) = state.and_then(|state| ending.iter().find(|known| *known == state)) else {
        let shown = written.state.map_or("none".to_owned(), |state| state.to_string());
        return Marker::Open(format!("the state in its marker is {shown}"));
    };
    let written = [written.completed_at_epoch, written.updated_at_epoch].into_iter().flatten();
    let Some(epoch) = written.map(RawValue::get).find(|text| *text != "null") else {
        return Marker::Open("its marker does not say when the run ended".to_owned());
    };
    match seconds(epoch) {
        Some(at) => Marker::Ended { epoch: epoch.to_owned(), at, state: state.clone() },
        None => Marker::Bad(format!("its time is `{epoch}`")),
    }
}

/// A time after 1970, from a JSON number.
pub fn seconds(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    text.parse().ok().filter(|at: &f64| plain && at.is_finite() && *at > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Marker {
        super::read(text.as_bytes(), &["completed".to_owned(), "failed".to_owned(), "cancelled".to_owned()])
    }

    fn ended(text: &str) -> Option<(String, String)> {
        match read(text) {
            Marker::Ended { epoch, state, .. } => Some((epoch, state)),
            _ => None,
        }
    }

    #[test]
    fn p120_json_is_parsed_as_json() {
        let compact = r#"{"version":1,"state":"completed","ready":true,"completed_at_epoch":1771650000.120}"#;
        assert_eq!(ended(compact), Some(("1771650000.120".to_owned(), "completed".to_owned())));
        let nested = r#"{"last":{"state":"running","ready":false},"state":"failed","ready":true,
            "completed_at_epoch":null,"updated_at_epoch":1771650000}"#;
        assert_eq!(ended(nested), Some(("1771650000".to_owned(), "failed".to_owned())));
    }

    #[test]
    fn marker_of_a_mission_is_read() {
        // As a worker writes it: no session, no time of the start.
        let mission = r#"{"version":1,"mission_id":"vp-mission-1","vp_id":"vp.coder.primary","state":"cancelled",
            "ready":true,"worker_id":"w","result_ref":null,"source_session_id":null,"source_turn_id":null,
            "reply_mode":null,"updated_at_epoch":1771650000.5,"completed_at_epoch":1771650000.5}"#;
        assert_eq!(ended(mission), Some(("1771650000.5".to_owned(), "cancelled".to_owned())));
    }

    #[test]
    fn only_configured_states_end_a_run() {
        let marker = |state: &str| format!(r#"{{"state":"{state}","ready":true,"completed_at_epoch":1}}"#);
        assert!(ended(&marker("cancelled")).is_some());
        for state in ["dispatch_interrupted", "cancel", "cancelledX", "Cancelled"] {
            assert!(matches!(read(&marker(state)), Marker::Open(_)), "{state}");
        }
    }

    #[test]
    fn p121_a_marker_that_is_not_ready_is_not() {
        for text in [
            r#"{"state":"completed","ready":false,"completed_at_epoch":1}"#,
            r#"{"state":"completed","ready":"true","completed_at_epoch":1}"#,
            r#"{"state":"completed","completed_at_epoch":1}"#,
            r#"{"state":"running","ready":true,"completed_at_epoch":1}"#,
            r#"{"state":7,"ready":true,"completed_at_epoch":1}"#,
            r#"{"state":"completed","ready":true}"#,
        ] {
            assert!(matches!(read(text), Marker::Open(_)), "{text}");
        }
        for text in [
            "",
            "[]",
            "not json",
            "{\"state\":\"completed\",\"ready\":true,\"completed_at_epoch\":1",
            r#"{"state":"completed","ready":true,"completed_at_epoch":"1771650000"}"#,
            r#"{"state":"completed","ready":true,"completed_at_epoch":-5}"#,
            r#"{"state":"completed","ready":true,"completed_at_epoch":1e999}"#,
            r#"{"ready":true,"ready":true,"state":"completed","completed_at_epoch":1}"#,
        ] {
            assert!(matches!(read(text), Marker::Bad(_)), "{text}");
        }
    }
}
