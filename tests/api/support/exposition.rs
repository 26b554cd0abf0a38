//! A scrape of `/metrics`, read as strictly as OpenMetrics 1.0 has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reqwest::{StatusCode, header::CONTENT_TYPE};
use tokio::time::{sleep, timeout};

use super::{TestServer, clients::PATIENCE};

/// While something is waited for that nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Everything a server says it has counted.
#[derive(Debug, Default)]
pub struct Exposition {
    /// What comes under each name; without the suffixes of samples.
    pub families: BTreeMap<String, Family>,
    /// By name and labels as they are written.
    samples: BTreeMap<String, f64>,
}

#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub unit: Option<String>,
}

impl Family {
    /// What may follow its name in a sample's.
    pub fn suffixes(&self) -> &'static [&'static str] {
        match self.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{other}"),
        }
    }
}

impl Exposition {
    pub async fn scrape(server: &TestServer) -> Self {
        let answer = server.http.get(format!("{}/metrics", server.api)).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(answer.headers()[CONTENT_TYPE], content_type);
        Self::read(&answer.text().await.expect("text"))
    }

    /// Scrapes until a sample has a value: what is counted right after it was sent may be read just before.
    pub async fn until(server: &TestServer, sample: &str, value: f64) -> Self {
        let mut last = f64::NAN;
        let there = async {
            loop {
                let scraped = Self::scrape(server).await;
                last = scraped.value(sample);
                if last == value {
                    return scraped;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let there = timeout(PATIENCE, there).await;
        there.unwrap_or_else(|_| panic!("{sample} is {last} and should be {value}"))
    }

    /// Of one sample: `name` or `name{label="value"}`.
    pub fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples))
    }

    /// Holds samples against what they should be, all at once.
    pub fn assert(&self, expected: &[(&str, f64)]) {
        let found: Vec<_> = expected.iter().map(|(sample, _)| (*sample, self.value(sample))).collect();
        assert_eq!(found, expected);
    }

    /// Of all samples of a name.
    pub fn sum(&self, name: &str) -> f64 {
        let of = self.samples.iter().filter(|(sample, _)| sample.split('{').next() == Some(name));
        of.map(|(_, value)| value).sum()
    }

    /// Names as queries have them.
    pub fn names(&self) -> BTreeSet<String> {
        let named = |(name, family): (&String, &Family)| {
            family.suffixes().iter().map(|suffix| format!("{name}{suffix}")).collect::<Vec<_>>()
        };
        self.families.iter().flat_map(named).collect()
    }

    fn read(text: &str) -> Self {
        let mut read = Self::default();
        let text = text.strip_suffix("# EOF\n").expect("an end");
        let mut current: Option<String> = None;
        for line in text.lines() {
            let Some(comment) = line.strip_prefix("# ") else {
                read.sample(current.as_deref().expect("a family first"), line);
                continue;
            };
            let (what, rest) = comment.split_once(' ').expect("a keyword");
            let (name, value) = rest.split_once(' ').expect("a name and something of it");
            if current.as_deref() != Some(name) {
                assert!(is_name(name), "{name}");
                assert!(!read.families.contains_key(name), "{name} in two places");
                read.families.insert(name.to_owned(), Family::default());
                current = Some(name.to_owned());
            }
            let family = read.families.get_mut(name).expect("the current one");
            match what {
                "HELP" => family.help = value.to_owned(),
                "TYPE" => family.kind = value.to_owned(),
                "UNIT" => family.unit = Some(value.to_owned()),
                other => panic!("{other}"),
            }
        }
        for (name, family) in &read.families {
            assert!(family.help.len() > 5 && family.help.ends_with('.'), "{name}: {}", family.help);
            assert!(!family.help.ends_with(".."), "{name}: {}", family.help);
            match &family.unit {
                Some(unit) => assert!(name.ends_with(&format!("_{unit}")), "{name} in {unit}"),
                None => {
                    assert!(!name.ends_with("_seconds") && !name.ends_with("_bytes"), "{name} has no unit")
                }
            }
            if family.kind == "histogram" {
                read.check_histogram(name);
            }
        }
        read
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let suffixes = self.families[family].suffixes();
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} under {family}"));
        assert!(suffixes.contains(&suffix), "{line} under {family}");
        let labels = labels.strip_suffix('}').expect("an end of labels");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").expect("a label's value");
            assert!(is_name(label), "{line}");
            assert!(value.strip_suffix('"').is_some_and(|value| !value.contains(['"', '\\'])), "{line}");
        }
        let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(value >= 0.0, "{line}");
        assert_eq!(self.samples.insert(sample.to_owned(), value), None, "{sample} twice");
    }

    /// One without labels of its own.
    fn check_histogram(&self, name: &str) {
        let bound = |sample: &str| {
            let bound = sample.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?.strip_suffix("\"}")?;
            bound.parse::<f64>().ok()
        };
        let buckets = self.samples.iter().filter_map(|(sample, count)| Some((bound(sample)?, *count)));
        let mut buckets: Vec<_> = buckets.collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by_key(|bucket| bucket.1), "{name}: {buckets:?}");
        let count = self.value(&format!("{name}_count"));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
    }
}

fn is_name(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_fit)
}
