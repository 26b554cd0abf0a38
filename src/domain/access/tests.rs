//! The whole table of roles and actions, and what each kind of caller is to a location.

use super::*;

fn now() -> Timestamp {
    Timestamp::from_millis(1_000)
}

fn user(id: u64) -> UserId {
    UserId::new(id).expect("an id")
}

fn location(id: u64) -> LocationId {
    LocationId::new(id).expect("an id")
}

fn token(id: u64, is_admin: bool) -> Caller {
    Caller::User { id: user(id), is_admin }
}

/// A guest with share link 1 or another, of a location, until a time.
fn guest(share: u64, id: u64, expires_at_ms: i64) -> Caller {
    let expires_at = Timestamp::from_millis(expires_at_ms);
    Caller::Guest(Guest { share: ShareId(share), location: location(id), from: 1, expires_at })
}

/// Location 7: user 1 owns it, 2 views it, 3 edits it, share link 1 is alive.
fn access() -> Access {
    Access {
        owner: user(1),
        members: HashMap::from([(user(2), Role::Viewer), (user(3), Role::Editor)]),
        shares: HashMap::from([(ShareId(1), Timestamp::from_millis(2_000))]),
        grants: 3,
    }
}

#[test]
fn each_role_may_do_what_the_lower_ones_may() {
    use Action::{Manage, Meet, Move, See};

    for (role, allowed) in [
        (None, &[][..]),
        (Some(Role::Guest), &[See]),
        (Some(Role::Viewer), &[See, Meet]),
        (Some(Role::Editor), &[See, Meet, Move]),
        (Some(Role::Owner), &[See, Meet, Move, Manage]),
    ] {
        for action in [See, Meet, Move, Manage] {
            let expected = match (role, allowed.contains(&action)) {
                (_, true) => Ok(()),
                // Who may not even see it learns nothing of it.
                (None, false) => Err(Code::NotFound),
                (Some(_), false) => Err(Code::Forbidden),
            };
            let found = may(role, action, location(7)).map_err(|error| error.code);
            assert_eq!(found, expected, "{role:?}, {action:?}");
        }
    }
}

#[test]
fn each_caller_has_its_role() {
    use Role::{Editor, Owner, Viewer};

    for (caller, role) in [
        (Caller::default(), Some(Owner)),
        (Caller::Anyone(user(9)), Some(Owner)),
        (token(1, false), Some(Owner)),
        (token(1, true), Some(Owner)),
        (token(2, false), Some(Viewer)),
        (token(2, true), Some(Owner)),
        (token(3, false), Some(Editor)),
        (token(9, false), None),
        (token(9, true), Some(Owner)),
        (guest(1, 7, 2_000), Some(Role::Guest)),
        // Another location's, one that ends now, one that has been revoked.
        (guest(1, 8, 2_000), None),
        (guest(1, 7, 1_000), None),
        (guest(2, 7, 2_000), None),
    ] {
        assert_eq!(access().role(&caller, location(7), now()), role, "{caller:?}");
    }
}

#[test]
fn changes_of_rights_take_effect() {
    let mut access = access();
    let viewer = token(2, false);
    access.apply(RightsChange::Member(user(2), Some(Role::Editor)));
    assert_eq!(access.role(&viewer, location(7), now()), Some(Role::Editor));
    access.apply(RightsChange::Member(user(2), None));
    assert_eq!(access.role(&viewer, location(7), now()), None);
    access.apply(RightsChange::Share(ShareId(1), None));
    assert_eq!(access.role(&guest(1, 7, 2_000), location(7), now()), None);
    access.apply(RightsChange::Share(ShareId(2), Some(Timestamp::from_millis(2_000))));
    assert_eq!(access.role(&guest(2, 7, 2_000), location(7), now()), Some(Role::Guest));
}

#[test]
fn who_creates_owns_and_guests_create_nothing() {
    for (caller, creates, account, is_admin) in [
        (Caller::Anyone(user(5)), Some(5), None, false),
        (token(5, false), Some(5), Some(5), false),
        (token(5, true), Some(5), Some(5), true),
        (guest(1, 7, 2_000), None, None, false),
    ] {
        let found = caller.may_create().map_err(|error| error.code);
        assert_eq!(found, creates.map(user).ok_or(Code::Forbidden), "{caller:?}");
        assert_eq!((caller.account(), caller.is_admin()), (account.map(user), is_admin), "{caller:?}");
    }
}

#[test]
fn a_label_counts_only_in_open_mode() {
    let label = || Ok(user(4));
    for (known, caller) in [
        (None, Caller::Anyone(user(4))),
        (Some(Caller::Anyone(user(5))), Caller::Anyone(user(4))),
        (Some(token(5, false)), token(5, false)),
        (Some(guest(1, 7, 2_000)), guest(1, 7, 2_000)),
    ] {
        assert_eq!(Caller::or_labelled(known, label).expect("a good label"), caller);
    }
    assert_eq!(Caller::Anyone(user(5)).labelled(user(4)), Caller::Anyone(user(4)));
    assert_eq!(token(5, false).labelled(user(4)), token(5, false));
    assert_eq!(Caller::of_body(None, br#"{"userId":6}"#).expect("good"), Caller::Anyone(user(6)));
    let bad = Caller::of_body(None, br#"{"userId":"x"}"#).expect_err("no user");
    assert_eq!((bad.code, bad.pointer.as_deref()), (Code::InvalidUserId, Some("/userId")));
    assert!(Caller::of_body(Some(token(5, false)), br#"{"userId":"x"}"#).is_ok(), "nobody looks at it");
}

#[test]
fn a_member_is_made_a_viewer_or_an_editor() {
    for (body, role) in
        [(r#"{"role":"viewer"}"#, Ok(Role::Viewer)), (r#"{"role":"editor"}"#, Ok(Role::Editor))]
    {
        assert_eq!(Role::from_body(body.as_bytes()).map_err(|error| error.code), role, "{body}");
    }
    for body in [r#"{"role":"owner"}"#, r#"{"role":"guest"}"#, r#"{"role":"Viewer"}"#, r#"{"role":2}"#, "{}"]
    {
        let error = Role::from_body(body.as_bytes()).expect_err(body);
        assert_eq!((error.code, error.pointer.as_deref()), (Code::InvalidMember, Some("/role")), "{body}");
    }
}
