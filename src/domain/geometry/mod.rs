//! A geometry that RFC 7946 and this server accept: all seven types, positions bit for bit as sent.
//!
//! All of it is checked here, because the database checks none of it. What a geometry *is* next to
//! (a box, a point) is in `area.rs` and `distance.rs`; bytes for the database are `storage`'s.

use geojson::{GeometryValue, Position};
use serde_json::Value;

use super::{
    error::{Code, Error, Result},
    json::Path,
};

/// More positions than this are no moving thing but a data set.
pub const MAX_POSITIONS: usize = 50_000;

/// Members of a Feature or a FeatureCollection, which a geometry must not have (RFC 7946 §7.1). Dropping them silently
/// could drop what the sender meant.
const NOT_IN_A_GEOMETRY: [&str; 3] = ["geometry", "properties", "features"];
/// Longitudes to this many degrees are recognised as those of a map that was scrolled once around the world.
const MAX_SCROLLED_DEG: f64 = 540.0;

/// A valid geometry (RFC 7946 §3.1). Members other than `type` and `coordinates` or `geometries` are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry(GeometryValue);

impl Geometry {
    /// Checks a parsed GeoJSON geometry that stands at `at` in the body.
    ///
    /// # Errors
    /// One of the geometry codes, pointing at the smallest thing at fault.
    pub fn from_json(value: &Value, at: &Path<'_>) -> Result<Self> {
        Parser { positions: 0 }.geometry(value, at).map(Self)
    }

    /// Puts back together what the database keeps: the 2D geometry, and its altitudes in the order of
    /// the positions, `NaN` where a position has none.
    pub fn from_parts(plane: &geo::Geometry, altitudes: Option<&[f64]>) -> Self {
        let mut value = GeometryValue::from(plane);
        if let Some(altitudes) = altitudes {
            let mut altitudes = altitudes.iter();
            for_each_position(&mut value, &mut |position| match altitudes.next() {
                Some(altitude) if !altitude.is_nan() => {
                    *position = Position::from([position[0], position[1], *altitude]);
                }
                _ => {}
            });
        }
        Self(value)
    }

    pub fn plane(&self) -> geo::Geometry {
        geo::Geometry::try_from(&self.0).expect("every GeoJSON geometry is a geometry of the plane")
    }

    /// The altitudes, if any position has one; see [`Geometry::from_parts`].
    pub fn altitudes(&self) -> Option<Vec<f64>> {
        let mut altitudes = Vec::new();
        // A clone only of geometries that are about to be written.
        for_each_position(&mut self.0.clone(), &mut |position| {
            altitudes.push(position.as_slice().get(2).copied().unwrap_or(f64::NAN));
        });
        altitudes.iter().any(|altitude| !altitude.is_nan()).then_some(altitudes)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("a geometry has no map with keys other than strings")
    }
}

/// Visits every position in the order of the text.
fn for_each_position(value: &mut GeometryValue, visit: &mut impl FnMut(&mut Position)) {
    match value {
        GeometryValue::Point { coordinates } => visit(coordinates),
        GeometryValue::MultiPoint { coordinates } | GeometryValue::LineString { coordinates } => {
            coordinates.iter_mut().for_each(visit);
        }
        GeometryValue::MultiLineString { coordinates } | GeometryValue::Polygon { coordinates } => {
            coordinates.iter_mut().flatten().for_each(visit);
        }
        GeometryValue::MultiPolygon { coordinates } => {
            coordinates.iter_mut().flatten().flatten().for_each(visit);
        }
        GeometryValue::GeometryCollection { geometries } => {
            for geometry in geometries {
                for_each_position(&mut geometry.value, visit);
            }
        }
    }
}

/// Counts positions while it walks, so that one geometry has one limit.
struct Parser {
    positions: usize,
}

impl Parser {
    fn geometry(&mut self, value: &Value, at: &Path<'_>) -> Result<GeometryValue> {
        let Value::Object(members) = value else {
            let detail = "a geometry must be an object with `type` and `coordinates`";
            return Err(Error::new(Code::InvalidGeometry, detail).at(at));
        };
        let kind = match members.get("type") {
            Some(Value::String(kind)) => kind,
            Some(_) => {
                let detail = "a geometry's `type` must be a string";
                return Err(Error::new(Code::InvalidGeometry, detail).at(&Path::Member(at, "type")));
            }
            None => return Err(Error::new(Code::InvalidGeometry, "the geometry has no `type`").at(at)),
        };
        let (name, other) = match kind.as_str() {
            "GeometryCollection" => ("geometries", "coordinates"),
            "Point" | "MultiPoint" | "LineString" | "MultiLineString" | "Polygon" | "MultiPolygon" => {
                ("coordinates", "geometries")
            }
            other => {
                let detail = format!(
                    "`{}` is no geometry type; use Point, MultiPoint, LineString, MultiLineString, \
                     Polygon, MultiPolygon or GeometryCollection",
                    other.chars().take(40).collect::<String>()
                );
                return Err(Error::new(Code::UnknownGeometryType, detail).at(&Path::Member(at, "type")));
            }
        };
        let Some(value) = members.get(name) else {
            return Err(Error::new(Code::InvalidGeometry, format!("the geometry has no `{name}`")).at(at));
        };
        let within = &Path::Member(at, name);
        let polygon = |parser: &mut Self, value: &Value, at: &Path<'_>| parser.each(value, at, Self::ring);
        let parsed = match kind.as_str() {
            "Point" => GeometryValue::Point { coordinates: self.position(value, within)? },
            "MultiPoint" => {
                GeometryValue::MultiPoint { coordinates: self.each(value, within, Self::position)? }
            }
            "LineString" => GeometryValue::LineString { coordinates: self.line(value, within)? },
            "MultiLineString" => {
                GeometryValue::MultiLineString { coordinates: self.each(value, within, Self::line)? }
            }
            "Polygon" => GeometryValue::Polygon { coordinates: self.each(value, within, Self::ring)? },
            "MultiPolygon" => GeometryValue::MultiPolygon { coordinates: self.each(value, within, polygon)? },
            _ => GeometryValue::new_geometry_collection(self.each(value, within, Self::geometry)?),
        };
        // Last, so that each error above points at the smallest thing at fault.
        match NOT_IN_A_GEOMETRY.into_iter().chain([other]).find(|name| members.contains_key(*name)) {
            Some(name) => {
                let detail = format!("a {kind} has no `{name}` (RFC 7946 §7.1)");
                Err(Error::new(Code::InvalidGeometry, detail).at(&Path::Member(at, name)))
            }
            None => Ok(parsed),
        }
    }

    /// A non-empty array of one kind of thing.
    fn each<T>(
        &mut self,
        value: &Value,
        at: &Path<'_>,
        mut item: impl FnMut(&mut Self, &Value, &Path<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let Value::Array(items) = value else {
            return Err(Error::new(Code::InvalidCoordinates, "an array is expected here").at(at));
        };
        if items.is_empty() {
            return Err(Error::new(Code::EmptyGeometry, "an empty array is no geometry").at(at));
        }
        // Not `collect`: through a Result that does not know how many there will be.
        let mut parsed = Vec::with_capacity(items.len());
        for (index, value) in items.iter().enumerate() {
            parsed.push(item(self, value, &Path::Item(at, index))?);
        }
        Ok(parsed)
    }

    fn line(&mut self, value: &Value, at: &Path<'_>) -> Result<Vec<Position>> {
        let positions = self.each(value, at, Self::position)?;
        if positions.len() < 2 {
            return Err(Error::new(Code::LineTooShort, "a line has at least 2 positions").at(at));
        }
        Ok(positions)
    }

    /// RFC 7946 §3.1.6: closed, four or more positions. Its direction is the sender's business.
    fn ring(&mut self, value: &Value, at: &Path<'_>) -> Result<Vec<Position>> {
        let positions = self.each(value, at, Self::position)?;
        if positions.len() < 4 {
            let detail = "a linear ring has at least 4 positions, the last equal to the first";
            return Err(Error::new(Code::RingTooShort, detail).at(at));
        }
        if positions.first() != positions.last() {
            let detail = "a linear ring's last position must equal its first";
            return Err(Error::new(Code::RingNotClosed, detail).at(at));
        }
        Ok(positions)
    }

    fn position(&mut self, value: &Value, at: &Path<'_>) -> Result<Position> {
        let Value::Array(numbers) = value else {
            let detail =
                "a position is expected here: [longitude, latitude] or [longitude, latitude, altitude]";
            return Err(Error::new(Code::InvalidCoordinates, detail).at(at));
        };
        if !(2..=3).contains(&numbers.len()) {
            let detail = format!("a position has 2 or 3 numbers, not {}", numbers.len());
            return Err(Error::new(Code::InvalidPosition, detail).at(at));
        }
        let number = |index: usize| {
            numbers[index].as_f64().filter(|number| number.is_finite()).ok_or_else(|| {
                Error::new(Code::InvalidPosition, "a position is made of numbers").at(&Path::Item(at, index))
            })
        };
        let (lon, lat) = (number(0)?, number(1)?);
        if !(-180.0..=180.0).contains(&lon) {
            let detail = format!("longitude {lon} is outside -180 to 180{}", scrolled_hint(lon));
            return Err(Error::new(Code::LongitudeOutOfRange, detail).at(&Path::Item(at, 0)));
        }
        if !(-90.0..=90.0).contains(&lat) {
            let hint = if lat.abs() <= 180.0 && lon.abs() <= 90.0 {
                "; GeoJSON is longitude first: were the two swapped?"
            } else {
                ""
            };
            let detail = format!("latitude {lat} is outside -90 to 90{hint}");
            return Err(Error::new(Code::LatitudeOutOfRange, detail).at(&Path::Item(at, 1)));
        }
        self.positions += 1;
        if self.positions > MAX_POSITIONS {
            let detail = format!("a geometry has at most {MAX_POSITIONS} positions");
            return Err(Error::new(Code::TooManyPositions, detail).at(at));
        }
        Ok(match numbers.len() {
            2 => Position::from([lon, lat]),
            _ => Position::from([lon, lat, number(2)?]),
        })
    }
}

/// The longitude from -180 to 180 of the same meridian; `None` beyond one turn around the world.
pub fn wrap_longitude(lon: f64) -> Option<f64> {
    let turns = if lon.abs() <= 180.0 { 0.0 } else { lon.signum() };
    (lon.abs() <= MAX_SCROLLED_DEG).then_some(lon - turns * 360.0)
}

/// A hint for a longitude that is out of range, to be put at the end of a sentence; empty where there is none.
pub fn scrolled_hint(lon: f64) -> String {
    wrap_longitude(lon).map_or_else(String::new, |on_map| {
        // The subtraction leaves digits that nobody has sent; seven are exact to a centimetre.
        let on_map = (on_map * 1e7).round() / 1e7;
        format!("; was the map scrolled around the world? The same meridian is {on_map}")
    })
}

#[cfg(test)]
mod tests;
