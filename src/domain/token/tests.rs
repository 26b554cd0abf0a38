//! Attacks on tokens, and tokens that another library made.

use proptest::prelude::*;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A little before the tokens below end.
const NOW_S: i64 = 1_799_999_000;
const EXP_S: i64 = 1_800_000_000;

// Keys by OpenSSL; tokens by Node's crypto, of {"sub":"7","name":"Ada","exp":1800000000}.
const RSA: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvj8AHvf/toK2YCIZypF7
9OJ13Z0fojRrO3rhj+/2qIt/FrAjD3u931exd7dPq9IxmnDNFzyszeg60VeV+wRC
a9aa5g+E/MtR218LlDQte9tc8Nr4UyqfHVxRks4279N8dfJJ92fkQCpBFF1J7fUA
0fdShNRkCQAJ+KlARbDKpPriJ6fzWYyVTnlQrGGUGycpg5NERFjEWBc8BQdnzjXc
wAjLZh2t/zjr2jWzyZ8ME/TBK1dzRNWrbdtbbdReZiNx9OtRPcuyj0iRp5wHPJqK
HKCFpNKhoTafRMOfKzCVndBJpwGzoFklqLacE0NbY5K+iFlGLWJ+uGHx4MxA4Pco
GwIDAQAB
-----END PUBLIC KEY-----
";
const RSA_PKCS1: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAvj8AHvf/toK2YCIZypF79OJ13Z0fojRrO3rhj+/2qIt/FrAjD3u9
31exd7dPq9IxmnDNFzyszeg60VeV+wRCa9aa5g+E/MtR218LlDQte9tc8Nr4Uyqf
HVxRks4279N8dfJJ92fkQCpBFF1J7fUA0fdShNRkCQAJ+KlARbDKpPriJ6fzWYyV
TnlQrGGUGycpg5NERFjEWBc8BQdnzjXcwAjLZh2t/zjr2jWzyZ8ME/TBK1dzRNWr
bdtbbdReZiNx9OtRPcuyj0iRp5wHPJqKHKCFpNKhoTafRMOfKzCVndBJpwGzoFkl
qLacE0NbY5K+iFlGLWJ+uGHx4MxA4PcoGwIDAQAB
-----END RSA PUBLIC KEY-----
";
const P256: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFQh3GPlMzt+PCABe/QMyyFTebFP3
vHg9QHG4cv9f9081/2WYvgA3YP9j2ppSaWlEgcnI3z+5CdwND1hvUMFvbw==
-----END PUBLIC KEY-----
";
const ED25519: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAZlwC2KiNY3C88tsUyK55ZhUh2AElffa4Xs14Gk7tebM=
-----END PUBLIC KEY-----
";
const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDeYlLxUrvLjBYUFGkm5LHJubcY
nXPxuQ2nPV7KcGGs3kZTKI0Gb0ySAKntWfWSM4O9q7E0hXdQVpm2Nbgu+Nkn/DtE
rKP7euK2g+Dp8E+ARAtIht3AfQJiJk0A6nT8zd346/7JOUdU0iJGGzIC1D0uHX3Z
DqZSttxWBOgeyP4qJwIDAQAB
-----END PUBLIC KEY-----
";
const P384: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE2RszMssOMGd3rY4+Apz4REyEAoYL1ZaK
iV+YvTSvjE/1QdK0dOXIljzAn5B/Cvn+/KVfqtCKdjjwfxxyQqnMw/vN/Sc1C1Pw
UbYKVkGKI8kXkFnRHiyAFaql+iRlCF2Q
-----END PUBLIC KEY-----
";
const SECP256K1: &str = "\
-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEBGCk9tlZoMShrYSss01Gav9KXNQRltpm
Kw1WXyrXS7q4AqILgcjNsEFvYrrUil7e6Q9MAi8raGiglwbD9qSjLg==
-----END PUBLIC KEY-----
";
const X25519: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAa/qLdpuljCs1QqPqUrFoG+Mgxk5fgdgPbB5uZrcv9XQ=
-----END PUBLIC KEY-----
";
const ED448: &str = "\
-----BEGIN PUBLIC KEY-----
MEMwBQYDK2VxAzoA6KlfrFHzLuUOAGZpVhDfpyc46jTOdqcDXRXPUjrKbNh6jO4B
vBCRr1Tm2NG45QgxHjJgCLbUe80A
-----END PUBLIC KEY-----
";
const RS256: &str = "\
eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjEifQ.eyJzdWIiOiI3IiwibmFtZSI6IkFkYSIsImV4cCI6MTgwMDAwM\
DAwMH0.JaR-CkqSH2_bIjEw0_Uj10Hb9MpglsLqgrthv7X_4WYw5_DtwvDpWt5Pu4uErBbNKZW5XMn0PfrGQEH2nYNC2a5EaSwxh\
g6N121Kz1ZJEdqD4Lfun9KaXdQ9URmNmoNVdYuDLISH1TQabFm3maPtBpyW8_L0IOCrww8Fq480hdf86UZ1Ce4ZS2Mz3PtJ1kvjI\
v_jnW_3xbXgE4NUb3W4IBkJJeLqpxcrHSQt4fhN-INpZFR4LCT2IY45WD3whzwmBc3Xo9Mx6nc7HGMDE7j9-H5aQylUcBo_wZ0QC\
p9mnj0EOgt6ncw4i4ASF5G2VKrFAb01CyOa8Gycy8di6W3xrA";
const ES256: &str = "\
eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjEifQ.eyJzdWIiOiI3IiwibmFtZSI6IkFkYSIsImV4cCI6MTgwMDAwM\
DAwMH0.blhzk_bne2URODwtop3a4zSnEOJZYnWTNyYbmQK4R6FZ2KSO3PWCoY9Uv1FBSNskz2qsTv6hO5lkIDCxBw-wQg";
const EDDSA: &str = "\
eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6IjEifQ.eyJzdWIiOiI3IiwibmFtZSI6IkFkYSIsImV4cCI6MTgwMDAwM\
DAwMH0.l-x8L2Srn5Mgn1hpAVUhcLdxJTsvC99BMK70fH-Lq-HEE6ZUDcXxPYAYK_JX1RaIZFvldjtMbEvuc9a4Jz4YBQ";
const HS256: &str = "\
eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI3IiwibmFtZSI6IkFkYSIsImV4cCI6MTgwMDAwMDAwMH0.nBg085E\
49hQKdSm1B0pPJLJ_oEucvATQNxTCc4W_BeA";
const PS256: &str = "\
eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiI3IiwibmFtZSI6IkFkYSIsImV4cCI6MTgwMDAwMDAwMH0.C7lBkL5kRzJzWf8ZilmC8WD\
1l83Um6wVNu-UiOV45caVo8Mv3bJxp0Na1g3mTv3MDnahJ2MifMJOhqbNjQrFl5Mf7Qv6GBMz9D3QH3m8Iomje9x8Ze0TepkcL_d\
1jicpd-iPpSi7grqk6wWCz0V1PPG5vug6HqJvwDinKU6bZ-A-gnv3dWe5SA-DiN9qndIk_Hm8wSRBOt3UtgVk8navGrLk3hM-5Zv\
hvbao3lBjXcqC23wkJ9z_tEQAjWr9Xf067IUb45-mph-y8Rg6aF89YsrS_WHu8Xg65XVP2XPQhTka9-zNeuyiZ65XRMYZRdrt6ns\
aDIKc1uVatwJHWLVwag";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn now() -> Timestamp {
    at(NOW_S)
}

fn keys(secrets: &str, pem: &str) -> Keys {
    let mut keys = Keys::default();
    if !secrets.is_empty() {
        keys.add_secrets(secrets).unwrap();
    }
    if !pem.is_empty() {
        keys.add_public_keys(pem).unwrap();
    }
    keys
}

fn all_keys() -> Keys {
    keys(SECRET, &[RSA, P256, ED25519].concat())
}

fn signed(header: &str, claims: &str, secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn with_claims(claims: &str) -> Result<Token> {
    keys(SECRET, "").verify(&signed(r#"{"alg":"HS256"}"#, claims, SECRET), now())
}

/// Replaces one of the three parts.
fn with_part(token: &str, n: usize, part: &str) -> String {
    let mut parts: Vec<_> = token.split('.').collect();
    parts[n] = part;
    parts.join(".")
}

fn refused(keys: &Keys, token: &str, what: &str) {
    let error = keys.verify(token, now()).expect_err(what);
    assert_eq!(error.code, Code::InvalidToken, "{what}: {error}");
    let says = format!("{error} {error:?}");
    assert!(
        token.len() < 20 || !token.split('.').any(|part| part.len() > 8 && says.contains(part)),
        "{what}: {says}"
    );
}

#[test]
fn each_algorithm_is_taken_with_its_key_and_with_no_other() {
    let ada = Token {
        user: UserId::new(7).unwrap(),
        name: Some("Ada".to_owned()),
        is_admin: false,
        expires_at: at(EXP_S),
    };
    let cases = [
        (HS256, keys(SECRET, "")),
        (RS256, keys("", RSA)),
        (ES256, keys("", P256)),
        (EDDSA, keys("", ED25519)),
    ];
    for (n, (token, _)) in cases.iter().enumerate() {
        assert_eq!(all_keys().verify(token, now()).unwrap(), ada, "case {n}");
        for (m, (_, keys)) in cases.iter().enumerate() {
            if n == m {
                assert_eq!(keys.verify(token, now()).unwrap(), ada, "case {n}");
            } else {
                refused(keys, token, "the key of another algorithm");
            }
        }
    }
    assert_eq!(keys("", RSA_PKCS1).verify(RS256, now()).unwrap(), ada);
    refused(&all_keys(), PS256, "another algorithm of the same key");
    refused(&Keys::default(), HS256, "no key at all");
}

#[test]
fn every_key_of_a_rotation_counts_and_the_first_secret_mints() {
    let old = "an older secret of thirty-two bytes";
    let old = old.replace(' ', "-");
    let both = keys(&format!(" {SECRET}\n{old}\n"), "");
    let token = both.verify(HS256, now()).unwrap();
    assert!(both.verify(&keys(&old, "").mint(&token).unwrap(), now()).is_ok());
    let minted = both.mint(&token).unwrap();
    assert_eq!(keys(SECRET, "").verify(&minted, now()).unwrap(), token);
    refused(&keys(&old, ""), &minted, "the old secret alone");
    assert_eq!(keys("", RSA).mint(&token), None);

    let admin = Token { name: None, is_admin: true, expires_at: at(EXP_S - 1), ..token };
    let minted = all_keys().mint(&admin).unwrap();
    assert_eq!(all_keys().verify(&minted, now()).unwrap(), admin);
}

#[test]
fn the_token_does_not_choose_its_algorithm() {
    let claims = r#"{"sub":7,"exp":1800000000}"#;
    for none in ["none", "None", "NONE", "nOnE", "none ", "", "null"] {
        let header = format!(r#"{{"alg":"{none}"}}"#);
        let token = signed(&header, claims, SECRET);
        refused(&all_keys(), &token, none);
        refused(&all_keys(), &with_part(&token, 2, ""), none);
    }
    let headers = [
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "{}",
        "",
    ];
    for header in headers {
        refused(&all_keys(), &signed(header, claims, SECRET), header);
    }
    // The public key as a secret, in each form somebody might have it in.
    for pem in [RSA, P256, ED25519] {
        let der = pem::parse(pem).unwrap().into_contents();
        let spellings = [pem.as_bytes(), pem.trim_end().as_bytes(), pem.trim().as_bytes(), &der, b""];
        for secret in spellings {
            let message = signed(r#"{"alg":"HS256"}"#, claims, SECRET);
            let (message, _) = message.rsplit_once('.').unwrap();
            let key = EncodingKey::from_secret(secret);
            let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            refused(&keys("", pem), &format!("{message}.{signature}"), "the public key as a secret");
            refused(&all_keys(), &format!("{message}.{signature}"), "the public key as a secret");
        }
    }
    // A key the token brings along is none.
    let jwk = r#"{"alg":"HS256","kid":"../../dev/null","jwk":{"kty":"oct","k":"QUFBQQ"}}"#;
    refused(&all_keys(), &signed(jwk, claims, "AAAA"), "jwk");
}

#[test]
fn what_was_changed_or_is_no_token_is_refused() {
    let other = URL_SAFE_NO_PAD.encode(r#"{"sub":"8","name":"Ada","exp":1800000000}"#);
    for token in [HS256, RS256, ES256, EDDSA] {
        refused(&all_keys(), &with_part(token, 1, &other), "other claims");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[0] ^= 1;
        refused(&all_keys(), &format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes)), "one bit");
        for length in [0, 1, bytes.len() - 1] {
            let short = URL_SAFE_NO_PAD.encode(&bytes[..length]);
            refused(&all_keys(), &format!("{message}.{short}"), "a short signature");
        }
        refused(&all_keys(), &format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64])), "zeros");
        let spellings = [
            message.to_owned(),
            format!("{message}."),
            format!("{message}.{signature}="),
            format!("{message}.{signature}A"),
            format!("{token}."),
            format!(".{token}"),
            format!("{token}.{signature}"),
            format!("{token}\n"),
            format!(" {token}"),
            format!("Bearer {token}"),
            token.replacen('.', "..", 1),
            token.replace('.', "%2E"),
            format!("{token}\u{0}"),
            format!("ä{token}"),
        ];
        for spelling in spellings {
            refused(&all_keys(), &spelling, &spelling);
        }
    }
    for text in ["", ".", "..", "...", "null", "e30.e30.", "e30.e30.e30", "🦀.🦀.🦀"] {
        refused(&all_keys(), text, text);
    }
    let long = |n: usize| format!(r#"{{"sub":7,"exp":1800000000,"x":"{}"}}"#, "a".repeat(n));
    assert!(with_claims(&long(5_000)).is_ok());
    assert_eq!(with_claims(&long(6_200)).unwrap_err().detail, "the token is over 8 KiB");
    refused(&all_keys(), &".".repeat(1 << 20), "huge");
}

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

#[test]
fn keys_that_are_weak_private_or_unknown_are_refused() {
    let refused = |pem: &str| {
        let why = Keys::default().add_public_keys(pem).expect_err(pem);
        assert!(!why.contains("MI") && !why.contains('\n'), "{why}");
        why
    };
    assert_eq!(refused(RSA_1024), "block 1: an RSA key must have 2048 to 4096 bits");
    for pem in [P384, SECP256K1] {
        assert_eq!(refused(pem), "block 1: an EC key must be of the curve P-256");
    }
    for pem in [X25519, ED448] {
        assert_eq!(refused(pem), "block 1: must be an RSA, EC P-256 or Ed25519 key");
    }
    assert!(refused(&[ED25519, P384].concat()).starts_with("block 2: "));
    for kind in
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"]
    {
        let private = format!("-----BEGIN {kind}-----\nMIAA\n-----END {kind}-----\n");
        assert!(refused(&[RSA, &private].concat()).contains("private key"), "{kind}");
    }
    let certificate = RSA.replace("PUBLIC KEY", "CERTIFICATE");
    assert!(refused(&certificate).contains("openssl x509"));
    let cut = &ED25519[..ED25519.len() - 10];
    let short = "-----BEGIN PUBLIC KEY-----\nMAwwBQYDK2VwAwMAZlw=\n-----END PUBLIC KEY-----\n";
    for bad in [
        "",
        "x",
        cut,
        &[ED25519, cut].concat(),
        short,
        &RSA.replace("MIIB", "!!!!"),
        &RSA.replace("MIIB", "MIIC"),
    ] {
        refused(bad);
    }
    for bad in ["", " \n", "0123456789abcdef0123456789abcde", &format!("{SECRET} short"), RSA] {
        let why = Keys::default().add_secrets(bad).expect_err(bad);
        assert!(!why.contains("short ") && !why.contains("0123"), "{why}");
    }
}

#[test]
fn keys_are_not_printed() {
    let shown = format!("{:?} {:#?}", all_keys(), all_keys());
    assert!(shown.contains("HS256") && !shown.contains(&SECRET[..6]) && !shown.contains("48, 49"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_nobody_signed_is_refused(
        text in "\\PC*",
        parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5),
        claims in proptest::collection::vec(any::<u8>(), 0..60),
        signature in proptest::collection::vec(any::<u8>(), 0..300),
        algorithm in prop::sample::select(vec!["HS256", "RS256", "ES256", "EdDSA", "none"]),
    ) {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let claims = URL_SAFE_NO_PAD.encode(claims);
        let valid = URL_SAFE_NO_PAD.encode(r#"{"sub":7,"exp":1800000000}"#);
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let keys = all_keys();
        for token in [
            text,
            parts.join("."),
            format!("{header}.{claims}.{signature}"),
            format!("{header}.{valid}.{signature}"),
        ] {
            prop_assert_eq!(keys.verify(&token, now()).unwrap_err().code, Code::InvalidToken);
        }
    }

    #[test]
    fn signed_claims_of_any_kind_never_panic(claims in "\\PC*", number in any::<f64>(), name in ".*") {
        let _ = with_claims(&claims);
        let claims = json!({"sub": 7, "exp": number, "nbf": number, "name": name});
        let _ = with_claims(&claims.to_string());
    }
}
