//! The `bbox` and `near` filters over locations that move: what they find is what is there now.

use futures_util::{StreamExt, stream};
use geo::Point;
use geojson::GeometryValue;
use reqwest::StatusCode;
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{
        Db, TestServer,
        lists::{assert_bbox, assert_near},
        point,
        truth::{Bounds, HALF_WAY_ROUND_M, Random, Shape},
    },
};

on_both_databases!(
    lists_agree_with_the_truth_after_many_moves,
    a_pole_is_one_place_and_the_antimeridian_no_border,
    a_radius_of_zero_finds_what_is_exactly_there,
    half_the_circumference_finds_everything,
    boxes_are_of_the_plane,
    the_largest_geometries_are_found_and_sorted,
    the_spatial_index_answers,
);

/// Requests under way at once.
const AT_ONCE: usize = 8;

/// Places where things gather, many of them where longitudes or latitudes end.
const CLUSTERS: [(f64, f64); 10] = [
    (0.0, 0.0),
    (180.0, 0.0),
    (-180.0, -17.0),
    (179.99, 65.0),
    (-179.99, 52.0),
    (0.0, 90.0),
    (123.0, -90.0),
    (-180.0, 90.0),
    (13.4, 52.5),
    (-70.0, -33.0),
];

type Position = [f64; 2];

/// A position in a cluster, or on the very edge of the world if it would fall off.
fn near_to(random: &mut Random, (lon, lat): (f64, f64), spread: f64) -> Position {
    [
        (lon + random.between(-spread, spread)).clamp(-180.0, 180.0),
        (lat + random.between(-spread, spread)).clamp(-90.0, 90.0),
    ]
}

/// A ring that does not cross itself: around a centre, by angle.
fn ring(random: &mut Random, (lon, lat): (f64, f64), low: f64, high: f64) -> Vec<Position> {
    let corners = 3 + random.below(6);
    let mut ring: Vec<Position> = (0..corners)
        .map(|corner| {
            let angle = (corner as f64 + 0.8 * random.unit()) / corners as f64 * std::f64::consts::TAU;
            let radius = random.between(low, high);
            [
                (lon + radius * angle.cos()).clamp(-180.0, 180.0),
                (lat + radius * angle.sin()).clamp(-90.0, 90.0),
            ]
        })
        .collect();
    ring.push(ring[0]);
    ring
}

/// With a hole, half of the time.
fn polygon(random: &mut Random, cluster: (f64, f64), spread: f64) -> Vec<Vec<Position>> {
    let [lon, lat] = near_to(random, cluster, spread);
    let mut rings = vec![ring(random, (lon, lat), 0.7 * spread, spread)];
    if random.unit() < 0.5 {
        rings.push(ring(random, (lon, lat), 0.05 * spread, 0.15 * spread));
    }
    rings
}

fn geometry(random: &mut Random, depth: u32) -> Value {
    let cluster = random.pick(&CLUSTERS);
    let spread = random.pick(&[0.0001, 0.01, 0.5, 4.0]);
    let line = |random: &mut Random| -> Vec<Position> {
        (0..2 + random.below(4)).map(|_| near_to(random, cluster, spread)).collect()
    };
    let several = 1 + random.below(3);
    match random.below(if depth == 0 { 12 } else { 11 }) {
        0..=2 => json!({"type": "Point", "coordinates": near_to(random, cluster, spread)}),
        3 => json!({"type": "MultiPoint", "coordinates": line(random)}),
        4 => json!({"type": "LineString", "coordinates": line(random)}),
        5 => {
            let lines: Vec<_> = (0..several).map(|_| line(random)).collect();
            json!({"type": "MultiLineString", "coordinates": lines})
        }
        6 | 7 => json!({"type": "Polygon", "coordinates": polygon(random, cluster, spread)}),
        8 => {
            let polygons: Vec<_> = (0..several).map(|_| polygon(random, cluster, spread)).collect();
            json!({"type": "MultiPolygon", "coordinates": polygons})
        }
        // A line and an area with nothing to them, and a box around much of the world.
        9 => {
            let position = near_to(random, cluster, spread);
            match random.unit() < 0.5 {
                true => json!({"type": "LineString", "coordinates": [position, position]}),
                false => {
                    json!({"type": "Polygon", "coordinates": [[position, position, position, position]]})
                }
            }
        }
        10 => {
            let [w, n] = [random.between(-180.0, -100.0), random.between(20.0, 80.0)];
            let e = random.between(0.0, 180.0);
            let s = n - random.between(0.001, 2.0);
            // Leaning, because a parallel is slow to measure from a pole.
            let ring = [[w, s], [e, s + 8.0], [e, n + 8.0], [w, n], [w, s]];
            json!({"type": "Polygon", "coordinates": [ring]})
        }
        _ => {
            let parts: Vec<_> = (0..several).map(|_| geometry(random, depth + 1)).collect();
            json!({"type": "GeometryCollection", "geometries": parts})
        }
    }
}

/// Every position changed by the same rule.
fn map(value: &Value, change: &impl Fn(Position) -> Position) -> Value {
    match value {
        Value::Array(items) if items[0].is_number() => {
            let [lon, lat] = change([items[0].as_f64().unwrap(), items[1].as_f64().unwrap()]);
            json!([lon.clamp(-180.0, 180.0), lat.clamp(-90.0, 90.0)])
        }
        Value::Array(items) => items.iter().map(|item| map(item, change)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), map(member, change))).collect()
        }
        other => other.clone(),
    }
}

fn first_position(value: &Value) -> Position {
    match &value.get("coordinates").or(value.get("geometries")).unwrap_or(value)[0] {
        Value::Number(_) => {
            let position = value.get("coordinates").unwrap_or(value);
            [position[0].as_f64().unwrap(), position[1].as_f64().unwrap()]
        }
        inner => first_position(inner),
    }
}

/// Where it goes next: a step inside its index box, one just out of it, far away, smaller, larger, other.
fn moved(random: &mut Random, old: &Value) -> Value {
    let [x, y] = first_position(old);
    let toward = |factor: f64| move |[lon, lat]: Position| [x + (lon - x) * factor, y + (lat - y) * factor];
    match random.below(7) {
        kind @ 0..=2 => {
            let step = [0.001, 0.0046, 3.0][kind];
            let [east, north] = [random.between(-step, step), random.between(-step, step)];
            map(old, &|[lon, lat]| [lon + east, lat + north])
        }
        3 => map(old, &toward(0.001)),
        4 => map(old, &toward(1.5)),
        5 => json!({"type": "Point", "coordinates": [x, y]}),
        _ => geometry(random, 0),
    }
}

fn shape(geometry: &Value) -> Shape {
    let geometry: GeometryValue =
        serde_json::from_value::<geojson::Geometry>(geometry.clone()).expect("GeoJSON").value;
    Shape::from(&geo::Geometry::try_from(&geometry).expect("a geometry of the plane"))
}

async fn make(server: &TestServer, geometry: &Value) -> u64 {
    let (status, answer) = server.post(&json!({"geometry": geometry})).await;
    assert_eq!(status, StatusCode::CREATED, "{geometry}: {answer}");
    answer["data"]["location"]["id"].as_u64().expect("an id")
}

/// A location through its life: made, moved several times, some removed. Returns what is there at the end.
async fn live(server: &TestServer, seed: u64) -> Option<(u64, Value)> {
    let random = &mut Random(seed);
    let mut geometry = geometry(random, 0);
    let id = make(server, &geometry).await;
    for _ in 0..random.below(5) {
        let body = match random.below(6) {
            0 => json!({"id": id, "properties": {"name": "moved in name only"}}),
            _ => {
                geometry = moved(random, &geometry);
                json!({"id": id, "geometry": geometry})
            }
        };
        let (status, answer) = server.put(&body).await;
        assert_eq!(status, StatusCode::CREATED, "{body}: {answer}");
    }
    if random.below(10) == 0 {
        assert_eq!(server.delete(id).await, StatusCode::NO_CONTENT);
        return None;
    }
    Some((id, geometry))
}

async fn lists_agree_with_the_truth_after_many_moves(db: Db) {
    // More than are answered from one statement.
    const LOCATIONS: u64 = 310;
    let server = TestServer::start(db).await;
    let lives = (0..LOCATIONS).map(|seed| live(&server, seed));
    let there: Vec<(u64, Value)> =
        stream::iter(lives).buffer_unordered(AT_ONCE).filter_map(async |life| life).collect().await;
    assert!((257..LOCATIONS as usize).contains(&there.len()), "{}", there.len());
    let shapes: Vec<(u64, Shape)> = there.iter().map(|(id, geometry)| (*id, shape(geometry))).collect();

    let checks = questions(&there).into_iter().map(|(bounds, circle, per_page)| {
        let (server, shapes) = (&server, &shapes);
        async move {
            let by_box = bounds.map(|bounds| bounds.query());
            let by_circle =
                circle.map(|(from, radius_m)| format!("near={},{}&radius={radius_m}", from.x(), from.y()));
            let filter = [by_box, by_circle].into_iter().flatten().collect::<Vec<_>>().join("&");
            let found = server.find(&filter, per_page).await;
            match (bounds, circle) {
                (Some(bounds), None) => {
                    let truth = shapes.iter().filter(|(_, shape)| shape.meets(&bounds)).map(|(id, _)| *id);
                    assert_bbox(&filter, &found, truth);
                }
                (bounds, Some(circle)) => {
                    let shapes = shapes.iter().map(|(id, shape)| (*id, shape));
                    assert_near(&filter, &found, shapes, circle, bounds.as_ref());
                }
                (None, None) => unreachable!(),
            }
            found.len()
        }
    });
    let found: Vec<usize> = stream::iter(checks).buffer_unordered(AT_ONCE).collect().await;
    // The questions are worth asking: many find some, but not all.
    let some = found.iter().filter(|count| (1..there.len()).contains(count)).count();
    assert!(some * 3 > found.len() * 2, "{found:?}");
    server.stop().await;
}

/// Boxes, circles, and both at once; and how many a page.
type Question = (Option<Bounds>, Option<(Point, f64)>, usize);

fn questions(there: &[(u64, Value)]) -> Vec<Question> {
    let mut random = Random(3);
    let mut questions = vec![];
    let place = |random: &mut Random| -> Position {
        match random.below(3) {
            // Exactly on something.
            0 => first_position(&there[random.below(there.len())].1),
            _ => {
                let (cluster, spread) = (random.pick(&CLUSTERS), random.pick(&[0.0, 0.01, 2.0]));
                near_to(random, cluster, spread)
            }
        }
    };
    for turn in 0..160 {
        let [lon, lat] = place(&mut random);
        let bounds = match turn % 5 {
            0 => {
                let [west, east] = [random.between(-180.0, 180.0), random.between(-180.0, 180.0)];
                let south = random.between(-90.0, 90.0);
                Bounds::new(west, south, east, random.between(south, 90.0))
            }
            // No width, no height, or neither.
            1 => Bounds::around(lon, lat, random.pick(&[0.0, 1.0]), 0.0),
            2 => Bounds::around(lon, lat, 0.0, random.pick(&[0.0, 1.0])),
            _ => {
                let half = random.pick(&[1e-7, 0.001, 0.5, 5.0]);
                Bounds::around(lon, lat, half, half * random.between(0.1, 1.0))
            }
        };
        let [lon, lat] = place(&mut random);
        let circle = (Point::new(lon, lat), 10.0_f64.powf(random.between(0.0, 7.0)));
        let per_page = random.pick(&[3, 20, 100]);
        questions.push(match turn % 4 {
            0 | 1 => (Some(bounds), None, per_page),
            2 => (None, Some(circle), per_page),
            _ => (Some(Bounds::around(lon, lat, 20.0, 20.0)), Some(circle), per_page),
        });
    }
    questions.push((Some(Bounds::new(-180.0, -90.0, 180.0, 90.0)), None, 7));
    questions.push((Some(Bounds::new(0.0, -90.0, -1e-9, 90.0)), None, 100));
    questions.push((None, Some((Point::new(180.0, 90.0), HALF_WAY_ROUND_M / 2.0)), 7));
    questions
}

async fn a_pole_is_one_place_and_the_antimeridian_no_border(db: Db) {
    let server = TestServer::start(db).await;
    let mut shapes = Vec::new();
    for geometry in [
        point(0.0, 89.99),
        point(90.0, 89.99),
        point(-180.0, 89.98),
        point(45.0, 90.0),
        json!({"type": "LineString", "coordinates": [[-180, 89.97], [180, 89.97]]}),
        json!({"type": "LineString", "coordinates": [[10, 80], [10, 90]]}),
        point(77.0, -90.0),
        json!({"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, -89], [-180, -89], [-180, -90]]]}),
        point(179.999, 10.0),
        point(-179.999, 10.0),
        point(180.0, 10.0),
        point(-180.0, 10.0),
        // As RFC 7946 wants it: cut in two at the antimeridian.
        json!({"type": "MultiLineString", "coordinates": [[[179, 10.01], [180, 10.01]], [[-180, 10.01], [-179, 10.01]]]}),
    ] {
        shapes.push((make(&server, &geometry).await, shape(&geometry)));
    }
    for (lon, lat) in [
        (0.0, 90.0),
        (-180.0, 90.0),
        (123.0, 90.0),
        (10.0, 89.999_999_9),
        (-100.0, 89.995),
        (0.0, -90.0),
        (180.0, -90.0),
        (33.0, -89.5),
        (180.0, 10.0),
        (-180.0, 10.0),
        (179.9995, 10.005),
        (-179.9, 10.0),
    ] {
        for radius_m in [1.0, 200.0, 1_200.0, 2_300.0, 4_000.0, 60_000.0, 9_000_000.0, 19_000_000.0] {
            let filter = format!("near={lon},{lat}&radius={radius_m}");
            let found = server.find(&filter, 5).await;
            let shapes = shapes.iter().map(|(id, shape)| (*id, shape));
            assert_near(&filter, &found, shapes, (Point::new(lon, lat), radius_m), None);
        }
    }
    server.stop().await;
}

async fn a_radius_of_zero_finds_what_is_exactly_there(db: Db) {
    let server = TestServer::start(db).await;
    let there = make(&server, &point(13.4, 52.5)).await;
    let again = make(&server, &point(13.4, 52.5)).await;
    make(&server, &point(13.400_000_1, 52.5)).await;
    let vertex = json!({"type": "LineString", "coordinates": [[0, 0], [13.4, 52.5]]});
    let vertex = make(&server, &vertex).await;
    let around =
        json!({"type": "Polygon", "coordinates": [[[13, 52], [14, 52], [14, 53], [13, 53], [13, 52]]]});
    let around = make(&server, &around).await;
    let around_hole = json!({"type": "Polygon", "coordinates": [
        [[13, 52], [14, 52], [14, 53], [13, 53], [13, 52]],
        [[13.3, 52.4], [13.5, 52.4], [13.5, 52.6], [13.3, 52.6], [13.3, 52.4]],
    ]});
    make(&server, &around_hole).await;
    let found = server.find("near=13.4,52.5&radius=0", 3).await;
    let ids: Vec<u64> = found.iter().map(|found| found.id).collect();
    assert_eq!(ids, [around, vertex, again, there]);
    assert!(found.iter().all(|found| found.distance_m() == 0.0), "{found:?}");
    server.stop().await;
}

async fn half_the_circumference_finds_everything(db: Db) {
    let server = TestServer::start(db).await;
    let mut random = Random(4);
    let mut shapes = Vec::new();
    let mut centres = vec![(0.0, 90.0), (0.0, -90.0), (180.0, 0.0), (0.0, 0.0)];
    for turn in 0..60 {
        let (lon, lat) = (random.between(-180.0, 180.0), random.between(-90.0, 90.0));
        let antipode = (if lon > 0.0 { lon - 180.0 } else { lon + 180.0 }, -lat);
        centres.push(antipode);
        let geometry = match turn % 2 {
            0 => point(lon, lat),
            _ => json!({"type": "MultiPoint", "coordinates": [[lon, lat]]}),
        };
        shapes.push((make(&server, &geometry).await, shape(&geometry)));
    }
    // All but antipodes, where rounding takes the sine of half the angle past 1.
    for ((lon, lat), antipode) in [
        ((75.38639586069212, -64.3321631578354), (-104.61360413930788, 64.3321631578355)),
        ((56.58566627924998, -65.76), (-123.41433372074992, 65.7599999999999)),
    ] {
        centres.push(antipode);
        let geometry = point(lon, lat);
        shapes.push((make(&server, &geometry).await, shape(&geometry)));
    }
    for (lon, lat) in centres {
        let filter = format!("near={lon},{lat}&radius={HALF_WAY_ROUND_M}");
        let found = server.find(&filter, 100).await;
        assert_eq!(found.len(), shapes.len(), "{filter}");
        let shapes = shapes.iter().map(|(id, shape)| (*id, shape));
        // Rounding may take the truth past half way by less than a micrometre.
        assert_near(&filter, &found, shapes, (Point::new(lon, lat), HALF_WAY_ROUND_M), None);
    }
    server.stop().await;
}

/// A geographic database bends edges into geodesics and turns a box wider than 180° inside out.
async fn boxes_are_of_the_plane(db: Db) {
    let server = TestServer::start(db).await;
    let mut random = Random(5);
    let mut shapes = Vec::new();
    let lon = |random: &mut Random| {
        let plain = random.between(-180.0, 180.0);
        random.pick(&[plain, plain, plain, -180.0, 180.0, 0.0, 90.0])
    };
    let lat = |random: &mut Random| {
        let plain = random.between(-90.0, 90.0);
        random.pick(&[plain, plain, plain, -90.0, 90.0, 0.0])
    };
    for _ in 0..100 {
        let (a, b, c, d) = (lon(&mut random), lat(&mut random), lon(&mut random), lat(&mut random));
        let geometry = match random.below(3) {
            0 => json!({"type": "LineString", "coordinates": [[a, b], [c, d]]}),
            1 => json!({"type": "MultiPoint", "coordinates": [[a, b], [c, d]]}),
            _ => json!({"type": "Polygon", "coordinates": [[[a, b], [c, b], [c, d], [a, d], [a, b]]]}),
        };
        shapes.push((make(&server, &geometry).await, shape(&geometry)));
    }
    let checks = (0..120).map(|turn| {
        let (a, b, c, d) = (lon(&mut random), lat(&mut random), lon(&mut random), lat(&mut random));
        let (south, north) = (b.min(d), b.max(d));
        let bounds = match turn % 4 {
            0 => Bounds::new(a, south, c, north),
            1 => Bounds::new(a.min(c), south, a.max(c), north),
            2 => Bounds::new(-180.0, south, 180.0, north),
            _ => Bounds::around(a, b, 0.01, 0.01),
        };
        let (server, shapes) = (&server, &shapes);
        async move {
            let filter = bounds.query();
            let found = server.find(&filter, 100).await;
            assert_bbox(
                &filter,
                &found,
                shapes.iter().filter(|(_, shape)| shape.meets(&bounds)).map(|(id, _)| *id),
            );
        }
    });
    let checks: Vec<_> = checks.collect();
    stream::iter(checks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    server.stop().await;
}

/// Rows of 800 KB are more than MySQL sorts in the memory it sets aside for that by default.
async fn the_largest_geometries_are_found_and_sorted(db: Db) {
    let server = TestServer::start(db).await;
    let mut ids = Vec::new();
    for row in 0..6 {
        let line: Vec<_> = (0..50_000).map(|i| json!([f64::from(i % 100) / 10.0, row])).collect();
        ids.push(make(&server, &json!({"type": "LineString", "coordinates": line})).await);
    }
    assert_bbox("all", &server.find("bbox=0,0,10,10", 100).await, ids.iter().copied());
    assert_bbox("two", &server.find("bbox=5,1,-5,2", 100).await, ids[1..=2].iter().copied());
    let near = server.find("near=5,-1&radius=300000", 100).await;
    assert_eq!(near.iter().map(|found| found.id).collect::<Vec<_>>(), ids[..2]);

    // Large by its properties, beside a small one.
    let beside = make(&server, &point(100.0, 1.0)).await;
    let body = json!({"geometry": point(100.0, 1.0), "properties": {"name": "n".repeat(30_000)}});
    let (status, answer) = server.post(&body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let large = answer["data"]["location"]["id"].as_u64().expect("an id");
    assert_bbox("large and small", &server.find("bbox=99,0,101,2", 100).await, [beside, large]);
    server.stop().await;
}

/// Asks the database how it would run the query that the server sends for these boxes.
async fn the_spatial_index_answers(db: Db) {
    const ROWS: u32 = 3_000;
    let server = TestServer::start(db).await;
    let connection = server.database.open().await;
    let backend = connection.get_database_backend();
    let mysql = backend == DatabaseBackend::MySql;
    let one = match mysql {
        true => "SELECT location_id FROM location_area WHERE MBRIntersects(area, ?)",
        false => {
            "SELECT location_id FROM location_area WHERE east >= ? AND west <= ? AND north >= ? AND south <= ?"
        }
    };
    // The query is written down a second time here; that must not go unnoticed.
    let source = include_str!("../../src/storage/index.rs").replace("\\\n", " ");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&source).contains(&words(one)), "the server's query for one box is another now");
    assert!(source.contains(r#"join(" UNION ")"#), "the server joins queries in another way now");

    let id = server.create_at(0.0, 0.0).await;
    for first in (0..ROWS).step_by(500) {
        let places: Vec<(u32, f64, f64)> = (first..first + 500)
            .map(|n| (n, f64::from(n % 60) * 6.0 - 179.0, f64::from(n / 60) * 3.0 - 85.0))
            .collect();
        let ids: Vec<String> = places.iter().map(|(n, ..)| (u64::from(*n) + id + 1).to_string()).collect();
        let rows = format!(
            "INSERT INTO location (id, owner_id, version, geometry, properties, updated_by, created_at, updated_at) \
             SELECT location_area.location_id, 1, 1, geometry, '{{}}', 1, 1, 1 FROM location, location_area \
             WHERE location.id = {id} AND location_area.location_id IN ({})",
            ids.join(",")
        );
        let areas: Vec<String> = places
            .iter()
            .zip(&ids)
            .map(|((_, w, s), id)| {
                let (e, n) = (w + 0.01, s + 0.01);
                match mysql {
                    true => format!(
                        "({id}, ST_GeomFromText('POLYGON(({w} {s},{e} {s},{e} {n},{w} {n},{w} {s}))', 0))"
                    ),
                    false => format!("({id}, {w}, {e}, {s}, {n})"),
                }
            })
            .collect();
        let columns = if mysql { "location_id, area" } else { "location_id, west, east, south, north" };
        let areas = format!("INSERT INTO location_area ({columns}) VALUES {}", areas.join(","));
        for sql in [areas, rows] {
            connection.execute_unprepared(&sql).await.expect("rows");
        }
    }
    if mysql {
        connection.execute_unprepared("ANALYZE TABLE location, location_area").await.expect("statistics");
    }

    let fiji = Bounds::new(177.0, -20.0, -178.0, -15.0);
    for boxes in [vec![Bounds::new(10.0, 10.0, 20.0, 15.0)], fiji.parts()] {
        let sql = format!(
            "{} SELECT location.id, location.created_at, location.geometry FROM ({}) AS met \
                 JOIN location ON location.id = met.location_id",
            if mysql { "EXPLAIN FORMAT=TRADITIONAL" } else { "EXPLAIN QUERY PLAN" },
            vec![one; boxes.len()].join(" UNION "),
        );
        let values = boxes.iter().flat_map(|b| match mysql {
            true => vec![flat_polygon(b).into()],
            false => [b.west, b.east, b.south, b.north].map(Into::into).to_vec(),
        });
        let statement = Statement::from_sql_and_values(backend, &sql, values);
        let plan = connection.query_all_raw(statement).await.expect(&sql);
        let steps: Vec<[String; 3]> = plan
            .iter()
            .map(|row| match mysql {
                true => ["table", "type", "key"].map(|column| {
                    row.try_get::<Option<String>>("", column).expect(column).unwrap_or_default()
                }),
                false => [row.try_get("", "detail").expect("detail"), String::new(), String::new()],
            })
            .collect();
        let by_index = |step: &&[String; 3]| match mysql {
            true => *step == &["location_area", "range", "location_area_area"],
            // 1 would be a search by id; the letters say which bounds the R*Tree is searched by.
            false => step[0].starts_with("SCAN location_area VIRTUAL TABLE INDEX 2:D"),
        };
        assert_eq!(steps.iter().filter(by_index).count(), boxes.len(), "{sql}: {steps:#?}");
        // The rows are then fetched by their ids.
        let by_id = |step: &&[String; 3]| match mysql {
            true => *step == &["location", "eq_ref", "PRIMARY"],
            false => step[0].starts_with("SEARCH location USING INTEGER PRIMARY KEY"),
        };
        assert_eq!(steps.iter().filter(by_id).count(), 1, "{sql}: {steps:#?}");
    }
    connection.close().await.expect("close");
    server.stop().await;
}

/// What MySQL keeps for a polygon with SRID 0.
fn flat_polygon(b: &Bounds) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.push(1);
    for number in [3_u32, 1, 5] {
        bytes.extend(number.to_le_bytes());
    }
    for (lon, lat) in
        [(b.west, b.south), (b.east, b.south), (b.east, b.north), (b.west, b.north), (b.west, b.south)]
    {
        bytes.extend(lon.to_le_bytes());
        bytes.extend(lat.to_le_bytes());
    }
    bytes
}
