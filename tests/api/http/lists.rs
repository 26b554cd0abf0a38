//! Parameters of lists, their order and their pages.

use super::*;

on_both_databases!(
    a_list_is_newest_created_first_then_higher_id,
    paging_shows_every_location_once,
    only_a_list_without_filters_has_a_total,
);

#[tokio::test]
async fn every_bad_parameter_is_refused() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    for query in [
        "page=0",
        "page=-1",
        "page=1.0",
        "page=1e1",
        "page=+1",
        "page=%201",
        "page=",
        "page",
        "page=one",
        "page=١",
        "page=99999999999999999999",
        "page=18446744073709551615",
        "perPage=0",
        "perPage=101",
        "perPage=-20",
        "perPage=20.0",
        "perPage=",
        "perPage=all",
        "perPage=18446744073709551616",
        "page=1&page=1",
        "perPage=20&perPage=20",
        "page=1&perPage=20&page=2",
        "bbox=0,0,1,1&bbox=0,0,1,1",
        "near=0,0&radius=1&radius=1",
        "userId=1&userId=1",
        "per_page=20",
        "perpage=20",
        "limit=20",
        "Page=1",
        "BBOX=0,0,1,1",
        "bbox[]=0",
        "=1",
        "x=%FF",
        "bbox=",
        "bbox=0,0,1",
        "bbox=0,0,1,1,1",
        "bbox=0,0,0,1,1,1",
        "bbox=0,0,1,1,",
        "bbox=,0,0,1,1",
        "bbox=0;0;1;1",
        "bbox=0%200%201%201",
        "bbox=0,%200,1,1",
        "bbox=[0,0,1,1]",
        "bbox=w,s,e,n",
        "bbox=0x1,0,1,1",
        "bbox=NaN,0,1,1",
        "bbox=0,0,inf,1",
        "bbox=0,-infinity,1,1",
        "bbox=0,0,1e999,1",
        "bbox=-540.0000001,0,1,1",
        "bbox=0,0,540.0000001,1",
        "bbox=0,-90.0000001,1,1",
        "bbox=0,0,1,90.0000001",
        "bbox=0,1,1,0",
        "bbox=170,1,-170,0",
        "near=0,0",
        "radius=10",
        "bbox=0,0,1,1&radius=10",
        "near=&radius=10",
        "near=1&radius=10",
        "near=1,2,3&radius=10",
        "near=a,b&radius=10",
        "near=NaN,0&radius=10",
        "near=180.0000001,0&radius=10",
        "near=-180.0000001,0&radius=10",
        "near=0,90.0000001&radius=10",
        "near=0,-90.0000001&radius=10",
        "near=0,0&radius=",
        "near=0,0&radius=-1",
        "near=0,0&radius=-0.001",
        "near=0,0&radius=NaN",
        "near=0,0&radius=inf",
        "near=0,0&radius=1e999",
        "near=0,0&radius=10m",
        "near=0,0&radius=1,0",
    ] {
        let path = format!("/location?{query}");
        refused(&server, "GET", &path, 422, Code::InvalidParameter).await;
    }
    for user in ["", "-1", "1.0", "me", "9007199254740992", "%201"] {
        for (method, path) in [
            ("GET", "/location".to_owned()),
            ("GET", format!("/location/{id}")),
            ("DELETE", format!("/location/{id}")),
        ] {
            refused(&server, method, &format!("{path}?userId={user}"), 422, Code::InvalidUserId).await;
        }
    }
    for query in ["page=1", "x", "userId=1&userId=1", "bbox=0,0,1,1"] {
        for method in ["GET", "DELETE"] {
            let path = format!("/location/{id}?{query}");
            refused(&server, method, &path, 422, Code::InvalidParameter).await;
        }
    }
    for query in ["userId=0", "_=1795221296000", "_dc=1&userId=0"] {
        assert_eq!(server.get(&format!("/location/{id}?{query}")).await.0, StatusCode::OK, "{query}");
        assert_eq!(server.get(&format!("/location/{id}/history?{query}")).await.0, StatusCode::OK, "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn good_parameters_are_taken_to_their_ends() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(-180.0, 10.0).await;
    let (_, list) = server.get("/location").await;
    assert_eq!(list["type"], "FeatureCollection");
    assert_eq!((&list["page"], &list["perPage"], &list["total"]), (&json!(1), &json!(20), &json!(1)));
    for (query, page, per_page, found) in [
        ("perPage=1", 1, 1, true),
        ("perPage=100", 1, 100, true),
        ("page=2", 2, 20, false),
        ("page=1000000000&perPage=100", 1_000_000_000, 100, false),
        ("userId=7", 1, 20, true),
        ("userId=9007199254740991&page=1", 1, 20, true),
        ("%70age=1&per%50age=5", 1, 5, true),
        ("bbox=-180,-90,180,90", 1, 20, true),
        ("bbox=-180%2C-90%2C180%2C90", 1, 20, true),
        ("bbox=-1.8e2,10.0,-180,1e1", 1, 20, true),
        ("bbox=179,9,-179,11", 1, 20, true),
        ("bbox=180,10,-180,10", 1, 20, true),
        ("bbox=-179.9,9,179.9,11", 1, 20, false),
        ("bbox=170,9,190,11", 1, 20, true),
        ("bbox=-190,9,-170,11", 1, 20, true),
        ("bbox=180,9,190,11", 1, 20, true),
        ("bbox=181,9,539,11", 1, 20, false),
        ("_=1795221296000&perPage=7&_dc=1", 1, 7, true),
        ("_=1&_=2", 1, 20, true),
        ("near=-180,10&radius=0", 1, 20, true),
        ("near=180,10&radius=0.001", 1, 20, true),
        ("near=-180%2C10&radius=5", 1, 20, true),
        ("near=0,-90&radius=1e7", 1, 20, false),
        ("near=0,90&radius=1e300", 1, 20, true),
        ("near=-180,10&radius=5&bbox=-180,9,-179,11&perPage=3", 1, 3, true),
        ("near=-180,10&radius=5&bbox=0,9,1,11", 1, 20, false),
    ] {
        let response = send(&server, "GET", &format!("/location?{query}")).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/geo+json", "{query}");
        let (status, list) = answer(response).await;
        assert_eq!(status, StatusCode::OK, "{query}: {list}");
        assert_eq!((&list["page"], &list["perPage"]), (&json!(page), &json!(per_page)), "{query}");
        assert_eq!(ids(&list), if found { vec![id] } else { Vec::new() }, "{query}");
    }
    server.stop().await;
}

async fn only_a_list_without_filters_has_a_total(db: Db) {
    let server = TestServer::start(db).await;
    for query in ["", "?bbox=-1,-1,1,1", "?near=0,0&radius=10"] {
        let (_, list) = server.get(&format!("/location{query}")).await;
        assert_eq!(list["features"], json!([]), "{query}");
        assert_eq!(list.get("total"), query.is_empty().then_some(&json!(0)), "{query}");
    }
    let first = server.create_at(0.0, 0.0).await;
    server.create_at(0.0, 0.0).await;
    let (_, page) = server.get("/location?page=3&perPage=1").await;
    assert_eq!((&page["features"], &page["total"]), (&json!([]), &json!(2)));
    let (_, near) = server.get("/location?near=0,0&radius=10").await;
    assert_eq!(near["features"][0]["properties"]["distance"], 0.0);
    assert_eq!(near.get("total"), None);
    server.delete(first).await;
    assert_eq!(server.get("/location").await.1["total"], 1);
    server.stop().await;
}

async fn a_list_is_newest_created_first_then_higher_id(db: Db) {
    let server = TestServer::start(db).await;
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(server.create_at(0.0, 0.0).await);
    }
    // Clocks are set back, and many are made in one millisecond.
    let database = server.database.open().await;
    for (id, created_at) in made.iter().zip([5_000, 9_000, 7_000, 7_000, 1_000, 7_000]) {
        let sql = format!("UPDATE location SET created_at = {created_at} WHERE id = {id}");
        database.execute_unprepared(&sql).await.expect("an update");
    }
    database.close().await.expect("close");
    // A move makes nothing newer.
    server.move_to(made[4], 0.0, 0.0).await;
    let expected = [1, 5, 3, 2, 0, 4].map(|index: usize| made[index]);
    for query in ["", "bbox=-1,-1,1,1"] {
        assert_eq!(ids(&server.get(&format!("/location?{query}")).await.1), expected, "{query}");
        let mut paged = Vec::new();
        for page in 1..=3 {
            paged.extend(ids(&server.get(&format!("/location?{query}&perPage=2&page={page}")).await.1));
        }
        assert_eq!(paged, expected, "{query}");
    }
    server.stop().await;
}

async fn paging_shows_every_location_once(db: Db) {
    let server = TestServer::start(db).await;
    let mut made = Vec::new();
    for n in 0..45 {
        made.push(server.create_at(f64::from(n % 9) / 1000.0, f64::from(n % 5) / 1000.0).await);
        // Not in any of the lists below that filter.
        if n % 9 == 0 {
            made.push(server.create_at(50.0, 50.0).await);
        }
    }
    for (query, all) in [("", 50), ("bbox=-1,-1,1,1&", 45), ("near=0,0&radius=100000&", 45)] {
        for per_page in [1, 7, 15, 20, 100] {
            let mut seen = Vec::new();
            let mut distances = Vec::new();
            for page in 1.. {
                let (status, list) =
                    server.get(&format!("/location?{query}page={page}&perPage={per_page}")).await;
                assert_eq!(status, StatusCode::OK, "{list}");
                let found = ids(&list);
                let rest = all - seen.len();
                assert_eq!(found.len(), rest.min(per_page), "{query} page {page} of {per_page}");
                if found.is_empty() {
                    break;
                }
                seen.extend(found);
                let features = list["features"].as_array().expect("an array");
                distances
                    .extend(features.iter().filter_map(|feature| feature["properties"]["distance"].as_f64()));
            }
            let different: HashSet<u64> = seen.iter().copied().collect();
            assert_eq!((seen.len(), different.len()), (all, all), "{query} by {per_page}: {seen:?}");
            if query.starts_with("near") {
                assert_eq!(distances.len(), all);
                assert!(distances.is_sorted(), "{distances:?}");
            } else {
                assert!(seen.is_sorted_by(|a, b| a > b), "{query} by {per_page}: {seen:?}");
            }
        }
    }
    server.stop().await;
}
