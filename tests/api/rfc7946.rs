//! Every example of RFC 7946 goes in and comes back as it went in, or is refused where it is no location.

use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    cases::rfc7946::geometries,
    on_both_databases, on_one_database,
    support::{
        Db, TestServer, answer,
        features::{own, same},
        problem::Problem,
    },
};

on_both_databases!(every_geometry_of_the_rfc_comes_back_identical);

on_one_database!(
    every_feature_of_the_rfc_comes_back_identical,
    what_the_rfc_knows_and_is_no_location_is_refused,
);

/// Section 1.5's, which are those of its FeatureCollection, and the Features of sections 5 and 6.1.
fn features() -> Vec<(&'static str, Value)> {
    let triangle = json!({"type": "Polygon", "coordinates": [
        [[-10.0, -10.0], [10.0, -10.0], [10.0, 10.0], [-10.0, -10.0]],
    ]});
    // Where the RFC abridges with `{...}`.
    let (geometry, properties) =
        (json!({"type": "Point", "coordinates": [102.0, 0.5]}), json!({"prop0": "value0"}));
    let of_section_1_5 = example_1_5()["features"].as_array().expect("an array").clone();
    let mut features: Vec<_> = of_section_1_5.into_iter().map(|feature| ("1.5 Example", feature)).collect();
    features.extend([
        (
            "5 Bounding Box, 2D on a Feature",
            json!({
                "type": "Feature", "bbox": [-10.0, -10.0, 10.0, 10.0], "geometry": triangle, "properties": {},
            }),
        ),
        // RFC 7946 §3.2: properties may be null.
        (
            "3.2 Feature Object, null properties",
            json!({
                "type": "Feature", "geometry": geometry, "properties": null,
            }),
        ),
        (
            "6.1 Foreign Members, title",
            json!({
                "type": "Feature", "id": "f1", "geometry": geometry, "properties": properties,
                "title": "Example Feature",
            }),
        ),
        (
            "6.1 Foreign Members, centerline",
            json!({
                "type": "Feature", "id": "f2", "geometry": geometry, "properties": properties,
                "centerline": {"type": "LineString", "coordinates": [[-170, 10], [170, 11]]},
            }),
        ),
    ]);
    for bbox in bboxes() {
        features.push((
            "5 Bounding Box, every other one",
            json!({"type": "Feature", "bbox": bbox, "geometry": geometry, "properties": properties}),
        ));
    }
    features
}

/// Section 5's, with 78 and -60 for its `minlat` and `maxlat`, 170 and -170 for `westlon` and `eastlon`.
fn bboxes() -> Vec<Value> {
    vec![
        json!([100.0, 0.0, 105.0, 1.0]),
        json!([100.0, 0.0, -100.0, 105.0, 1.0, 0.0]),
        json!([177.0, -20.0, -178.0, -16.0]),
        json!([-178.0, -20.0, 177.0, -16.0]),
        json!([-180.0, 78.0, 180.0, 90.0]),
        json!([-180.0, -90.0, 180.0, -60.0]),
        json!([170.0, 78.0, -170.0, 90.0]),
        json!([170.0, -90.0, -170.0, -60.0]),
    ]
}

fn example_1_5() -> Value {
    json!({"type": "FeatureCollection", "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [102.0, 0.5]},
            "properties": {"prop0": "value0"},
        },
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": [
                [102.0, 0.0], [103.0, 1.0], [104.0, 0.0], [105.0, 1.0],
            ]},
            "properties": {"prop0": "value0", "prop1": 0.0},
        },
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [
                [[100.0, 0.0], [101.0, 0.0], [101.0, 1.0], [100.0, 1.0], [100.0, 0.0]],
            ]},
            "properties": {"prop0": "value0", "prop1": {"this": "that"}},
        },
    ]})
}

async fn every_geometry_of_the_rfc_comes_back_identical(db: Db) {
    let server = TestServer::start(db).await;
    let moved = server.create_at(0.0, 0.0).await;
    for (section, geometry) in geometries() {
        let (status, made) = server.post(&json!({"geometry": geometry})).await;
        assert_eq!(status, StatusCode::CREATED, "{section}: {made}");
        let location = &made["data"]["location"];
        let (status, put) = server.put(&json!({"id": moved, "geometry": geometry})).await;
        assert_eq!(status, StatusCode::CREATED, "{section}: {put}");
        let (_, read) = server.get(&format!("/location/{}", location["id"])).await;
        let (_, read_moved) = server.get(&format!("/location/{moved}")).await;
        for feature in [location, &put["data"]["updatedLocationResult"], &read, &read_moved] {
            assert!(same(&feature["geometry"], &geometry), "{section}: {feature}");
        }
    }
    server.stop().await;
}

async fn every_feature_of_the_rfc_comes_back_identical(db: Db) {
    let server = TestServer::start(db).await;
    for (section, feature) in features() {
        let (status, made) = server.post(&feature).await;
        assert_eq!(status, StatusCode::CREATED, "{section}: {made}");
        let id = made["data"]["location"]["id"].as_u64().expect("the server gives the id");
        let (_, read) = server.get(&format!("/location/{id}")).await;
        for answered in [&made["data"]["location"], &read] {
            assert_eq!(answered["type"], "Feature");
            assert!(same(&answered["geometry"], &feature["geometry"]), "{section}: {answered}");
            let sent = feature["properties"].as_object().cloned().unwrap_or_default();
            assert!(same(&own(answered), &sent.into()), "{section}: {answered}");
        }
        // And back as a PUT, foreign members, bbox and all.
        let path = format!("/location/{id}");
        let mut again = feature.clone();
        again.as_object_mut().expect("a Feature").shift_remove("id");
        let (status, put) = answer(server.send(Method::PUT, &path, Some(&again)).await).await;
        assert_eq!(status, StatusCode::CREATED, "{section}: {put}");
        let put = &put["data"]["updatedLocationResult"];
        assert!(same(&put["geometry"], &feature["geometry"]), "{section}: {put}");
        assert!(same(&own(put), &own(&read)), "{section}: {put}");
    }
    server.stop().await;
}

async fn what_the_rfc_knows_and_is_no_location_is_refused(db: Db) {
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut refused = vec![
        ("1.5 Example", example_1_5(), Code::InvalidBody, "/type"),
        (
            "3.2 Feature Object, unlocated",
            json!({"type": "Feature", "geometry": null, "properties": {"prop0": "value0"}}),
            Code::GeometryRequired,
            "/geometry",
        ),
        (
            "3.1.8 Geometry Collection, empty",
            json!({"geometry": {"type": "GeometryCollection", "geometries": []}}),
            Code::EmptyGeometry,
            "/geometry/geometries",
        ),
        (
            "3.1 Geometry Object, empty coordinates",
            json!({"geometry": {"type": "MultiPoint", "coordinates": []}}),
            Code::EmptyGeometry,
            "/geometry/coordinates",
        ),
    ];
    for bbox in bboxes().into_iter().take(2) {
        let collection = json!({"type": "FeatureCollection", "bbox": bbox, "features": []});
        refused.push(("5 Bounding Box, on a FeatureCollection", collection, Code::InvalidBody, "/type"));
    }
    for (section, geometry) in geometries() {
        refused.push((section, geometry, Code::InvalidBody, "/type"));
    }
    for (section, body, code, pointer) in refused {
        for (method, path) in
            [(Method::POST, "/location".to_owned()), (Method::PUT, format!("/location/{id}"))]
        {
            let answer = Problem::of(server.send(method, &path, Some(&body)).await).await;
            let problem = Problem::check(answer, StatusCode::UNPROCESSABLE_ENTITY, code, section);
            assert_eq!(problem.pointer.as_deref(), Some(pointer), "{section}: {problem:?}");
        }
    }
    assert_eq!(server.get("/location").await.1["total"], 1);
    assert_eq!(server.get(&format!("/location/{id}")).await.1["properties"]["version"], 1);
    server.stop().await;
}
