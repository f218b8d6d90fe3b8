//! The worked vectors of the reference, appendix V: V1 (dialect P) and V2
//! (dialect M) are published test data of magma, V3 (dialect L) comes from
//! fixed seeds and was accepted by libdime as SS_ID.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::build::{self, Content, SignTo};
use super::{Dialect, Kind, Level, SecondaryKey, Signet, field};
use crate::dime::key::{Owner, PrivateKey};
use crate::dime::user::Signer;
use crate::dime::{Address, Domain, chain, ed25519, org, user};

const V1_ORG: &str = "06f00000860120878e24038017cb68059e517ea2cb9c1b6b7848e05ebbc080dd65b1a3a44b7c\
    80032102ff5d28d73031b7f56b6558d42586080e0eabe4cf8a6b485c211bb30ea254e211045b\
    1fc4da7098a2f5563cf94eeed624cc6e0cf859c65eea98f8e2393c328acb38c220b57eb29fc8\
    dd30aeb078f4a74fb24ec6b5a1d94add67c9b34f76a0fed00c";

const V2_ORG: &str = "BvAAAWMBIUA84E+XlnQm2rf/xArwWRYoCWRHKfLYnR1epjfGHSLeawMhA48f04SsJOtgZvIAaAMH\
    b0lAU6JGmKWQBYZRdFuIOOtkBHsafjgMKnfEfasVTBpjbnon81ttnuJNYxIioSBbXMHoouchSKOm\
    9elbyB7W8hva2ONjByYvGI/dgHU3+OgrrAgQC0V4YW1wbGUgTExDERgxNjAwIFBlbm5zeWx2YW5p\
    YSBBdmUgTlcTDVVuaXRlZCBTdGF0ZXMUBTIwNTAwFQ4oMjAyKSA0NTYtMTExMf107N0qlZxpbixI\
    WPYfWcKrk82Ma6jxFCKsU2Om8p3P7uXRDxXOsKjl+exCMLdWcCQf7Za4t+0qmidb3LsobAAO/gtl\
    eGFtcGxlLmNvbf9w6PnxWe+gVy8HeK2hyyKVMVd57LXbmYlmqsRegg2FAI8su/QqYyPoogxRXKjO\
    aeKExRhPe+L1onefH3JBA0IK";

const V2_USER: &str = "Bv0AAW4BIUCrKVU0/tyKEetnxfXBVdYlws1cof0DJ/obRCg/QPT2pAIhA8SQ44pss9J5vxHp4jbC\
    S9poZv0JlFSCQxH2taDhfsMnBcU1Wa162o4FpEqAzcxETbD71HO27lRlzE8/Yd+RZT7KNROA4e/T\
    AmphORiH7KK3yS6DnuSoSt7w/oFeYq180AwGUtVYvtAR4szKkh3QHNSJ/Sqh1xvWmSEdm9RxDxcx\
    f+bxS8G79PwJDHiFV+rW+5uetx+WsQTfhHDZQBZTNPdQARAQdXNlckBleGFtcGxlLmNvbf0HkBxZ\
    vkoQG6rwhGZTxd6LUZNiJ6aAfu9cxw3kaceoG5F3Mcz4WoNSwTOK76Z7a7pujX5eoOSKZgLvt7QP\
    MCIA/hB1c2VyQGV4YW1wbGUuY29t//OjJlv2ra+bT+cE37Aoufn8ThUrIVaCEnb47JRITh3zs72K\
    ESap140Jr0vKzAm80NtLEqgQ0IGYH4NkCf5GsQw=";

const V3_ORG: &str = "BvAAAUQBIUCKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXAIiAUCBOXcOqH0XX1ajVGbD\
    TH7My42KkbTuN6Jd9g9bj8mzlAMAIQNPNVvct8wK9yjvPM65YV2QaEu1sspfhZqw8LcEB1hxqgTX\
    zEM+tcsco6wghLjL6kicTDzTw3o18L/jfNnN96KrH9c1cDWyon4QpreflgTPwbqairc91caJJo6W\
    L7JXWUYHEAdFeGFtcGxl/aqr8GKkizKlUGvUAwM03Hcj3EVMteDM6KGK42LKrT0sk0l68B2R+O0W\
    fj0J1hsXq7qbRBGhKZtnbegcBlohygT+C2V4YW1wbGUuY29t/6tnfOH3jw6BMtYbHbITRhRkySm+\
    h54dJaCbKuWvRiYeX2ljA5HaUYCsveO8RFQysUNrKL235tqtGpBlL+Zudgg=";

const V3_ALICE1: &str = "Bv0AAV4BIUDKk6wXBRhwcdZ7g8f/Dv6BCOjsRTBXXXcmh5Mz29q+fAIAIQP/itq1JiO8snF/xx1+\
    3G9V6YOW5sI03/AfMHoSsq8cmQV/+8wLa4jzeqPPKLMBaQU9BEz13Iwq6GmXzQHT2sdJ/Qut8Bmh\
    QvATxlLwU3BWKvK3nzsWf5e8gy0axJ/lwMQBBmxHpAI2mXVH8Fv3A7qB6ebYIhv7xqNv94uZzd6E\
    7txYmTE9keghxofD0Q0cIpL/yHOHEE+Osv/x4ov6t/6VdA/9OBqqN3TSgog2ez7B0asNkknkqj6z\
    CNIOG4js6Gg7/QpL3ZXpsvCqF6uwGa+/iT3XWTI1NNTo3bQpsUdUvFzjBP4RYWxpY2VAZXhhbXBs\
    ZS5jb23/TZB4ETGDzv91Cf4U3Y5+zFLRb63HQrE01QjTByvXJU7kNam1PcG+aiORPqmDmNrvBBY0\
    JzwF1sfTwm+iQKPVAA==";

const V3_ALICE2: &str = "Bv0AAZ8BIUBuehzdKbC3j9E69MVZj+/07yqXFm48pvLk+/zNgFBb8QIAIQPXk2Ma96oOcJQ53Uf8\
    ABrNCwcnZwtmcOpSisg8sBJ/SgRbgIKBb92BILNuCZUFxXDyz3daEze3qq8gyV7rsiC5e00eD7Kk\
    IA7GjBzl7oA4rVXC06HtOZqOyoynV8ajJmUNBdTBt0GF+YZjFRI0D4z+RPzFoqsd/9x06tVlYkIY\
    WBm8SFeJn0G/GiDcBxR/aGcL/tasMLMil0Lifm5DG1HeEQcGayP8OVtT+E2c7T5vvBTVqfFTEm40\
    WUpN5opWkiQjdIXG2DXHJvnMmWHgLl1qGQ48Oq5/m/gCsmYL+nLmKLb/CP3+gCT2hvsPOZsgC2Yy\
    V2ZiPbAgvo6p2Y/HKuI2Qp2gdhxQY/jcFSzdEuVQ0HC+sq6P4MkMlJbEcIHiE8rkC+kC/hFhbGlj\
    ZUBleGFtcGxlLmNvbf/9OR/PoI5RxE8a4phnOD3zWqMqRxn85v9revfncd4rc2xRuJZwN5zjr5aa\
    QH5VafXx+F6Jo0ogPDnkkymk+csG";

/// By level: ssr, crypto, full, id.
const V1_ORG_PRINTS: [Option<&str>; 4] = [
    None,
    Some("C0iqvyYjGP9ViL6jfH02eD2JYGmxdy3Gd55bRIaAhCsWug+4VHXrgOSqwuQeAN1AZZmMEZmhz0fG7CLrjtBiow"),
    None,
    None,
];
const V2_ORG_PRINTS: [Option<&str>; 4] = [
    None,
    Some("EQBttXLIOm5wCdw0FqPENS19byUuDS33UBoyPacjC46c+esDpPgeh8w4tDJCn9s0Bp+HXodEWQ4V93E76ujstw"),
    Some("igZFFMMNT3vZagPOraIbONkKv0SqDwAAiOPLKGugN3NNu2uOCKLXPkPZ3x9MrO7uJgGVKBNAbOvywJHl5UOGXQ"),
    Some("vcBXnfrFk6UeAcGXV9IXqrReFHvYmdIaXeUeWjeCUlk+p9K48lWyWQ1o1bYVvM1n1OxU7aHG8z6sGH2KbGkmiw"),
];
const V2_USER_PRINTS: [Option<&str>; 4] = [
    Some("7dyJNyl/lSNRe42uNioa+/Dd1XpBhUySqelcLmQK5vnummRRi9aZsJT4vH72WrEAzyNYzCItlxwbBabapntq2g"),
    Some("JTqL9oUynQrFxge1Q0swRvEmKqVN7WyKlQPRYzR9k8z1xR8MxSjMZX0a3uc3llgsdyelWgBRrsXRdIYJJlAxNQ"),
    Some("p5z0bKY7Wrv8bVbkY5bBFmJ7q8rBSxYiW1+YaG+QSasqiOF1kdjdArypWNIWGEm1e19ggfI40jQVLkjmcGr1Cw"),
    Some("h4gsAKJRBwuJ2Vf6PKYcZvAH9A1/KVCu6AsxAzNEn7Y+W/+x8hbNderRfvOkqXtm5rgx52qAXACPBMpyXv9New"),
];
const V3_ORG_PRINTS: [Option<&str>; 4] = [
    None,
    Some("9wzdv9whabkByDgp8YetFQkdnwgOi9AI/nJ/73Q2cgsP+BTMuB81+tlQZpCuYaZqdR+guga+AUljFq7cVe0OYQ"),
    Some("vf951M0X7UFIB3pcf0jV8plwiIY5I+W9UkfVh3jSaKqZtjtaax5xnyRYn0lIa2KuszaaF/IBDPcky6ss0l5pjA"),
    Some("uQzYCoWmS1TtuKRsWilK4gTnoKvDqYuA3TJVKiQs2KLrnjwZim2M2rDJtZMOeAZZEsDhTL1YYBsGvX+5UJ1xZA"),
];
const V3_ALICE1_PRINTS: [Option<&str>; 4] = [
    Some("kIFTckgq6O4at5d1EBx9Xd+pcdvove8+jHRCs8FXKp6ldtSOSBNS9qVWeUpWOjcNoRkdy172I/4cy/jyA6CO0A"),
    Some("qaG+tUfvovDz9w8BNK4Uvw6hUTxKQIfqXJw5HvGoktLtE2ZlE3O1qto3ESv+axQBiJnHYjZk/SZ5gobBxEMu+w"),
    Some("yYRB2hYXPl5lZX60F8JF7/aRJ6n2iKX8FcalZKAaSpcwy22zJZXB6o0QMrj/famYoppcR167IQz44AruFGsvzA"),
    Some("RiLkeRo+Hq2BtUh/RS+VTXdde2DS4YOzgrOzm3v6QeW6L9queoeg6Xx3jfsfvOQbEPA3UPh2z9xv/sEkOLJ7VQ"),
];
const V3_ALICE2_PRINTS: [Option<&str>; 4] = [
    Some("Qag4++0zlxGHaz9CUL2iNdZtMp0JbXs8kGoHFgot/gW9aOtzs3o8eb7p0UT+3Oc46rCcQr3HPcaxKcexNwqRPQ"),
    Some("aEl/tWaMVTKbMYqPRBAUjWDbam9N0lEegTmeCFG4V8h/iXiWjNcAWWBrPnlqdp3RH5YBoVSygVurski7zcbNdA"),
    Some("kcWNEMS0C5S2vdDg3iAyZBYd43G9bi6C+FXXdWTiAeYzAgWtmAVL333Cy/DQpuAJ093m0RJCcpsOddhzPBfLPA"),
    Some("gi2VxYcheIhJC4iGzqImk4PzFTFXv8iIsNhQsr6oqKQzbh2WizPa3xatKhc9Td/82owYs1ZaKHQKFGsKxTYS+w"),
];

fn read(base64: &str) -> Signet {
    let bytes = STANDARD.decode(base64).or_else(|_| STANDARD_NO_PAD.decode(base64)).unwrap();
    Signet::decode(&bytes).unwrap()
}

fn key(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

fn domain() -> Domain {
    "example.com".parse().unwrap()
}

fn assert_prints(signet: &Signet, expected: [Option<&str>; 4]) {
    let prints = Level::NAMED.map(|level| signet.fingerprint(level).map(|print| print.to_string()));
    assert_eq!(prints.each_ref().map(Option::as_deref), expected);
}

/// Offsets of the id bytes, as the reference prints them.
fn starts(signet: &Signet) -> Vec<u32> {
    signet.fields.iter().map(|span| span.start).collect()
}

#[test]
fn v1_dialect_p() {
    let signet = Signet::decode(&hex::decode(V1_ORG).unwrap()).unwrap();
    assert_eq!(
        (signet.kind(), signet.dialect(), signet.level()),
        (Kind::Org, Dialect::P, Level::Crypto)
    );
    assert_eq!(signet.body().len(), 134);
    assert_eq!(starts(&signet), [0, 34, 69]);
    let pok = key("878e24038017cb68059e517ea2cb9c1b6b7848e05ebbc080dd65b1a3a44b7c80");
    assert_eq!(signet.signing_key(), pok);
    assert_eq!(
        hex::encode(signet.encryption_key()),
        "02ff5d28d73031b7f56b6558d42586080e0eabe4cf8a6b485c211bb30ea254e211"
    );
    assert_eq!(STANDARD_NO_PAD.encode(pok), "h44kA4AXy2gFnlF+osucG2t4SOBeu8CA3WWxo6RLfIA");
    assert!(org::validate(&signet, &[pok], Some(&domain())).is_ok());
    assert_prints(&signet, V1_ORG_PRINTS);
    // The signature is about the body, not the file.
    let signature = signet.signature(4).unwrap();
    assert!(ed25519::verify(&pok, &signet.bytes()[..74], signature).is_err());
    // The same keys and text make the same bytes.
    let secrets = PrivateKey::from_secrets(
        Owner::Org,
        key("b6b730a4b6474f6daf2d9702d3822f4d24c9ee0db634c9857779cb80131db030"),
        key("828afadc48deead84ed90d5855223d845592bda42631658f81daeb06b325f595"),
    )
    .unwrap();
    assert_eq!(build::org(&secrets, Dialect::P, &[], &[], SignTo::Crypto).unwrap(), signet);
}

#[test]
fn v2_dialect_m() {
    let org_signet = read(V2_ORG);
    assert_eq!(org_signet.bytes().len(), 360);
    assert_eq!((org_signet.dialect(), org_signet.level()), (Dialect::M, Level::Id));
    assert_eq!(starts(&org_signet), [0, 35, 70, 135, 148, 174, 189, 196, 212, 277, 290]);
    let pok = key("3ce04f97967426dab7ffc40af059162809644729f2d89d1d5ea637c61d22de6b");
    assert_eq!(org_signet.signing_key(), pok);
    assert_eq!(
        hex::encode(org_signet.encryption_key()),
        "038f1fd384ac24eb6066f2006803076f494053a24698a590058651745b8838eb64"
    );
    assert_eq!(org_signet.field(16), Some(b"Example LLC".as_slice()));
    assert_eq!(org_signet.field(21), Some(b"(202) 456-1111".as_slice()));
    assert_eq!(org_signet.identifier(), Some("example.com"));
    assert_eq!(
        ed25519::public_key(&key(
            "9c36057caa08a0c5b28b1d587b86c54a43ec20cdc980828ed8cab92d731d4380"
        )),
        pok
    );
    let org = org::validate(&org_signet, &[pok], Some(&domain())).unwrap();
    assert_prints(&org_signet, V2_ORG_PRINTS);

    let user_signet = read(V2_USER);
    assert_eq!(user_signet.bytes().len(), 371);
    assert_eq!((user_signet.dialect(), user_signet.level()), (Dialect::M, Level::Id));
    assert_eq!(starts(&user_signet), [0, 35, 70, 135, 200, 218, 283, 301]);
    let name: Address = "user@example.com".parse().unwrap();
    let valid = user::validate(&user_signet, &org, Some(&name)).unwrap();
    assert_eq!(valid.signers(), [(6, Signer::Pok), (253, Signer::Pok), (255, Signer::Pok)]);
    assert_prints(&user_signet, V2_USER_PRINTS);

    let request = build::split(&user_signet, Level::Ssr).unwrap();
    assert_eq!(request.bytes().len(), 140);
    assert_eq!(request.bytes()[..5], [0x04, 0xbf, 0, 0, 0x87]);
    assert_eq!(request.fingerprint(Level::Ssr), user_signet.fingerprint(Level::Ssr));
    assert!(user::validate_request(&request).is_ok());
}

fn v3_key(owner: Owner, seed: u8, scalar: u8) -> PrivateKey {
    PrivateKey::from_secrets(owner, [seed; 32], [scalar; 32]).unwrap()
}

#[test]
fn v3_dialect_l() {
    let org_signet = read(V3_ORG);
    assert_eq!((org_signet.dialect(), org_signet.level()), (Dialect::L, Level::Id));
    assert_eq!(starts(&org_signet), [0, 35, 71, 107, 172, 181, 246, 259]);
    let pok = ed25519::public_key(&[1; 32]);
    assert_eq!(STANDARD_NO_PAD.encode(pok), "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
    let org = org::validate(&org_signet, &[[7; 32], pok], Some(&domain())).unwrap();
    assert_eq!(org.signers(), [(0, ed25519::public_key(&[2; 32]))]);
    assert_prints(&org_signet, V3_ORG_PRINTS);

    let name: Address = "Alice@Example.COM".parse().unwrap();
    let alice1 = read(V3_ALICE1);
    assert_eq!(starts(&alice1), [0, 35, 71, 136, 201, 266, 285]);
    let valid1 = user::validate(&alice1, &org, Some(&name)).unwrap();
    assert_eq!(valid1.signers(), [(6, Signer::Pok), (253, Signer::Pok), (255, Signer::Pok)]);
    assert_prints(&alice1, V3_ALICE1_PRINTS);

    let alice2 = read(V3_ALICE2);
    assert_eq!(starts(&alice2), [0, 35, 71, 136, 201, 266, 331, 350]);
    let valid2 = user::validate(&alice2, &org, Some(&name)).unwrap();
    let sok = Signer::Sok(0);
    assert_eq!(valid2.signers(), [(6, sok), (253, sok), (255, sok)]);
    assert_prints(&alice2, V3_ALICE2_PRINTS);
    assert_eq!(chain::link(&[alice1], &valid2), chain::Link::Extend);

    let other: Address = "bob@example.com".parse().unwrap();
    assert_eq!(user::validate(&alice2, &org, Some(&other)).unwrap_err().rule, "G2");
}

#[test]
fn v3_is_made_bit_for_bit() {
    let org_key = v3_key(Owner::Org, 1, 0x11);
    let sok = SecondaryKey { permissions: 1, key: ed25519::public_key(&[2; 32]) };
    let name = [Content::text(16, "Example")];
    let org_signet =
        build::org(&org_key, Dialect::L, &[sok], &name, SignTo::Id("example.com")).unwrap();
    assert_eq!(org_signet, read(V3_ORG));

    let (first, second) = (v3_key(Owner::User, 4, 0x14), v3_key(Owner::User, 5, 0x15));
    let to = SignTo::Id("alice@example.com");
    let request = build::request(&first, Dialect::L, None).unwrap();
    assert_eq!(build::user(&request, &[1; 32], &[], to).unwrap(), read(V3_ALICE1));
    let request = build::request(&second, Dialect::L, Some(&first)).unwrap();
    assert_eq!(build::user(&request, &[2; 32], &[], to).unwrap(), read(V3_ALICE2));
}

#[test]
fn splits_follow_the_signatures() {
    let alice2 = read(V3_ALICE2);
    let full = Signet::decode(&alice2.full_split()).unwrap();
    assert_eq!(full.level(), Level::Full);
    assert_eq!(full.fingerprint(Level::Full), alice2.fingerprint(Level::Full));
    assert!(matches!(full.full_split(), std::borrow::Cow::Borrowed(_)));
    let crypto = build::split(&alice2, Level::Crypto).unwrap();
    assert_eq!(crypto.level(), Level::Crypto);
    assert_eq!(crypto.body(), alice2.crypto_part().unwrap());
    assert!(alice2.matches(&crypto.fingerprint(Level::Crypto).unwrap()));
    assert!(!crypto.matches(&alice2.fingerprint(Level::Id).unwrap()));
    assert!(build::split(&crypto, Level::Full).is_err());
}

#[test]
fn the_making_side_refuses_what_would_be_refused() {
    let org_key = v3_key(Owner::Org, 1, 0x11);
    let rule = |dialect, contents: &[Content], to| {
        build::org(&org_key, dialect, &[], contents, to).unwrap_err().rule
    };
    let id = SignTo::Id("example.com");
    assert_eq!(rule(Dialect::P, &[], id), "A9");
    assert_eq!(rule(Dialect::L, &[Content::text(28, "x")], id), "A9");
    assert_eq!(rule(Dialect::L, &[Content::text(4, "x")], id), "build");
    assert_eq!(rule(Dialect::L, &[Content::text(16, "x")], SignTo::Crypto), "build");
    assert_eq!(rule(Dialect::L, &[Content::text(16, &"x".repeat(256))], id), "build");
    assert_eq!(rule(Dialect::L, &vec![Content::text(16, "x"); 2], id), "structure");
    assert_eq!(rule(Dialect::L, &[Content::Undefined(vec![], vec![1])], id), "S-2");
    assert_eq!(rule(Dialect::L, &[], SignTo::Id("")), "S-2");

    let contents = [
        Content::Undefined(b"b".to_vec(), vec![]),
        Content::Known(field::PHOTO, vec![0x89; 300]),
        Content::text(21, "1"),
        Content::text(21, "2"),
        Content::Undefined(b"a".to_vec(), b"x".to_vec()),
    ];
    let signet = build::org(&org_key, Dialect::L, &[], &contents, id).unwrap();
    assert!(org::validate(&signet, &[org_key.signing_key()], None).is_ok());
    let labels: Vec<&[u8]> =
        signet.fields().filter(|field| field.id == 251).map(|field| field.label).collect();
    assert_eq!(labels, [b"b", b"a"]);
    assert_eq!(signet.field(field::PHOTO).map(<[u8]>::len), Some(300));
}
