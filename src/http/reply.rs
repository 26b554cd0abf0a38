//! Answers made of JSON text that is already there: a Feature is written once and not parsed again.

use http::{StatusCode, header};
use serde::Serialize;
use warp::{Reply, reply};

const GEO_JSON: &str = "application/geo+json";
const JSON: &str = "application/json";

/// `{"status":…,"data":{"<name>":…}}`.
pub fn data(status: StatusCode, name: &str, feature: &str) -> impl Reply + use<> {
    let parts = [r#"{"status":"#, status.as_str(), r#","data":{""#, name, r#"":"#, feature, "}}"];
    let body = parts.concat();
    reply::with_status(reply::with_header(body, header::CONTENT_TYPE, JSON), status)
}

/// One Feature or FeatureCollection.
pub fn geojson(body: String) -> impl Reply {
    reply::with_header(body, header::CONTENT_TYPE, GEO_JSON)
}

/// Any other JSON.
pub fn json<T: Serialize>(body: &T) -> impl Reply + use<T> {
    let body = serde_json::to_string(body).expect("answers are of strings and numbers");
    reply::with_header(body, header::CONTENT_TYPE, JSON)
}

/// `{"status":"ok"}`.
pub fn ok() -> impl Reply {
    reply::with_header(r#"{"status":"ok"}"#, header::CONTENT_TYPE, JSON)
}
