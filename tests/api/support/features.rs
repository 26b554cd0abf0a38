//! Geometries of every kind, and what of two Features is compared.

use serde_json::{Map, Value, json};

use super::point;

/// One geometry of each type, with every oddity a double can have.
pub fn geometries() -> Vec<Value> {
    let ring = json!([[0.1, 0.2], [1.1, 0.2, 3.5], [1.1, 1.2], [-0.0, 1.2], [0.1, 0.2]]);
    let mut nested = point(1.0, 2.0);
    for _ in 0..50 {
        nested = json!({"type": "GeometryCollection", "geometries": [nested]});
    }
    vec![
        json!({"type": "Point", "coordinates": [13.404953999999998, -0.0]}),
        json!({"type": "Point", "coordinates": [5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]}),
        json!({"type": "Point", "coordinates": [-180, 90, -0.0]}),
        json!({"type": "MultiPoint", "coordinates": [[180, -90], [0.1, 0.30000000000000004, 8848.86], [1, 2]]}),
        json!({"type": "LineString", "coordinates": [[1, 2, 3], [1, 2], [1, 2, 4.000000000000001]]}),
        json!({"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]], [[5, 6, 7], [8, 9]]]}),
        json!({"type": "Polygon", "coordinates": [ring]}),
        json!({"type": "Polygon", "coordinates": [ring, [[0.2, 0.3], [0.3, 0.3], [0.3, 0.4], [0.2, 0.3]]]}),
        json!({"type": "MultiPolygon", "coordinates": [[ring], [ring, ring]]}),
        json!({"type": "GeometryCollection", "geometries": [
            {"type": "Point", "coordinates": [1, 2, 3]},
            {"type": "GeometryCollection", "geometries": [{"type": "LineString", "coordinates": [[1, 2], [3, 4, 5]]}]},
        ]}),
        nested,
    ]
}

/// Equal as JSON numbers are equal, and with the same sign of zero.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().unwrap().to_bits() == b.as_f64().unwrap().to_bits()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The caller's own properties of a Feature of the server's.
pub fn own(feature: &Value) -> Value {
    let mut own: Map<String, Value> = feature["properties"].as_object().expect("an object").clone();
    for name in ["version", "userId", "updatedBy", "createdAt", "updatedAt"] {
        assert!(own.shift_remove(name).is_some(), "{name}: {feature}");
    }
    own.into()
}
