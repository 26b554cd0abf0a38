//! Stock clients that reconnect by themselves and join again with the last version they have seen
//! (`tests/clients/fleet.mjs`).

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::{
    clients::{Client, Clients, PATIENCE},
    history::version,
};

/// One room of a follower, and the `since` of its first join.
pub type Entry = (u64, Option<u64>);

/// Many followers, in one Node process or in several.
pub struct Followers {
    gateway: String,
    /// Each process, and the one client of it that all its followers are.
    fleets: Vec<(Clients, Client)>,
    count: usize,
}

/// What a follower saw.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Followed {
    pub name: usize,
    connected: bool,
    pub connects: usize,
    /// Why each connection ended.
    pub reasons: Vec<String>,
    pub rooms: Vec<FollowedRoom>,
}

/// What a follower saw of a room.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowedRoom {
    pub id: u64,
    /// Nothing is missing from here to `last`.
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub at_disconnect: Option<u64>,
    /// Of all that came from `first` to `last`.
    digest: u32,
    pub coordinates: Value,
    pub updates: u64,
    pub holes: u64,
    pub repeats: u64,
    pub joins: usize,
    pub recovered: usize,
    pub unrecovered: usize,
    /// Is it where `reach` wants it?
    reached: bool,
}

impl Followers {
    pub fn start(processes: usize, gateway: &str) -> Self {
        let fleet = || {
            let clients = Clients::start();
            let fleet = clients.attach();
            (clients, fleet)
        };
        Self { gateway: gateway.to_owned(), fleets: (0..processes).map(|_| fleet()).collect(), count: 0 }
    }

    fn command(&self, follower: usize, mut command: Value) {
        command["follower"] = follower.into();
        self.fleets[follower % self.fleets.len()].1.command(command);
    }

    /// One more, of some generation over one transport; it connects and joins these rooms.
    pub fn add(&mut self, (version, transport): (&str, &str), rooms: &[Entry]) -> usize {
        let follower = self.count;
        self.count += 1;
        // Soon back, and not all at the same moment.
        let opts = json!({
            "transports": [transport],
            "reconnectionDelay": 200,
            "reconnectionDelayMax": 800,
            "randomizationFactor": 0.5,
        });
        let command =
            json!({"op": "follow", "version": version, "url": self.gateway, "opts": opts, "rooms": rooms});
        self.command(follower, command);
        follower
    }

    /// Has a follower join more rooms.
    pub fn enter(&self, follower: usize, rooms: &[Entry]) {
        self.command(follower, json!({"op": "enter", "rooms": rooms}));
    }

    /// Drops a follower's connection without a word.
    pub fn cut(&self, follower: usize) {
        self.command(follower, json!({"op": "cut"}));
    }

    /// Keeps everybody from reading for some time.
    pub async fn block(&self, time: Duration) {
        join_all(self.fleets.iter().map(|(clients, _)| clients.block(time))).await;
    }

    /// Waits until everybody is connected and in all their rooms, with at least these versions.
    pub async fn reach(&mut self, versions: &BTreeMap<u64, u64>) {
        self.reach_within(PATIENCE * 3 / 4, versions).await;
    }

    pub async fn reach_within(&mut self, time: Duration, versions: &BTreeMap<u64, u64>) {
        for (_, fleet) in &self.fleets {
            fleet.command(json!({"op": "reach", "versions": versions}));
        }
        let all = async {
            for (_, fleet) in &mut self.fleets {
                assert_eq!(fleet.next().await["kind"], "reached");
            }
        };
        if timeout(time, all).await.is_err() {
            let (faults, followed) = self.ask().await;
            let missing: Vec<_> = followed
                .iter()
                .filter(|one| !one.connected || one.rooms.iter().any(|room| !room.reached))
                .collect();
            panic!(
                "{} are not at {versions:?} after {time:?}; {faults:#?}, {:#?}",
                missing.len(),
                missing.first(),
            );
        }
    }

    async fn ask(&mut self) -> (Vec<Value>, Vec<Followed>) {
        let (mut faults, mut followed) = (Vec::new(), Vec::new());
        for (_, fleet) in &mut self.fleets {
            fleet.command(json!({"op": "summary"}));
            let mut summary = fleet.until("summary").await;
            faults.extend(summary["faults"].as_array().expect("a list").iter().cloned());
            let part: Vec<Followed> = serde_json::from_value(summary["followers"].take()).expect("a summary");
            followed.extend(part);
        }
        followed.sort_by_key(|follower| follower.name);
        (faults, followed)
    }

    /// What everybody saw, nobody of which may have seen anything wrong: each version once, in order, after
    /// the answer to the join, and every join answered with what was missed.
    pub async fn summary(&mut self) -> Vec<Followed> {
        let (faults, followed) = self.ask().await;
        assert_eq!(faults, Vec::<Value>::new());
        assert_eq!(followed.len(), self.count);
        for follower in &followed {
            for room in &follower.rooms {
                let FollowedRoom { first: Some(first), last: Some(last), .. } = *room else {
                    panic!("nothing seen: {follower:#?}");
                };
                assert_eq!((room.holes, room.repeats), (0, 0), "{follower:#?}");
                assert_eq!(room.unrecovered, 0, "missed versions were not replayed: {follower:#?}");
                assert_eq!(room.updates, last + 1 - first, "{follower:#?}");
            }
        }
        followed
    }
}

impl FollowedRoom {
    /// Fails unless all that was seen is what is kept.
    pub fn check_against(&self, history: &[Value]) {
        let first = history.first().map(version);
        // A history may have lost its beginning.
        if self.first < first {
            return;
        }
        let seen = history
            .iter()
            .filter(|feature| Some(version(feature)) >= self.first && Some(version(feature)) <= self.last);
        let mut digest = 0x811c_9dc5_u32;
        for feature in seen {
            let properties = &feature["properties"];
            let text = format!(
                "{} {} {} {}\n",
                properties["version"],
                properties["updatedBy"],
                properties["updatedAt"].as_str().expect("a time"),
                feature["geometry"]["coordinates"],
            );
            digest = text
                .bytes()
                .fold(digest, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        }
        assert_eq!(self.digest, digest, "other content than what is kept: {self:#?}");
    }
}
