//! What a crawler pays for a signet: decoding, then validation, which should
//! cost its Ed25519 verifications and little else.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use syndicate::dime::key::{Owner, PrivateKey};
use syndicate::dime::signet::build::{self, SignTo};
use syndicate::dime::signet::{Dialect, Signet};
use syndicate::dime::{ed25519, org, user};

fn signets(criterion: &mut Criterion) {
    let key = |owner, byte| PrivateKey::from_secrets(owner, [byte; 32], [byte; 32]).unwrap();
    let pok = key(Owner::Org, 1);
    let org_signet = build::org(&pok, Dialect::L, &[], &[], SignTo::Id("example.com")).unwrap();
    let (old, new) = (key(Owner::User, 2), key(Owner::User, 3));
    let request = build::request(&new, Dialect::L, Some(&old)).unwrap();
    let to = SignTo::Id("alice@example.com");
    let user_signet = build::user(&request, pok.seed(), &[], to).unwrap();
    let poks = [pok.signing_key()];
    let valid = org::validate(&org_signet, &poks, None).unwrap();
    let message = user_signet.signed_part(5).unwrap();
    let signature = user_signet.signature(5).unwrap();

    let mut group = criterion.benchmark_group("signet");
    group.bench_function("decode user", |bencher| {
        bencher.iter(|| Signet::decode(black_box(user_signet.bytes())).unwrap());
    });
    group.bench_function("one ed25519 verification", |bencher| {
        bencher.iter(|| {
            ed25519::verify(&user_signet.signing_key(), black_box(message), signature).unwrap();
        });
    });
    group.bench_function("validate org, 3 signatures", |bencher| {
        bencher.iter(|| org::validate(black_box(&org_signet), &poks, None).unwrap());
    });
    group.bench_function("validate user, 4 signatures", |bencher| {
        bencher.iter(|| user::validate(black_box(&user_signet), &valid, None).unwrap());
    });
    group.finish();
}

criterion_group!(benches, signets);
criterion_main!(benches);
