//! Writers that never pause: each waits for an answer and sends the next move, to a place where nothing
//! ever was.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{clients::PATIENCE, history::version, point};

/// How often a server that is away is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// How long a server may take to say that its database is away.
pub const REFUSED_WITHIN: Duration = Duration::from_secs(12);

/// A move that was answered.
#[derive(Debug)]
pub struct Answered {
    pub id: u64,
    pub version: u64,
    pub geometry: Value,
}

/// What came of all moves.
#[derive(Debug, Default)]
pub struct Written {
    pub answered: Vec<Answered>,
    /// Location and geometry where no answer came: it may have been done or not.
    pub unanswered: Vec<(u64, Value)>,
    /// How many of those were answered with 503.
    pub refused: usize,
    /// What took longest of all answers.
    pub slowest: Duration,
}

/// What a writer does when no answer comes.
#[derive(Clone, Copy, PartialEq)]
pub enum Outage {
    GoOn,
    GiveUp,
    /// There is always an answer: the server stays, and says 503 while its database is away.
    Refused,
}

pub struct Writers {
    written: Arc<Mutex<Written>>,
    answered: watch::Receiver<usize>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Writers with these user ids, together on these locations. With a pace each makes one move in that
    /// time.
    pub fn start(
        api: &str,
        locations: &[u64],
        users: Range<u32>,
        outage: Outage,
        pace: Option<Duration>,
    ) -> Self {
        let written = Arc::new(Mutex::new(Written::default()));
        let (count, answered) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let http = reqwest::Client::new();
        for user in users {
            let (http, url, locations) = (http.clone(), format!("{api}/location"), locations.to_vec());
            let (written, count, stop) = (written.clone(), count.clone(), stop.clone());
            tasks.spawn(async move {
                let mut ticks = pace.map(interval);
                if let Some(ticks) = &mut ticks {
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
                for turn in 0_u32.. {
                    if let Some(ticks) = &mut ticks {
                        ticks.tick().await;
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = locations[(user + turn) as usize % locations.len()];
                    // No whole numbers and no exponents: all that print numbers print these alike.
                    let lon = f64::from(user % 180) + f64::from(user / 180) / 1024.0 + 0.5;
                    let geometry = point(lon, f64::from(turn) / 4096.0 + 0.03125);
                    let body = json!({"id": id, "userId": user, "geometry": geometry});
                    let Some(feature) = put(&http, &url, &body, outage, &written).await else {
                        written.lock().unwrap().unanswered.push((id, geometry));
                        if outage == Outage::GiveUp {
                            return;
                        }
                        sleep(RETRY).await;
                        continue;
                    };
                    assert_eq!((&feature["id"], &feature["geometry"]), (&json!(id), &geometry));
                    let version = version(&feature);
                    written.lock().unwrap().answered.push(Answered { id, version, geometry });
                    count.send_modify(|count| *count += 1);
                }
            });
        }
        Self { written, answered, stop, tasks }
    }

    /// Waits for so many more answers.
    pub async fn wrote(&mut self, more: usize) {
        let until = *self.answered.borrow() + more;
        let answered = timeout(PATIENCE, self.answered.wait_for(|count| *count >= until)).await;
        answered.unwrap_or_else(|_| panic!("not {until} answers")).expect("writers");
    }

    /// Waits until each location has been moved again; fails unless that is in time.
    pub async fn wrote_all(&mut self, time: Duration) {
        let (before, started) = (self.heads(), Instant::now());
        loop {
            let heads = self.heads();
            let still: Vec<_> = before.iter().filter(|(id, head)| heads[id] <= **head).collect();
            if still.is_empty() {
                return;
            }
            let left = time.saturating_sub(started.elapsed());
            let more = timeout(left, self.answered.changed()).await;
            more.unwrap_or_else(|_| panic!("not moved within {time:?}: {still:?}")).expect("writers");
        }
    }

    /// The newest version of each location in the answers so far.
    pub fn heads(&self) -> BTreeMap<u64, u64> {
        self.written.lock().unwrap().heads()
    }

    /// Lets everybody wait for the last answer.
    pub async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.ended().await
    }

    /// Waits until everybody has given up.
    pub async fn ended(mut self) -> Written {
        while let Some(ended) = timeout(PATIENCE, self.tasks.join_next()).await.expect("the writers' end") {
            ended.expect("a writer that saw nothing wrong");
        }
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

impl Written {
    pub fn heads(&self) -> BTreeMap<u64, u64> {
        let mut heads = BTreeMap::new();
        for Answered { id, version, .. } in &self.answered {
            let head = heads.entry(*id).or_insert(0);
            *head = (*version).max(*head);
        }
        heads
    }
}

/// The Feature of the answer; none if there was no whole one, or a refusal where that may be.
async fn put(
    http: &reqwest::Client,
    url: &str,
    body: &Value,
    outage: Outage,
    written: &Mutex<Written>,
) -> Option<Value> {
    let started = Instant::now();
    let answer = http.put(url).json(body).send().await;
    if outage == Outage::Refused {
        let (took, answer) = (started.elapsed(), answer.as_ref().expect("an answer"));
        assert!(took < REFUSED_WITHIN, "{} after {took:?}", answer.status());
        let mut written = written.lock().unwrap();
        written.slowest = written.slowest.max(took);
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(answer.headers().contains_key(RETRY_AFTER));
            written.refused += 1;
            return None;
        }
    }
    let answer = answer.ok()?;
    let status = answer.status();
    let answer: Value = answer.json().await.ok()?;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    Some(answer["data"]["updatedLocationResult"].clone())
}
