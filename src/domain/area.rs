//! Boxes of longitude and latitude: what a query asks for, and the roomy box a location is indexed by.
//!
//! Everything here is planar in degrees, as RFC 7946 §3.1.1 has it: an edge is straight in lon-lat.

use geo::{Coord, CoordsIter, Geometry, Intersects, Rect};

use super::{
    error::{Code, Error, Result},
    geometry::wrap_longitude,
};

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
    /// Parses `west,south,east,north`; west > east crosses the antimeridian (RFC 7946 §5.2). A map that was scrolled
    /// around the world has longitudes to ±540: they mean the same meridians.
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |detail: &'static str| Error::new(Code::InvalidParameter, detail);
        let [west, south, east, north] =
            numbers(text).ok_or_else(|| invalid("bbox is west,south,east,north: four numbers in degrees"))?;
        let is_around_the_world = east - west >= 360.0;
        let [west, east] = match [wrap_longitude(west), wrap_longitude(east)] {
            [Some(_), Some(_)] if is_around_the_world => [-180.0, 180.0],
            [Some(west), Some(east)] => [west, east],
            _ => return Err(invalid("bbox: a longitude is outside -540 to 540")),
        };
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

    pub fn rects(&self) -> &[Rect] {
        &self.0
    }

    /// Whether any part of the geometry, its boundary included, lies in the box or on its edge.
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
    use crate::domain::distance::distance_m;

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

    /// The rule is nonzero: inside is what a ring goes around at least once, however often (docs/protocol.md).
    #[test]
    fn what_a_ring_that_crosses_itself_goes_around_is_inside() {
        let area =
            |ring: &[(f64, f64)]| Geometry::from(Polygon::new(LineString::from(ring.to_vec()), Vec::new()));
        // A pentagram goes around its middle twice; a bow tie around its sides once, in either direction.
        let star = area(&[(0.0, 10.0), (6.0, -8.0), (-9.5, 3.0), (9.5, 3.0), (-6.0, -8.0), (0.0, 10.0)]);
        let tie = area(&[(-4.0, -4.0), (4.0, 4.0), (4.0, -4.0), (-4.0, 4.0), (-4.0, -4.0)]);
        for (geometry, lon, lat, is_inside) in [
            (&star, 0.0, 0.0, true),
            (&star, 0.0, 8.0, true),
            (&star, 6.0, 6.0, false),
            (&tie, 3.0, 0.0, true),
            (&tie, -3.0, 0.0, true),
            (&tie, 0.0, 2.0, false),
        ] {
            let bbox = Bbox::parse(&format!("{lon},{lat},{lon},{lat}")).unwrap();
            assert_eq!(bbox.intersects(geometry), is_inside, "bbox at {lon},{lat}");
            assert_eq!(distance_m(Point::new(lon, lat), geometry) == 0.0, is_inside, "near {lon},{lat}");
        }
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
            "-541,0,1,1",
            "0,0,540.1,1",
            "0,-91,1,1",
            "0,1,1,0",
            "0,0,1, 1",
        ] {
            assert!(Bbox::parse(text).is_err(), "{text}");
        }
        // The second and third as a map has it that was scrolled to the east or to the west.
        for text in ["177,-20,-178,-15", "177,-20,182,-15", "-183,-20,-178,-15"] {
            let fiji = Bbox::parse(text).unwrap();
            for (lon, inside) in
                [(178.0, true), (-179.0, true), (180.0, true), (-180.0, true), (0.0, false), (176.0, false)]
            {
                assert_eq!(fiji.intersects(&Geometry::from(point!(x: lon, y: -17.0))), inside, "{lon}");
            }
        }
    }

    #[test]
    fn a_bbox_of_a_scrolled_map_means_the_same_meridians() {
        let boxes = |text: &str| {
            let sides = |rect: &Rect| (rect.min().x, rect.max().x);
            Bbox::parse(text).unwrap().rects().iter().map(sides).collect::<Vec<_>>()
        };
        for (west, east, expected) in [
            ("-180", "180", vec![(-180.0, 180.0)]),
            ("170", "190", vec![(170.0, 180.0), (-180.0, -170.0)]),
            ("180", "190", vec![(180.0, 180.0), (-180.0, -170.0)]),
            ("200", "210", vec![(-160.0, -150.0)]),
            ("-210", "-200", vec![(150.0, 160.0)]),
            ("190", "540", vec![(-170.0, 180.0)]),
            ("175", "534", vec![(175.0, 180.0), (-180.0, 174.0)]),
            ("190", "-160", vec![(-170.0, -160.0)]),
            ("170", "530", vec![(-180.0, 180.0)]),
            ("-540", "540", vec![(-180.0, 180.0)]),
        ] {
            assert_eq!(boxes(&format!("{west},-10,{east},10")), expected, "{west} to {east}");
        }
    }
}
