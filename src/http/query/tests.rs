//! Query strings as tables: what is read, and the exact text of each refusal.

use super::*;

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> (Code, String) {
    let error = result.expect_err("a refusal");
    (error.code, error.detail.into_owned())
}

#[test]
fn a_list_has_pages_of_twenty_unless_asked_otherwise() {
    for (query, page, per_page, offset) in [
        ("", 1, 20, 0),
        ("page=3", 3, 20, 40),
        ("page=2&perPage=100", 2, 100, 100),
        ("perPage=1&userId=0", 1, 1, 0),
        ("share=x&share=y&_=1&_dc=2&_=3", 1, 20, 0),
        ("p%61ge=2", 2, 20, 20),
    ] {
        let list = list(query).expect(query);
        let rows = list.rows;
        assert_eq!((list.page, list.per_page, rows.offset, rows.limit), (page, per_page, offset, per_page));
        assert!(list.filter.is_none(), "{query}");
    }
    let filter = list("bbox=1,2,3,4&near=1,2&radius=5").unwrap().filter.expect("a filter");
    assert!(filter.bbox.is_some() && filter.near.is_some());
}

#[test]
fn a_bad_parameter_is_refused_in_words_that_name_it() {
    let known = "known: page, perPage, bbox, near, radius, userId";
    for (query, detail) in [
        ("page=0", "page must be an integer from 1 to 1099511627776".to_owned()),
        ("page=", "page must be an integer from 1 to 1099511627776".to_owned()),
        ("page=%2B1", "page must be an integer from 1 to 1099511627776".to_owned()),
        ("page=99999999999999999999", "page must be an integer from 1 to 1099511627776".to_owned()),
        ("perPage=101", "perPage must be an integer from 1 to 100".to_owned()),
        ("page=1&page=1", "page is given twice".to_owned()),
        ("near=1,2", "near needs radius, in metres".to_owned()),
        ("radius=5", "radius needs near=lon,lat".to_owned()),
        ("Page=1", format!("there is no parameter `Page` here; {known}")),
        (&"x".repeat(99), format!("there is no parameter `{}` here; {known}", "x".repeat(40))),
    ] {
        assert_eq!(refusal(list(query)), (Code::InvalidParameter, detail), "{query}");
    }
    assert_eq!(refusal(list("userId=-1")).0, Code::InvalidUserId);
    assert_eq!(refusal(user("page=1")).1, "there is no parameter `page` here; known: userId");
    assert_eq!(refusal(notifications("unread=1")).1, "unread must be true or false");
    assert_eq!(refusal(history("limit=1001")).1, "limit must be an integer from 1 to 1000");
    assert_eq!(refusal(share("share=a&share=b")).1, "share is given twice");
}

#[test]
fn other_queries_have_defaults_and_ends() {
    let all = history("").unwrap();
    assert_eq!((all.since, all.limit), (0, 1000));
    let last = history("since=9007199254740991&limit=1").unwrap();
    assert_eq!((last.since, last.limit), (MAX_SAFE_INTEGER, 1));
    assert_eq!(user("").unwrap(), UserId::DEFAULT);
    assert_eq!(user("userId=7").unwrap().get(), 7);
    assert!(!notifications("unread=false").unwrap().unread);
    let unread = notifications("unread=true&userId=7&page=2").unwrap();
    assert_eq!((unread.unread, unread.user.get(), unread.rows.offset), (true, 7, 20));
    assert_eq!(share("page=1&share=a%20b").unwrap().as_deref(), Some("a b"));
    assert_eq!(share("").unwrap(), None);
}
