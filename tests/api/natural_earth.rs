//! Geometry that nobody here drew: every country of Natural Earth 1:50m, with rings the wrong way
//! round, rings that cross themselves, and countries on both sides of the antimeridian.

use std::process::Command;

use futures_util::{StreamExt, future::join_all, stream};
use geo::{
    BoundingRect, Coord, CoordsIter, Geometry, Intersects, Line, LineString, MultiPolygon, Point, Polygon,
    Rect,
};
use geojson::GeoJson;
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{
    Db, TestServer,
    features::same,
    lists::{Found, assert_bbox, assert_near},
    truth::{Bounds, HALF_WAY_ROUND_M, Random, Shape},
};

/// Requests under way at once.
const AT_ONCE: usize = 2;

struct Country {
    id: u64,
    geometry: Geometry,
    /// Positions of it that any box around them must find.
    border: Vec<Coord>,
    /// What boxes are held against.
    areas: Shape,
    /// What circles are held against.
    boundary: Shape,
}

impl Country {
    /// By the geo crate. A box without an interior is asked as the point or the line that it is.
    fn meets(&self, bounds: &Bounds) -> bool {
        bounds.parts().iter().any(|bounds| {
            let low = Coord { x: bounds.west, y: bounds.south };
            let high = Coord { x: bounds.east, y: bounds.north };
            match (low == high, low.x == high.x || low.y == high.y) {
                (true, _) => self.geometry.intersects(&low),
                (_, true) => self.geometry.intersects(&Line::new(low, high)),
                _ => self.geometry.intersects(&Rect::new(low, high)),
            }
        })
    }
}

fn source() -> Vec<Value> {
    let node = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/natural-earth.mjs"))
        .output()
        .expect("node");
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
    let lines = String::from_utf8(node.stdout).expect("text");
    lines.lines().map(|line| serde_json::from_str(line).expect("a Feature")).collect()
}

fn plane(feature: &Value) -> Geometry {
    let GeoJson::Feature(feature) = feature.to_string().parse().expect("a Feature") else {
        panic!("{feature}")
    };
    feature.geometry.expect("a geometry").try_into().expect("a geometry of the plane")
}

/// Antarctica came to Natural Earth's users with a shell that is a line along the pole and its coast as
/// a hole of that. A polygon is what is in its shell, so the geo crate sees such a hole nowhere; its ring
/// is still a boundary to be near to. Returns the geometry without those holes, and their rings.
fn split(geometry: &Geometry) -> (Geometry, Vec<LineString>) {
    let Geometry::MultiPolygon(polygons) = geometry else { return (geometry.clone(), Vec::new()) };
    let mut rings = Vec::new();
    let polygons = polygons.iter().cloned().map(|polygon| {
        let (shell, holes) = polygon.into_inner();
        let extent = shell.bounding_rect().expect("a shell has positions");
        let (inside, outside): (Vec<_>, Vec<_>) =
            holes.into_iter().partition(|hole| extent.intersects(&hole.0[0]));
        rings.extend(outside);
        Polygon::new(shell, inside)
    });
    (polygons.collect::<MultiPolygon>().into(), rings)
}

/// What a filter finds, which must be the same on both databases.
async fn find(servers: &[TestServer; 2], filter: &str) -> Vec<Found> {
    let [found, other] = servers.each_ref().map(|server| server.find(filter, 100));
    let (found, other) = tokio::join!(found, other);
    assert_eq!(found, other, "{filter}");
    found
}

/// Stores every country; returns the Features of the answers.
async fn store(server: &TestServer, sources: &[Value]) -> Vec<Value> {
    let mut stored = Vec::new();
    for source in sources {
        let (status, answer) = server.post(source).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let feature = answer["data"]["location"].clone();
        assert!(same(&feature["geometry"], &source["geometry"]), "{}", source["properties"]);
        assert_eq!(feature["properties"]["name"], source["properties"]["name"]);
        let id = feature["id"].as_u64().expect("an id");
        let (_, read) = server.get(&format!("/location/{id}")).await;
        assert!(same(&read, &feature), "{}", source["properties"]);
        stored.push(feature);
    }
    let mut listed = Vec::new();
    for page in 1..=3 {
        let (_, list) = server.get(&format!("/location?page={page}&perPage=100")).await;
        assert_eq!(list["total"], 241);
        listed.extend(list["features"].as_array().expect("features").clone());
    }
    listed.reverse();
    assert_eq!(listed.len(), stored.len());
    for (listed, stored) in listed.iter().zip(&stored) {
        assert!(same(listed, stored), "{}", stored["properties"]);
    }
    stored
}

/// On both databases at once: the truth costs more than all requests.
#[tokio::test(flavor = "multi_thread")]
async fn every_country_comes_back_and_is_found_where_it_is_and_nowhere_else() {
    let servers = [TestServer::start(Db::Sqlite).await, TestServer::start(Db::MySql).await];
    let sources = source();
    assert_eq!(sources.len(), 241);
    let stored = join_all(servers.iter().map(|server| store(server, &sources))).await;
    let mut countries = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let id = stored[0][at]["id"].as_u64().expect("an id");
        assert_eq!(stored[1][at]["id"], id);
        let geometry = plane(source);
        let (areas, rings) = split(&geometry);
        let with_rings = std::iter::once(areas.clone()).chain(rings.into_iter().map(Geometry::from));
        let boundary = Geometry::GeometryCollection(with_rings.collect());
        countries.push(Country {
            id,
            geometry,
            border: areas.coords_iter().collect(),
            areas: Shape::from(&areas),
            boundary: Shape::from(&boundary),
        });
    }

    let checks = boxes(&countries).into_iter().map(|(bounds, must)| {
        let (servers, countries) = (&servers, &countries);
        async move {
            let filter = bounds.query();
            let found = find(servers, &filter).await;
            assert!(must.is_none_or(|id| found.iter().any(|found| found.id == id)), "{filter}: no {must:?}");
            let truth = countries.iter().filter(|country| country.meets(&bounds));
            assert_bbox(&filter, &found, truth.map(|country| country.id));
            // A second opinion that shares nothing with the first.
            let truth = countries.iter().filter(|country| country.areas.meets(&bounds));
            assert_bbox(&filter, &found, truth.map(|country| country.id));
        }
    });
    stream::iter(checks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;

    let checks = circles(&countries).into_iter().map(|((from, radius_m), must)| {
        let (servers, countries) = (&servers, &countries);
        async move {
            let filter = format!("near={},{}&radius={radius_m}", from.x(), from.y());
            let found = find(servers, &filter).await;
            assert!(must.is_none_or(|id| found.iter().any(|found| found.id == id)), "{filter}: no {must:?}");
            for country in countries.iter().filter(|country| country.geometry.intersects(&from)) {
                let there = found.iter().find(|found| found.id == country.id);
                assert_eq!(there.map(|found| found.distance_m()), Some(0.0), "{filter}: {}", country.id);
            }
            let shapes = countries.iter().map(|country| (country.id, &country.boundary));
            assert_near(&filter, &found, shapes, (from, radius_m), None);
        }
    });
    stream::iter(checks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    for server in servers {
        server.stop().await;
    }
}

/// Boxes to ask for, and the country that each must find, where that is known beforehand.
fn boxes(countries: &[Country]) -> Vec<(Bounds, Option<u64>)> {
    let mut random = Random(1);
    let mut boxes: Vec<(Bounds, Option<u64>)> = [
        // The whole world, and its borders.
        (-180.0, -90.0, 180.0, 90.0),
        (-180.0, -90.0, -180.0, 90.0),
        (180.0, -90.0, 180.0, 90.0),
        (180.0, -90.0, -180.0, 90.0),
        (-180.0, -90.0, 180.0, -90.0),
        (-180.0, 90.0, 180.0, 90.0),
        // Over the antimeridian: Fiji, Chukotka, all but the middle; touching it from either side.
        (177.0, -20.0, -178.0, -15.0),
        (170.0, 60.0, -170.0, 72.0),
        (10.0, -50.0, 9.0, 50.0),
        (179.9, -17.5, 180.0, -16.0),
        (-180.0, -17.5, -179.9, -16.0),
        // Wider than half the world.
        (-130.0, 40.0, 150.0, 40.5),
        (-179.0, -10.0, 179.0, 10.0),
        (-100.0, -60.0, 100.0, -54.0),
        (20.0, -90.0, -20.0, -89.0),
        (-180.0, 89.0, 180.0, 90.0),
        // In the middle of Brazil, of Lesotho and of nothing.
        (-55.0, -10.0, -54.999, -9.999),
        (28.3, -29.6, 28.301, -29.599),
        (-150.0, 30.0, -149.0, 31.0),
        // One point: inside a country, at sea, at both poles.
        (10.0, 50.0, 10.0, 50.0),
        (-30.0, 30.0, -30.0, 30.0),
        (0.0, -90.0, 0.0, -90.0),
        (0.0, 90.0, 0.0, 90.0),
        // A line over and along the equator.
        (-80.0, 0.0, 50.0, 0.0),
        (25.0, -34.0, 25.0, 70.0),
    ]
    .map(|(west, south, east, north)| (Bounds::new(west, south, east, north), None))
    .to_vec();
    for country in countries {
        // On its border: a point-like box, or a small one.
        let vertex = random.pick(&country.border);
        let half = random.pick(&[0.0, 1e-9, 0.001, 0.3]);
        boxes.push((Bounds::around(vertex.x, vertex.y, half, half), Some(country.id)));
    }
    // In holes: what fills them has to be found, what is around them not.
    for hole in countries.iter().flat_map(|country| holes(&country.geometry)) {
        boxes.push((Bounds::around(hole.x, hole.y, 0.0001, 0.0001), None));
    }
    for _ in 0..25 {
        let (lon, lat) = (random.between(-180.0, 180.0), random.between(-90.0, 90.0));
        let half = random.pick(&[0.01, 1.0, 10.0]);
        boxes.push((Bounds::around(lon, lat, half * random.unit(), half), None));
    }
    for _ in 0..6 {
        let (west, east) = (random.between(-180.0, 180.0), random.between(-180.0, 180.0));
        let south = random.between(-90.0, 89.0);
        boxes.push((Bounds::new(west, south, east, random.between(south, 90.0)), None));
    }
    boxes
}

/// The middle of each hole, about.
fn holes(geometry: &Geometry) -> Vec<Coord> {
    let polygons = match geometry {
        Geometry::Polygon(polygon) => vec![polygon],
        Geometry::MultiPolygon(polygons) => polygons.iter().collect(),
        other => panic!("{other:?}"),
    };
    let rings = polygons.into_iter().flat_map(|polygon| polygon.interiors());
    rings
        .map(|ring| {
            let count = ring.0.len() as f64;
            ring.0.iter().fold(Coord::zero(), |sum, position| sum + *position / count)
        })
        .collect()
}

/// Places and radii to ask for, and the country that each must find, where that is known beforehand.
fn circles(countries: &[Country]) -> Vec<((Point, f64), Option<u64>)> {
    let mut random = Random(2);
    let mut circles: Vec<((Point, f64), Option<u64>)> = [
        (0.0, 90.0, 1_000_000.0),
        (77.0, -90.0, 0.0),
        (-123.0, -90.0, 3_000_000.0),
        (180.0, -16.5, 50_000.0),
        (-180.0, -16.5, 50_000.0),
        (-179.99, 68.0, 400_000.0),
        // South of the 49th parallel, whose long straight edge is no great circle.
        (-110.0, 48.0, 150_000.0),
        (-140.0, 0.0, 1_000.0),
        (10.0, 50.0, 0.0),
        (100.0, 10.0, HALF_WAY_ROUND_M + 1.0),
    ]
    .map(|(lon, lat, radius_m)| ((Point::new(lon, lat), radius_m), None))
    .to_vec();
    for country in countries {
        let vertices: Vec<Coord> = country.geometry.coords_iter().collect();
        let vertex = random.pick(&vertices);
        let radius_m = random.pick(&[1.0, 100.0, 10_000.0]);
        circles.push(((vertex.into(), radius_m), Some(country.id)));
    }
    for _ in 0..25 {
        let from = Point::new(random.between(-180.0, 180.0), random.between(-90.0, 90.0));
        circles.push(((from, 10.0_f64.powf(random.between(3.0, 6.5))), None));
    }
    circles
}
