//! Tests of the claims of signed tokens, and of the time in which they are valid.

use super::*;

#[test]
fn claims_are_what_they_should_be() {
    let user = |sub: &str| {
        with_claims(&format!(r#"{{"sub":{sub},"exp":1800000000}}"#)).map(|token| token.user.get())
    };
    let good = [
        ("0", 0),
        ("7", 7),
        ("7.0", 7),
        ("7e0", 7),
        ("-0", 0),
        (r#""0""#, 0),
        (r#""7""#, 7),
        (r#""\u0037""#, 7),
        ("9007199254740991", 9_007_199_254_740_991),
        (r#""9007199254740991""#, 9_007_199_254_740_991),
    ];
    for (sub, id) in good {
        assert_eq!(user(sub).expect(sub), id);
    }
    let bad = [
        "null",
        "true",
        "[7]",
        "{}",
        "-1",
        "-1.0",
        "7.5",
        "9007199254740992",
        "1e999",
        "18446744073709551616",
        r#""""#,
        r#"" 7""#,
        r#""7 ""#,
        r#""07""#,
        r#""00""#,
        r#""+7""#,
        r#""-7""#,
        r#""7.0""#,
        r#""1e0""#,
        r#""0x7""#,
        r#""7\n""#,
        r#""7\u0000""#,
        r#""٧""#,
        r#""ada""#,
        r#""9007199254740992""#,
        r#""18446744073709551616""#,
    ];
    for sub in bad {
        assert_eq!(user(sub).expect_err(sub).code, Code::InvalidToken, "{sub}");
    }
    let bad = [
        r#"{"exp":1800000000}"#,
        r#"{"sub":7}"#,
        r#"{"sub":7,"exp":null}"#,
        r#"{"sub":7,"exp":"1800000000"}"#,
        r#"{"sub":7,"exp":true}"#,
        r#"{"sub":7,"exp":1e999}"#,
        r#"{"sub":7,"exp":1800000000,"nbf":"0"}"#,
        r#"{"sub":7,"exp":1800000000,"name":7}"#,
        r#"{"sub":7,"exp":1800000000,"name":["Ada"]}"#,
        r#"{"sub":7,"sub":8,"exp":1800000000}"#,
        r#"{"sub":7,"exp":1,"exp":1800000000}"#,
        r#"{"sub":7,"exp":1800000000,"x":{"a":1,"a":2}}"#,
        r#"{"sub":7,"exp":1800000000}{}"#,
        r#"[{"sub":7,"exp":1800000000}]"#,
        "null",
        "",
    ];
    for claims in bad {
        assert_eq!(with_claims(claims).expect_err(claims).code, Code::InvalidToken, "{claims}");
    }
    let not_utf_8 =
        with_part(HS256, 1, &URL_SAFE_NO_PAD.encode(b"{\"sub\":7,\"exp\":1800000000,\"x\":\"\xff\"}"));
    refused(&all_keys(), &not_utf_8, "not UTF-8");
}

#[test]
fn only_the_role_admin_makes_an_admin() {
    let is_admin = |role: &str| {
        with_claims(&format!(r#"{{"sub":7,"exp":1800000000,"role":{role}}}"#)).expect(role).is_admin
    };
    assert!(is_admin(r#""admin""#));
    for role in
        [r#""Admin""#, r#""admin ""#, r#""user""#, r#"["admin"]"#, r#"{"admin":true}"#, "true", "null", "1"]
    {
        assert!(!is_admin(role), "{role}");
    }
    assert!(!with_claims(r#"{"sub":7,"exp":1800000000,"is_admin":true,"Role":"admin"}"#).unwrap().is_admin);
}

#[test]
fn a_name_can_be_kept_and_shown() {
    let name = |name: &str| {
        let claims = json!({"sub": 7, "exp": EXP_S, "name": name});
        with_claims(&claims.to_string()).unwrap().name
    };
    assert_eq!(name("Ada Lovelace").as_deref(), Some("Ada Lovelace"));
    assert_eq!(name("  A\u{0}d\u{1b}[31m\na\u{7f}\u{85} ").as_deref(), Some("Ad[31ma"));
    for empty in ["", " ", "\n\u{0}"] {
        assert_eq!(name(empty), None, "{empty:?}");
    }
    assert_eq!(name(&"ж".repeat(255)).unwrap().chars().count(), 255);
    assert_eq!(name(&"🦀".repeat(300)).unwrap(), "🦀".repeat(255));
    assert_eq!(with_claims(r#"{"sub":7,"exp":1800000000,"name":null}"#).unwrap().name, None);
}

#[test]
fn a_token_is_valid_from_nbf_to_exp_give_or_take_the_leeway() {
    let token = |claims: &str| signed(r#"{"alg":"HS256"}"#, claims, SECRET);
    let code = |claims: &str, now_ms: i64| {
        let verified = keys(SECRET, "").verify(&token(claims), Timestamp::from_millis(now_ms));
        verified.map(|token| token.expires_at.as_millis()).map_err(|error| error.code)
    };
    let exp = r#"{"sub":7,"exp":1800000000}"#;
    let exp_ms = EXP_S * 1000;
    for (late_ms, expected) in [
        (29_000, Ok(exp_ms)),
        (29_999, Ok(exp_ms)),
        (30_000, Err(Code::TokenExpired)),
        (31_000, Err(Code::TokenExpired)),
    ] {
        assert_eq!(code(exp, exp_ms + late_ms), expected, "{late_ms}");
    }
    assert_eq!(code(r#"{"sub":7,"exp":1800000000.25}"#, exp_ms), Ok(exp_ms + 250));
    assert_eq!(code(r#"{"sub":7,"exp":1.8e9}"#, exp_ms), Ok(exp_ms));
    assert_eq!(code(r#"{"sub":7,"exp":0}"#, exp_ms), Err(Code::TokenExpired));
    assert_eq!(code(r#"{"sub":7,"exp":-1e308}"#, exp_ms), Err(Code::TokenExpired));
    for exp in ["1e308", "18446744073709551615", "9223372036854775807", "1e18", "253402300800"] {
        assert_eq!(code(&format!(r#"{{"sub":7,"exp":{exp}}}"#), exp_ms), Ok(LAST_MS), "{exp}");
    }
    assert_eq!(Timestamp::from_millis(LAST_MS).to_string(), "9999-12-31T23:59:59.999Z");

    let nbf = r#"{"sub":7,"exp":1800000000,"nbf":1799999000}"#;
    for (early_ms, valid) in
        [(-1_000, true), (29_000, true), (30_000, true), (30_001, false), (31_000, false)]
    {
        let expected = if valid { Ok(exp_ms) } else { Err(Code::InvalidToken) };
        assert_eq!(code(nbf, NOW_S * 1000 - early_ms), expected, "{early_ms}");
    }
    for nbf in ["1e308", "18446744073709551615"] {
        assert_eq!(
            code(&format!(r#"{{"sub":7,"exp":1800000000,"nbf":{nbf}}}"#), exp_ms),
            Err(Code::InvalidToken)
        );
    }
    assert!(code(r#"{"sub":7,"exp":1800000000,"nbf":-1e308}"#, exp_ms).is_ok());
    // What nobody signed has not expired either.
    let forged = signed(r#"{"alg":"HS256"}"#, r#"{"sub":7,"exp":1}"#, "another secret");
    refused(&all_keys(), &forged, "forged and expired");
}
