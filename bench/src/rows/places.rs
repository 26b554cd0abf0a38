//! Where locations are and how they move.

use bench::wire::request;

/// Makes PUTs that go round the locations, over all windows, so that none is moved twice at a time.
pub fn move_in_turn(ids: Vec<u64>) -> impl FnMut(u64, f64) -> (usize, Vec<u8>) {
    move |i, t| {
        let room = (i % ids.len() as u64) as usize;
        (room, request("PUT", "/location", &movement(ids[room], room, t)))
    }
}

/// Writes the body of a PUT.
pub fn movement(id: u64, number: usize, t: f64) -> String {
    format!(r#"{{"id":{id},"geometry":{}}}"#, place(number, t))
}

/// Writes the place of a location at a second. The locations are spread over a degree square, and each moves at 15 m/s,
/// five minutes there and five back.
pub fn place(number: usize, t: f64) -> String {
    let way = 15.0 * (300.0 - (t % 600.0 - 300.0).abs());
    let (sin, cos) = (number as f64).sin_cos();
    let lon = 13.0 + part(number as u64, 0.618_033_988) + sin * way / 67_000.0;
    let lat = 52.0 + part(number as u64, 0.414_213_562) + cos * way / 111_000.0;
    format!(r#"{{"type":"Point","coordinates":[{lon:.6},{lat:.6}]}}"#)
}

/// Writes the path of the i-th query, for a box that holds 20 of 100,000 locations.
pub fn bbox_of_20(i: u64) -> String {
    let (w, s) = (13.0 + 0.98 * part(i, 0.754_877), 52.0 + 0.98 * part(i, 0.569_840));
    format!("/location?bbox={w:.5},{s:.5},{:.5},{:.5}&perPage=100", w + 0.0141, s + 0.0141)
}

/// Returns numbers that are evenly spread between 0 and 1.
fn part(i: u64, step: f64) -> f64 {
    (i as f64 * step).fract()
}
