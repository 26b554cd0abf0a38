//! Many callers who move locations at once, and what must be found of it afterwards.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::{
    TestServer, answer,
    history::{version, versions},
    point,
    truth::Random,
};

/// Longer than any fault here lasts on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A PUT and what became of it.
struct Move {
    caller: usize,
    id: u64,
    place: u64,
    /// The Feature of a 201; `None`: 503, so that it may have been committed or not.
    answer: Option<Value>,
}

/// What a load came to.
#[derive(Debug)]
pub struct Report {
    /// PUTs answered with 201.
    pub answered: u64,
    /// PUTs answered with 503.
    pub refused: u64,
}

/// Callers that each send one PUT after the other.
pub struct Load<'a> {
    server: &'a TestServer,
    apis: &'a [&'a str],
    ids: &'a [u64],
    /// Every PUT goes where no other goes.
    places: AtomicU64,
    answered: watch::Sender<u64>,
    moves: Mutex<Vec<Move>>,
}

/// Nobody has been there yet. Not whole numbers: JavaScript writes 1.0 as 1.
fn at(place: u64) -> Value {
    point((place as f64 + 0.5) / 1e6, 0.5)
}

impl<'a> Load<'a> {
    /// On these locations, through these addresses of the API.
    pub fn new(server: &'a TestServer, apis: &'a [&'a str], ids: &'a [u64]) -> Self {
        Self {
            server,
            apis,
            ids,
            places: AtomicU64::new(0),
            answered: watch::Sender::new(0),
            moves: Mutex::default(),
        }
    }

    /// Each caller moves one location after the other while it is to go on, which is asked with the
    /// number of its PUTs that were answered with 201.
    pub async fn run(&self, callers: usize, go_on: impl Fn(u64) -> bool) {
        let go_on = &go_on;
        join_all((0..callers).map(|caller| async move {
            let mut random = Random(caller as u64);
            let mut own = 0;
            while go_on(own) {
                own += u64::from(self.put(caller, random.pick(self.ids)).await);
            }
        }))
        .await;
    }

    /// `true`: answered with 201.
    async fn put(&self, caller: usize, id: u64) -> bool {
        let place = self.places.fetch_add(1, Ordering::Relaxed);
        let body = json!({
            "id": id,
            "geometry": at(place),
            "properties": {"place": place, "caller": caller},
            "userId": caller,
        });
        let api = self.apis[caller % self.apis.len()];
        let (status, body) =
            answer(self.server.send_to(api, Method::PUT, "/location", Some(&body)).await).await;
        let answer = match status {
            StatusCode::CREATED => Some(body["data"]["updatedLocationResult"].clone()),
            StatusCode::SERVICE_UNAVAILABLE => None,
            other => panic!("{other}: {body}"),
        };
        let is_answered = answer.is_some();
        self.moves.lock().unwrap().push(Move { caller, id, place, answer });
        if is_answered {
            self.answered.send_modify(|answered| *answered += 1);
        }
        is_answered
    }

    /// Waits until so many more PUTs have been answered with 201.
    pub async fn answers(&self, more: u64) {
        let mut answered = self.answered.subscribe();
        let goal = *answered.borrow() + more;
        let waited = timeout(PATIENCE, answered.wait_for(|answered| *answered >= goal)).await;
        drop(waited.expect("writing goes on").expect("callers"));
    }

    /// Every location's history is dense and ends with the location as it stands; it has what was
    /// answered, whole and under that version, what was refused at most once, and nothing else.
    pub async fn check(self) -> Report {
        let moves = self.moves.into_inner().unwrap();
        let mut seen = HashSet::new();
        let mut newest = HashMap::new();
        for Move { caller, id, answer, .. } in &moves {
            let Some(feature) = answer else { continue };
            let version = version(feature);
            assert!(seen.insert((*id, version)), "version {version} of {id} was answered twice");
            let before = newest.insert((*caller, *id), version);
            assert!(before < Some(version), "{caller} moved {id} to {version} after {before:?}");
        }
        for id in self.ids {
            let history = self.server.history(*id).await;
            assert_eq!(versions(&history), (1..=history.len() as u64).collect::<Vec<_>>(), "{id}");
            let mut unclaimed: HashMap<_, _> =
                history[1..].iter().map(|kept| (kept["geometry"].to_string(), kept)).collect();
            assert_eq!(unclaimed.len(), history.len() - 1, "{id}: an update was applied twice");
            for Move { caller, place, answer, .. } in moves.iter().filter(|own| own.id == *id) {
                let kept = unclaimed.remove(&at(*place).to_string());
                match answer {
                    Some(answer) => assert_eq!(kept, Some(answer), "{id}: answered and not kept"),
                    None => assert!(kept.is_none_or(|kept| {
                        kept["properties"]["place"] == *place && kept["properties"]["updatedBy"] == *caller
                    })),
                }
            }
            assert!(unclaimed.is_empty(), "{id}: updates that nobody sent: {unclaimed:?}");
        }
        let answered = moves.iter().filter(|own| own.answer.is_some()).count() as u64;
        Report { answered, refused: moves.len() as u64 - answered }
    }
}
