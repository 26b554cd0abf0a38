//! Reading a location's history, and holding it against what was answered.

use std::time::Duration;

use reqwest::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::TestServer;

/// Longer than any clean-up takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer of the history route.
#[derive(Debug)]
pub struct Page {
    pub features: Vec<Value>,
    /// The location's newest version.
    pub version: u64,
    /// Length of the answer's text.
    pub bytes: usize,
}

/// The version of a Feature.
#[track_caller]
pub fn version(feature: &Value) -> u64 {
    feature["properties"]["version"].as_u64().unwrap_or_else(|| panic!("no version: {feature}"))
}

/// The versions of Features.
pub fn versions(features: &[Value]) -> Vec<u64> {
    features.iter().map(version).collect()
}

/// Fails the test where a version is left out or out of order.
#[track_caller]
pub fn assert_dense(features: &[Value]) {
    let versions = versions(features);
    assert!(versions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a hole in {versions:?}");
}

impl TestServer {
    /// One page; the query may be empty.
    pub async fn history_page(&self, id: u64, query: &str) -> Page {
        self.history_page_from(&self.api, id, query).await
    }

    async fn history_page_from(&self, api: &str, id: u64, query: &str) -> Page {
        let url = format!("{api}/location/{id}/history?{query}");
        let answer = self.http.get(&url).send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.expect("a body");
        assert_eq!(status, StatusCode::OK, "{url}: {text:.2000}");
        assert_eq!(headers[CONTENT_TYPE], "application/geo+json", "{url}");
        let mut body: Value = serde_json::from_str(&text).expect(&url);
        let members: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, ["type", "features", "version"], "{url}");
        assert_eq!(body["type"], "FeatureCollection", "{url}");
        let Value::Array(features) = body["features"].take() else { panic!("{url}: no features") };
        let version = body["version"].as_u64().expect("a version");
        assert_dense(&features);
        assert!(features.last().is_none_or(|newest| self::version(newest) <= version), "{url}: {version}");
        assert!(features.iter().all(|feature| feature["id"] == json!(id)), "{url}");
        Page { features, version, bytes: text.len() }
    }

    /// Everything that is kept of a location that does not move, oldest first, page by page. The newest
    /// is the location as it stands.
    pub async fn history(&self, id: u64) -> Vec<Value> {
        self.history_from(&self.api, id).await
    }

    /// The same from another address of the API.
    pub async fn history_from(&self, api: &str, id: u64) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let since = all.last().map_or(0, version);
            let page = self.history_page_from(api, id, &format!("since={since}")).await;
            if page.features.is_empty() {
                assert_eq!(page.version, since, "{id}: the last page is empty and this is not the end");
                break;
            }
            all.extend(page.features);
        }
        assert_dense(&all);
        let (status, head) = self.get(&format!("/location/{id}")).await;
        assert_eq!((status, Some(&head)), (StatusCode::OK, all.last()), "the head");
        all
    }

    /// Fails the test unless these answers, in whatever order, are the location's history after its
    /// creation: each version once, as it was answered.
    pub async fn assert_history(&self, id: u64, mut answers: Vec<Value>) {
        answers.sort_by_key(version);
        let history = self.history(id).await;
        assert_eq!(version(&history[0]), 1);
        assert_eq!(versions(&history[1..]), versions(&answers), "{id}: what was answered");
        for (kept, answer) in history[1..].iter().zip(&answers) {
            assert_eq!(kept, answer);
        }
    }

    /// Asks for a location's oldest versions again and again until they are as wanted. The condition is
    /// one that the server is to reach by itself.
    pub async fn history_until(&self, id: u64, wanted: impl Fn(&Page) -> bool) -> Page {
        let started = Instant::now();
        loop {
            let page = self.history_page(id, "").await;
            if wanted(&page) {
                return page;
            }
            let versions = versions(&page.features);
            assert!(started.elapsed() < PATIENCE, "{id} stays at {:?} of {}", versions, page.version);
            sleep(Duration::from_millis(50)).await;
        }
    }
}
