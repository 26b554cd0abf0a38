//! The geometries of RFC 7946.

use serde_json::{Value, json};

/// Each example with the section that has it.
pub fn geometries() -> Vec<(&'static str, Value)> {
    vec![
        ("A.1 Points", json!({"type": "Point", "coordinates": [100.0, 0.0]})),
        ("A.2 LineStrings", json!({"type": "LineString", "coordinates": [[100.0, 0.0], [101.0, 1.0]]})),
        (
            "A.3 Polygons, no holes",
            json!({"type": "Polygon", "coordinates": [
                [[100.0, 0.0], [101.0, 0.0], [101.0, 1.0], [100.0, 1.0], [100.0, 0.0]],
            ]}),
        ),
        (
            "A.3 Polygons, with holes",
            json!({"type": "Polygon", "coordinates": [
                [[100.0, 0.0], [101.0, 0.0], [101.0, 1.0], [100.0, 1.0], [100.0, 0.0]],
                [[100.8, 0.8], [100.8, 0.2], [100.2, 0.2], [100.2, 0.8], [100.8, 0.8]],
            ]}),
        ),
        ("A.4 MultiPoints", json!({"type": "MultiPoint", "coordinates": [[100.0, 0.0], [101.0, 1.0]]})),
        (
            "A.5 MultiLineStrings",
            json!({"type": "MultiLineString", "coordinates": [
                [[100.0, 0.0], [101.0, 1.0]],
                [[102.0, 2.0], [103.0, 3.0]],
            ]}),
        ),
        (
            "A.6 MultiPolygons",
            json!({"type": "MultiPolygon", "coordinates": [
                [[[102.0, 2.0], [103.0, 2.0], [103.0, 3.0], [102.0, 3.0], [102.0, 2.0]]],
                [
                    [[100.0, 0.0], [101.0, 0.0], [101.0, 1.0], [100.0, 1.0], [100.0, 0.0]],
                    [[100.2, 0.2], [100.2, 0.8], [100.8, 0.8], [100.8, 0.2], [100.2, 0.2]],
                ],
            ]}),
        ),
        (
            "A.7 GeometryCollections",
            json!({"type": "GeometryCollection", "geometries": [
                {"type": "Point", "coordinates": [100.0, 0.0]},
                {"type": "LineString", "coordinates": [[101.0, 0.0], [102.0, 1.0]]},
            ]}),
        ),
        (
            "3.1.9 Antimeridian Cutting, a line",
            json!({"type": "MultiLineString", "coordinates": [
                [[170.0, 45.0], [180.0, 45.0]],
                [[-180.0, 45.0], [-170.0, 45.0]],
            ]}),
        ),
        (
            "3.1.9 Antimeridian Cutting, a rectangle",
            json!({"type": "MultiPolygon", "coordinates": [
                [[[180.0, 40.0], [180.0, 50.0], [170.0, 50.0], [170.0, 40.0], [180.0, 40.0]]],
                [[[-170.0, 40.0], [-170.0, 50.0], [-180.0, 50.0], [-180.0, 40.0], [-170.0, 40.0]]],
            ]}),
        ),
        // The RFC has placeholders here; the numbers are those of RFC 5870's own examples.
        ("9 Mapping 'geo' URIs", json!({"type": "Point", "coordinates": [16.371648, 48.198634]})),
        ("9 Mapping 'geo' URIs, altitude", json!({"type": "Point", "coordinates": [16.3695, 48.2010, 183]})),
        (
            "6.1 Foreign Members, the centerline",
            json!({"type": "LineString", "coordinates": [[-170, 10], [170, 11]]}),
        ),
    ]
}
