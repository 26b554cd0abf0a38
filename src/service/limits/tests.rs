//! Tests of prices.

use super::*;

#[test]
fn a_delivery_costs_by_sockets_and_bytes() {
    for (sockets, bytes, price) in [
        (0, 0, 0),
        (0, 1, 1),
        (0, 10 * 1024, 10),
        (1, 0, 1),
        (1, 1024, 1),
        (100, 0, 100),
        (100, DELIVERY_BYTES, 100),
        (100, DELIVERY_BYTES + 1, 200),
        (2, 1024 * 1024, 1024),
    ] {
        assert_eq!(deliveries(sockets, bytes), price, "{sockets} sockets, {bytes} bytes");
    }
}

#[test]
fn short_text_is_free() {
    for (bytes, rows) in [(0, 0), (FREE_TEXT_BYTES, 0), (FREE_TEXT_BYTES + 1, 1), (1024 * 1024, 2016)] {
        assert_eq!(text_rows(bytes), rows, "{bytes} bytes");
    }
}
