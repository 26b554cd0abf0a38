//! Metres from a point to a geometry, and the `near` filter made of it.
//!
//! Distance is the great-circle distance on the sphere of the Earth's mean radius; a geometry's edges
//! are straight in lon-lat (RFC 7946 §3.1.1), not great circles. The two differ by kilometres on an edge
//! such as the 49th parallel, so the nearest position on an edge is searched along the edge as it is.

use std::f64::consts::PI;

use geo::{
    Coord, CoordsIter, Distance, Geometry, Haversine, Intersects, Line, LineString, Point, Polygon, Rect,
};

use super::{
    area::{numbers, rect},
    error::{Code, Error, Result},
    geometry::scrolled_hint,
};

/// An edge is searched in pieces this long, short enough that distance along one has one minimum, and
/// long enough that edges around the world cost no more than some dozens of pieces each.
const PIECE_DEG: f64 = 10.0;
/// The golden-section steps for a piece: 0.618^60 of 1,600 km is under a micrometre.
const STEPS: u32 = 60;

/// A `near` filter: everything within `radius_m` of a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    centre: Point,
    radius_m: f64,
}

impl Near {
    /// Parses `near=lon,lat` and `radius` in metres.
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub fn parse(near: &str, radius: &str) -> Result<Self> {
        let invalid = |detail: &'static str| Error::new(Code::InvalidParameter, detail);
        let [lon, lat] = numbers(near).ok_or_else(|| invalid("near is lon,lat: two numbers in degrees"))?;
        if !(-180.0..=180.0).contains(&lon) {
            let detail = format!("near: the longitude is outside -180 to 180{}", scrolled_hint(lon));
            return Err(Error::new(Code::InvalidParameter, detail));
        }
        if !(-90.0..=90.0).contains(&lat) {
            return Err(invalid("near: the latitude is outside -90 to 90"));
        }
        let [radius_m] = numbers(radius)
            .filter(|[radius_m]| *radius_m >= 0.0)
            .ok_or_else(|| invalid("radius is a number of metres, 0 or more"))?;
        Ok(Self { centre: Point::new(lon, lat), radius_m })
    }

    /// Boxes that together hold every position within the radius: one, or two at the antimeridian.
    pub fn rects(&self) -> Vec<Rect> {
        // A hair wider than computed, so that rounding cannot lose what is exactly on the circle.
        let angle = self.radius_m / Haversine.radius() * (1.0 + 1e-9) + 1e-12;
        let (lon, lat) = (self.centre.x(), self.centre.y());
        let (south, north) = (lat - angle.to_degrees(), lat + angle.to_degrees());
        if south <= -90.0 || north >= 90.0 {
            return vec![rect(-180.0, south, 180.0, north)];
        }
        let half_width = (angle.sin() / lat.to_radians().cos()).asin().to_degrees() + 1e-9;
        let (west, east) = (lon - half_width, lon + half_width);
        let mut rects = vec![rect(west, south, east, north)];
        if west < -180.0 {
            rects.push(rect(west + 360.0, south, 180.0, north));
        }
        if east > 180.0 {
            rects.push(rect(-180.0, south, east - 360.0, north));
        }
        rects
    }

    /// Metres to the geometry, if it is within the radius; 0 inside an area.
    pub fn distance_m(&self, geometry: &Geometry) -> Option<f64> {
        let distance_m = distance_m(self.centre, geometry);
        (distance_m <= self.radius_m).then_some(distance_m)
    }
}

/// Metres from a point to the nearest position of a geometry.
pub fn distance_m(from: Point, geometry: &Geometry) -> f64 {
    match geometry {
        Geometry::Point(point) => to(from, point.0),
        Geometry::MultiPoint(points) => nearest(points, |point| to(from, point.0)),
        Geometry::LineString(line) => to_line(from, line),
        Geometry::MultiLineString(lines) => nearest(lines, |line| to_line(from, line)),
        Geometry::Polygon(polygon) => to_polygon(from, polygon),
        Geometry::MultiPolygon(polygons) => nearest(polygons, |polygon| to_polygon(from, polygon)),
        Geometry::GeometryCollection(parts) => nearest(parts, |part| distance_m(from, part)),
        Geometry::Line(_) | Geometry::Rect(_) | Geometry::Triangle(_) => {
            unreachable!("GeoJSON has no such type")
        }
    }
}

fn nearest<T>(things: impl IntoIterator<Item = T>, distance_m: impl Fn(T) -> f64) -> f64 {
    things.into_iter().map(distance_m).fold(f64::INFINITY, f64::min)
}

fn to_polygon(from: Point, polygon: &Polygon) -> f64 {
    if polygon.intersects(&from) {
        return 0.0;
    }
    let rings = std::iter::once(polygon.exterior()).chain(polygon.interiors());
    nearest(rings, |ring| to_line(from, ring))
}

fn to_line(from: Point, line: &LineString) -> f64 {
    // The vertices first: they give a bound that most edges cannot beat.
    let mut best = nearest(line.coords_iter(), |vertex| to(from, vertex));
    for edge in line.lines() {
        best = to_edge(from, edge, best);
    }
    best
}

fn to(from: Point, position: Coord) -> f64 {
    let distance_m = Haversine.distance(from, position.into());
    // Rounding can take what is all but the antipode past the end of the arcsine.
    if distance_m.is_nan() { Haversine.radius() * PI } else { distance_m }
}

/// The least of `best` and the distance to any position of the edge.
fn to_edge(from: Point, edge: Line, mut best: f64) -> f64 {
    let delta = edge.delta();
    let pieces = (delta.x.abs().max(delta.y.abs()) / PIECE_DEG).ceil().max(1.0);
    let at = |t: f64| to(from, edge.start + delta * t);
    // No piece is longer than this, whatever its latitude: a degree is longest at the equator.
    let piece_m = delta.x.hypot(delta.y).to_radians() * Haversine.radius() / pieces;
    // Going `piece_m` along changes the distance by at most `piece_m`.
    if (at(0.0) + at(1.0) - piece_m * pieces) / 2.0 >= best {
        return best;
    }
    let mut low = (0.0, at(0.0));
    for piece in 1..=pieces as u32 {
        let high_t = f64::from(piece) / pieces;
        let high = (high_t, at(high_t));
        if (low.1 + high.1 - piece_m) / 2.0 < best {
            best = best.min(golden_section(low.0, high.0, at));
        }
        low = high;
    }
    best
}

/// The minimum of a function with one minimum between `low` and `high`.
fn golden_section(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    const RATIO: f64 = 0.618_033_988_749_894_8;
    let (mut left, mut right) = (high - RATIO * (high - low), low + RATIO * (high - low));
    let (mut f_left, mut f_right) = (f(left), f(right));
    let mut best = f(low).min(f(high));
    for _ in 0..STEPS {
        best = best.min(f_left).min(f_right);
        if f_left < f_right {
            (high, right, f_right) = (right, left, f_left);
            left = high - RATIO * (high - low);
            f_left = f(left);
        } else {
            (low, left, f_left) = (left, right, f_right);
            right = low + RATIO * (high - low);
            f_right = f(right);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use geo::{Densify, Destination, Euclidean, Intersects, line_string, point, polygon};

    use super::*;

    /// The slow truth: every edge cut into positions some metres apart.
    fn brute_force(from: Point, line: &LineString) -> f64 {
        nearest(Euclidean.densify(line, 0.0001).coords(), |position| to(from, *position))
    }

    #[test]
    fn an_edge_is_straight_in_lon_lat() {
        let border = line_string![(x: -123.0, y: 49.0), (x: -95.0, y: 49.0)];
        for (lon, lat) in
            [(-109.0, 49.0), (-109.0, 52.0), (-120.3, 40.0), (-80.0, 49.5), (71.0, -49.0), (0.0, 90.0)]
        {
            let from = point!(x: lon, y: lat);
            let (searched, truth) = (distance_m(from, &border.clone().into()), brute_force(from, &border));
            assert!((searched - truth).abs() < 0.5, "{lon},{lat}: {searched} {truth}");
            assert!(searched <= truth + 1e-6, "{lon},{lat}: {searched} {truth}");
        }
    }

    #[test]
    fn inside_is_zero_and_a_hole_is_outside() {
        let ring = polygon!(
            exterior: [(x: 0.0, y: 0.0), (x: 9.0, y: 0.0), (x: 9.0, y: 9.0), (x: 0.0, y: 9.0)],
            interiors: [[(x: 3.0, y: 3.0), (x: 6.0, y: 3.0), (x: 6.0, y: 6.0), (x: 3.0, y: 6.0)]],
        );
        let ring = Geometry::from(ring);
        assert_eq!(distance_m(point!(x: 1.0, y: 1.0), &ring), 0.0);
        assert_eq!(distance_m(point!(x: 9.0, y: 4.0), &ring), 0.0);
        let from_hole = distance_m(point!(x: 4.0, y: 4.5), &ring);
        assert!((from_hole - Haversine.distance(point!(x: 4.0, y: 4.5), point!(x: 3.0, y: 4.5))).abs() < 1.0);
    }

    #[test]
    fn the_antimeridian_is_no_border() {
        let near = Near::parse("179.99,-17", "5000").unwrap();
        let across = Geometry::from(point!(x: -179.99, y: -17.0));
        assert!((near.distance_m(&across).unwrap() - 2126.7).abs() < 1.0);
        assert!(near.rects().iter().any(|rect| rect.intersects(&across)));
    }

    #[test]
    fn no_point_is_further_than_its_antipode() {
        // All but antipodes, with a haversine of 1.0000000000000004.
        for ((lon, lat), (lon_there, lat_there)) in [
            ((75.38639586069212, -64.3321631578354), (-104.61360413930788, 64.3321631578355)),
            ((56.58566627924998, -65.76), (-123.41433372074992, 65.7599999999999)),
        ] {
            let there = point!(x: lon_there, y: lat_there);
            let distance_m = distance_m(point!(x: lon, y: lat), &there.into());
            assert!((distance_m - Haversine.radius() * PI).abs() < 0.2, "{lon},{lat}: {distance_m}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_position_on_an_edge_is_nearer_than_its_distance_says(
            ((x1, y1), (x2, y2)) in (((-180.0..=180.0), (-90.0..=90.0)), ((-180.0..=180.0), (-90.0..=90.0))),
            (lon, lat) in ((-180.0..=180.0), (-90.0..=90.0)),
        ) {
            let from = point!(x: lon, y: lat);
            let edge = line_string![(x: x1, y: y1), (x: x2, y: y2)];
            let searched = distance_m(from, &edge.clone().into());
            let cut = Euclidean.densify(&edge, 0.01);
            let truth = nearest(cut.coords(), |position| to(from, *position));
            // Two positions of the cut edge are at most 1.2 km apart.
            proptest::prop_assert!(searched <= truth + 1e-6 && searched >= truth - 600.0, "{searched} {truth}");
        }

        #[test]
        fn the_boxes_hold_the_circle(
            lon in -180.0..=180.0, lat in -90.0..=90.0, radius in 0.0..21e6, bearing in 0.0..360.0, part in 0.0..=1.0,
        ) {
            let near = Near { centre: point!(x: lon, y: lat), radius_m: radius };
            let within = Haversine.destination(near.centre, bearing, radius * part);
            proptest::prop_assert!(near.rects().iter().any(|rect| rect.intersects(&within)), "{within:?}");
        }
    }
}
