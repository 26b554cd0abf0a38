//! Boxes of longitude and latitude: what a query asks for, and the roomy box a location is indexed by.
//!
//! Everything here is planar in degrees, as RFC 7946 §3.1.1 has it: an edge is straight in lon-lat.

use geo::{Coord, CoordsIter, Geometry, Intersects, Rect};

use super::error::{Code, Error, Result};

/// Room around a location in its index box, in degrees: about 500 m, half a minute at 15 m/s.
const MARGIN_DEG: f64 = 0.0045;

/// The box a location is indexed by: its envelope with room to move in, never past the ends of the world.
pub fn roomy(geometry: &Geometry) -> Rect {
    let envelope = envelope(geometry);
    let (min, max) = (envelope.min(), envelope.max());
    rect(min.x - MARGIN_DEG, min.y - MARGIN_DEG, max.x + MARGIN_DEG, max.y + MARGIN_DEG)
}

/// May the index box stay as it is?
pub fn covers(area: &Rect, geometry: &Geometry) -> bool {
    // Not `Contains`: that is strict about shared edges and about envelopes without an interior.
    let (area_min, area_max) = (area.min(), area.max());
    let envelope = envelope(geometry);
    let (min, max) = (envelope.min(), envelope.max());
    area_min.x <= min.x && area_min.y <= min.y && area_max.x >= max.x && area_max.y >= max.y
}

fn envelope(geometry: &Geometry) -> Rect {
    // Not `BoundingRect`: that believes every hole to be inside its shell, and Natural Earth's Antarctica
    // has its coast as a hole of a line along the pole.
    let positions = geometry.coords_iter().map(|position| Rect::new(position, position));
    let joined = positions.reduce(|a, b| {
        Rect::new(
            Coord { x: a.min().x.min(b.min().x), y: a.min().y.min(b.min().y) },
            Coord { x: a.max().x.max(b.max().x), y: a.max().y.max(b.max().y) },
        )
    });
    joined.expect("a valid geometry has positions")
}

/// A box cut off at the ends of the world.
pub(super) fn rect(west: f64, south: f64, east: f64, north: f64) -> Rect {
    Rect::new(
        Coord { x: west.max(-180.0), y: south.max(-90.0) },
        Coord { x: east.min(180.0), y: north.min(90.0) },
    )
}

/// A `bbox` filter: one box, or the two halves of one that crosses the antimeridian.
#[derive(Clone, Debug, PartialEq)]
pub struct Bbox(Vec<Rect>);

impl Bbox {
    /// From `west,south,east,north`; west > east crosses the antimeridian (RFC 7946 §5.2).
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |detail: &'static str| Error::new(Code::InvalidParameter, detail);
        let [west, south, east, north] =
            numbers(text).ok_or_else(|| invalid("bbox is west,south,east,north: four numbers in degrees"))?;
        if ![west, east].iter().all(|lon| (-180.0..=180.0).contains(lon)) {
            return Err(invalid("bbox: a longitude is outside -180 to 180"));
        }
        if ![south, north].iter().all(|lat| (-90.0..=90.0).contains(lat)) {
            return Err(invalid("bbox: a latitude is outside -90 to 90"));
        }
        if south > north {
            return Err(invalid("bbox: south is above north"));
        }
        Ok(Self(if west <= east {
            vec![rect(west, south, east, north)]
        } else {
            vec![rect(west, south, 180.0, north), rect(-180.0, south, east, north)]
        }))
    }

    /// The boxes to look for in the index.
    pub fn rects(&self) -> &[Rect] {
        &self.0
    }

    /// Does any part of the geometry, its boundary included, lie in the box or on its edge?
    pub fn intersects(&self, geometry: &Geometry) -> bool {
        self.0.iter().any(|rect| geometry.intersects(rect))
    }
}

/// Exactly `N` finite numbers, separated by commas.
pub fn numbers<const N: usize>(text: &str) -> Option<[f64; N]> {
    let mut parsed = [0.0; N];
    let mut parts = text.split(',');
    for number in &mut parsed {
        *number = parts.next()?.parse().ok().filter(|number: &f64| number.is_finite())?;
    }
    parts.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use geo::{Geometry, LineString, Point, Polygon, point};

    use super::*;

    #[test]
    fn a_location_has_room_to_move_in_its_index_box() {
        let start = Geometry::from(point!(x: 13.4, y: 52.5));
        let area = roomy(&start);
        assert!(covers(&area, &start));
        assert!(covers(&area, &Geometry::from(point!(x: 13.404, y: 52.496))));
        assert!(!covers(&area, &Geometry::from(point!(x: 13.405, y: 52.5))));
        for corner in [Point::new(180.0, 90.0), Point::new(-180.0, -90.0)] {
            let area = roomy(&Geometry::from(corner));
            assert!(covers(&area, &Geometry::from(corner)));
            assert!(area.max().x <= 180.0 && area.min().y >= -90.0);
        }
    }

    #[test]
    fn an_index_box_holds_every_position_also_of_a_hole_outside_its_shell() {
        let ring = |x: f64| LineString::from(vec![(x, 0.0), (x + 1.0, 0.0), (x + 1.0, 1.0), (x, 0.0)]);
        let polygon = Geometry::from(Polygon::new(ring(50.0), vec![ring(0.0)]));
        assert!(covers(&roomy(&polygon), &Geometry::from(point!(x: 0.0, y: 0.0))));
    }

    #[test]
    fn bbox_takes_four_numbers_and_may_cross_the_antimeridian() {
        for text in [
            "",
            "1,2,3",
            "1,2,3,4,5",
            "a,2,3,4",
            "NaN,0,1,1",
            "inf,0,1,1",
            "-181,0,1,1",
            "0,-91,1,1",
            "0,1,1,0",
            "0,0,1, 1",
        ] {
            assert!(Bbox::parse(text).is_err(), "{text}");
        }
        let fiji = Bbox::parse("177,-20,-178,-15").unwrap();
        for (lon, inside) in
            [(178.0, true), (-179.0, true), (180.0, true), (-180.0, true), (0.0, false), (176.0, false)]
        {
            assert_eq!(fiji.intersects(&Geometry::from(point!(x: lon, y: -17.0))), inside, "{lon}");
        }
    }
}
