//! Reading filtered lists to their end, and holding them against the truth.

use std::collections::{BTreeSet, HashSet};

use geo::Point;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Duration, sleep, timeout};

use super::{
    TestServer,
    truth::{Bounds, Shape, tolerance_m},
};

/// What of a list is looked at: which locations, how far.
#[derive(Debug, Deserialize, PartialEq)]
pub struct Found {
    pub id: u64,
    properties: Properties,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Properties {
    distance: Option<f64>,
}

impl Found {
    /// Of a `near` list.
    pub fn distance_m(&self) -> f64 {
        self.properties.distance.expect("a near list has distances")
    }
}

#[derive(Deserialize)]
struct Page {
    features: Vec<Found>,
    page: usize,
    #[serde(rename = "perPage")]
    per_page: usize,
    total: Option<u64>,
}

impl TestServer {
    /// A page of a list. A busy machine may not find it within five seconds, and then says when to try again.
    async fn page(&self, url: &str) -> Response {
        let search = async {
            loop {
                let response = self.http.get(url).send().await.expect("an answer");
                if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                    assert_eq!(response.status(), StatusCode::OK, "{url}");
                    break response;
                }
                let after = response.headers()["retry-after"].to_str().expect("text");
                sleep(Duration::from_secs(after.parse().expect("seconds"))).await;
            }
        };
        timeout(Duration::from_secs(120), search)
            .await
            .unwrap_or_else(|_| panic!("{url}: 503 again and again"))
    }

    /// Everything a filter finds, page by page until one is not full.
    pub async fn find(&self, filter: &str, per_page: usize) -> Vec<Found> {
        let mut all = Vec::new();
        for number in 1.. {
            let url = format!("{}/location?{filter}&page={number}&perPage={per_page}", self.api);
            let response = self.page(&url).await;
            let page: Page = serde_json::from_slice(&response.bytes().await.expect("a body")).expect(&url);
            assert_eq!((page.page, page.per_page, page.total), (number, per_page, None), "{url}");
            let full = page.features.len() == per_page;
            assert!(full || page.features.len() < per_page, "{url}");
            all.extend(page.features);
            if !full {
                break;
            }
        }
        let mut seen = HashSet::new();
        assert!(all.iter().all(|found| seen.insert(found.id)), "{filter}: repeated on a later page: {all:?}");
        all
    }
}

/// Ids rise as locations are made, so newest first is highest first.
pub fn assert_bbox(filter: &str, found: &[Found], truth: impl IntoIterator<Item = u64>) {
    let mut truth: Vec<u64> = truth.into_iter().collect();
    truth.sort_unstable_by(|a, b| b.cmp(a));
    let ids: Vec<u64> = found.iter().map(|found| found.id).collect();
    assert_eq!(ids, truth, "{filter}");
    assert!(
        found.iter().all(|found| found.properties.distance.is_none()),
        "{filter}: distances without near"
    );
}

/// Holds a `near` list, or one with a `bbox` too, against every shape there is.
pub fn assert_near<'a>(
    filter: &str,
    found: &[Found],
    shapes: impl IntoIterator<Item = (u64, &'a Shape)>,
    (from, radius_m): (Point, f64),
    bounds: Option<&Bounds>,
) {
    let ids: BTreeSet<u64> = found.iter().map(|found| found.id).collect();
    for (id, shape) in shapes {
        let truth = shape.distance_m(from);
        let tolerance_m = tolerance_m(truth);
        let within = bounds.is_none_or(|bounds| shape.meets(bounds));
        if within && truth <= radius_m - 1e-6 {
            assert!(ids.contains(&id), "{filter}: {id} is missing, {truth} m away");
        } else if !within || truth > radius_m + tolerance_m {
            assert!(!ids.contains(&id), "{filter}: {id} does not belong, {truth} m away");
        }
        if let Some(found) = found.iter().find(|found| found.id == id) {
            let distance_m = found.distance_m();
            assert!((distance_m - truth).abs() <= tolerance_m, "{filter}: {id}: {distance_m} not {truth}");
            assert!(distance_m <= radius_m, "{filter}: {id}: {distance_m}");
        }
    }
    let nearest_first = found.windows(2).all(|pair| {
        pair[0].distance_m() < pair[1].distance_m()
            || pair[0].distance_m() == pair[1].distance_m() && pair[0].id > pair[1].id
    });
    assert!(nearest_first, "{filter}: {found:?}");
}
