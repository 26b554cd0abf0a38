//! Compares what writers were answered, what the server has kept and what followers were sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{followers::Followed, history::version, site::Site, writers::Written};

/// What was acknowledged is kept, what is kept was sent, nothing was done twice, and everybody saw just
/// that.
pub async fn check_promises(site: &Site, written: &Written, followed: &[Followed]) {
    let mut acknowledged: HashMap<u64, BTreeMap<u64, &Value>> = HashMap::new();
    for answer in &written.answered {
        let other = acknowledged.entry(answer.id).or_default().insert(answer.version, &answer.geometry);
        assert_eq!(other, None, "version {} of {} was given to two writers", answer.version, answer.id);
    }
    let unanswered: HashSet<_> =
        written.unanswered.iter().map(|(id, geometry)| (*id, geometry.to_string())).collect();
    for (id, acknowledged) in acknowledged {
        let history = site.history(id).await;
        let current = site.get(id).await;
        assert_eq!(history.last(), Some(&current));
        let reaches_back = version(&history[0]);
        let head = version(&current);
        assert!(reaches_back == 1 || reaches_back <= head - 999, "{id}: {reaches_back}…{head}");
        let kept: BTreeMap<_, _> =
            history.iter().map(|feature| (version(feature), &feature["geometry"])).collect();
        for (version, geometry) in acknowledged.range(reaches_back..) {
            assert_eq!(kept.get(version), Some(geometry), "version {version} of {id} was acknowledged");
        }
        assert!(acknowledged.keys().all(|version| *version <= head), "{id}: acknowledged and lost");
        let mut once = HashSet::new();
        for (version, geometry) in kept {
            assert!(once.insert(geometry.to_string()), "{id}: done twice, again as version {version}");
            assert!(
                version == 1
                    || acknowledged.contains_key(&version)
                    || unanswered.contains(&(id, geometry.to_string())),
                "version {version} of {id} was sent by nobody: {geometry}"
            );
        }
        for room in followed.iter().flat_map(|follower| &follower.rooms).filter(|room| room.id == id) {
            assert_eq!(room.last, Some(head));
            assert_eq!(room.coordinates, current["geometry"]["coordinates"]);
            room.check_against(&history);
        }
    }
}
