//! Making, moving, reading and removing locations over HTTP.

use reqwest::{Method, StatusCode, header};
use serde_json::json;

use crate::{
    on_both_databases,
    support::{
        Db, TestServer, answer,
        features::{geometries, same},
        point,
    },
};

on_both_databases!(
    every_geometry_comes_back_bit_for_bit,
    altitudes_survive_an_update_of_properties,
    a_put_is_answered_with_its_version,
    a_location_can_be_read_conditionally,
    a_deleted_location_is_gone_and_its_id_never_used_again,
);

async fn every_geometry_comes_back_bit_for_bit(db: Db) {
    let server = TestServer::start(db).await;
    for geometry in geometries() {
        let (status, answer) =
            server.post(&json!({"type": "Feature", "geometry": geometry, "properties": null})).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let location = &answer["data"]["location"];
        assert!(same(&location["geometry"], &geometry), "{geometry} {location}");
        let (_, read) = server.get(&format!("/location/{}", location["id"])).await;
        assert!(same(&read, location), "{read} {location}");
        let (_, list) = server.get("/location?perPage=1").await;
        assert!(same(&list["features"][0], location), "{list}");
    }
    server.stop().await;
}

async fn altitudes_survive_an_update_of_properties(db: Db) {
    let server = TestServer::start(db).await;
    for geometry in geometries() {
        let id = server.create_at(0.0, 0.0).await;
        server.put(&json!({"id": id, "geometry": geometry})).await;
        let (status, answer) = server.put(&json!({"id": id, "properties": {"name": "Matterhorn ⛰"}})).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        assert!(same(&answer["data"]["updatedLocationResult"]["geometry"], &geometry), "{answer}");
        let (_, read) = server.get(&format!("/location/{id}")).await;
        assert!(same(&read["geometry"], &geometry), "{read}");
        assert_eq!(read["properties"]["name"], "Matterhorn ⛰");
        // And back to a plain point: no altitude of the old geometry may stay behind.
        server.move_to(id, 1.0, 2.0).await;
        let (_, read) = server.get(&format!("/location/{id}")).await;
        assert!(same(&read["geometry"], &point(1.0, 2.0)), "{read}");
    }
    server.stop().await;
}

async fn a_put_is_answered_with_its_version(db: Db) {
    let server = TestServer::start(db).await;
    let (_, made) =
        server.post(&json!({"geometry": point(1.0, 2.0), "properties": {"name": "bus"}, "userId": 7})).await;
    let made = &made["data"]["location"];
    assert_eq!(made["properties"]["version"], 1);
    assert_eq!(made["properties"]["userId"], 7);
    assert_eq!(made["properties"]["updatedBy"], 7);

    // Nothing changes, and yet it is a version.
    let id = made["id"].as_u64().unwrap();
    let (_, same) = server.put(&json!({"id": id, "properties": {}, "userId": 0})).await;
    let same = &same["data"]["updatedLocationResult"];
    assert_eq!(same["properties"]["version"], 2);
    assert_eq!(same["properties"]["userId"], 7);
    assert_eq!(same["properties"]["updatedBy"], 0);
    assert_eq!(same["properties"]["createdAt"], made["properties"]["createdAt"]);

    // A Feature may be sent back as it came: what the server writes is ignored.
    let (status, sent_back) =
        answer(server.send(Method::PUT, &format!("/location/{id}"), Some(same)).await).await;
    assert_eq!(status, StatusCode::CREATED, "{sent_back}");
    let sent_back = &sent_back["data"]["updatedLocationResult"];
    assert_eq!(sent_back["properties"]["version"], 3);
    assert_eq!(sent_back["properties"]["name"], "bus");

    let (status, missing) = server.put(&json!({"id": id + 1, "geometry": point(0.0, 0.0)})).await;
    assert_eq!((status, &missing["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    server.stop().await;
}

async fn a_location_can_be_read_conditionally(db: Db) {
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let url = format!("{}/location/{id}", server.api);
    let read = server.http.get(&url).send().await.unwrap();
    assert_eq!(read.headers()[header::CONTENT_TYPE], "application/geo+json");
    let etag = read.headers()[header::ETAG].clone();
    let again = async || server.http.get(&url).header(header::IF_NONE_MATCH, &etag).send().await.unwrap();
    assert_eq!(again().await.status(), StatusCode::NOT_MODIFIED);
    server.move_to(id, 1.0, 2.0).await;
    let changed = again().await;
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(changed.headers()[header::ETAG], etag);
    let head = server.http.head(&url).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()[header::ETAG], changed.headers()[header::ETAG]);
    server.stop().await;
}

async fn a_deleted_location_is_gone_and_its_id_never_used_again(db: Db) {
    let server = TestServer::start(db).await;
    let first = server.create_at(1.0, 2.0).await;
    let last = server.create_at(1.0, 2.0).await;
    assert_eq!(server.delete(last).await, StatusCode::NO_CONTENT);
    assert_eq!(server.delete(last).await, StatusCode::NOT_FOUND);
    assert_eq!(server.get(&format!("/location/{last}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.put(&json!({"id": last, "properties": {}})).await.0, StatusCode::NOT_FOUND);
    for query in ["", "?bbox=0,1,2,3", "?near=1,2&radius=10"] {
        let (_, list) = server.get(&format!("/location{query}")).await;
        let ids: Vec<_> =
            list["features"].as_array().unwrap().iter().map(|feature| feature["id"].clone()).collect();
        assert_eq!(ids, [json!(first)], "{query}");
    }
    assert!(server.create_at(1.0, 2.0).await > last);
    server.stop().await;
}
