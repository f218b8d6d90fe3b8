//! Every row of the vectors that libdime made: 1,215 signets in context, 30
//! armour files, 32 key files (`tests/data/vectors/README.md`).
//!
//! Where our verdict is another than the reference's, a table below names the
//! rule and the rows. A difference without a line fails, and so does a line
//! that has gone stale.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha512};
use syndicate::dime::armor::{self, Tag};
use syndicate::dime::key::{self, PrivateKey};
use syndicate::dime::signet::{Dialect, Kind, Level, SecondaryKey, Signet};
use syndicate::dime::verdict::{self, Context, Verdict};

/// Rows where we refuse what libdime accepts, or the other way round: rule,
/// whether *we* accept, pattern of the row's id with at most one `*`, and how
/// many rows differ under it.
const DIFFERENT_SIGNETS: &[(&str, bool, &str, usize)] = &[
    // Bytes behind the last field that libdime never looks at.
    ("S-1", false, "org_rich_id_extra_*_hdr", 10),
    ("S-1", false, "chain_3_extra_*_hdr", 10),
    ("S-1", false, "ssr_0_extra_*_hdr", 4),
    // Empty names, keys, identifiers.
    ("S-2", false, "org_undef_noname", 1),
    ("S-2", false, "org_enc_empty", 1),
    ("S-2", false, "org_id_empty", 1),
    ("S-2", false, "ssr_enckey_empty", 1),
    // Fields above the highest signature, which nobody signed.
    ("S-3", false, "org_rich_unsigned_tail", 1),
    ("S-3", false, "user_rich_crypto_tail", 1),
    ("S-3", false, "org_rich_id_cut_*", 19),
    ("S-3", false, "chain_3_cut_*", 3),
    ("S-3", false, "user_crypto_extra_*_hdr", 2),
    ("S-3", false, "org_rich_id_len_*_to_end", 7),
    ("S-3", false, "org_multi_sok_len_*_to_end", 4),
    ("S-3", false, "user_rich_id_len_*_to_end", 6),
    ("S-3", false, "org_rich_id_no_idsig", 1),
    ("S-3", false, "org_multi_sok_no_idsig", 1),
    ("S-3", false, "user_rich_id_no_idsig", 1),
    ("S-3", false, "chain_3_no_idsig", 1),
    ("S-3", false, "org_id_without_sig", 1),
    ("S-3", false, "org_idsig_without_full", 1),
    // The user's own signature, which libdime never verifies.
    ("G1", false, "user_ssrsig_stale", 1),
    // An identifier that two readers read differently.
    ("G2", false, "org_id_nul", 1),
    // The org signet handed in is itself validated.
    ("G3", false, "user_id_org_badsig", 1),
    ("G3", false, "user_with_org_sok_noperm", 1),
    ("G3", false, "user_with_org_enc_zero", 1),
    // Malleable signatures, keys of small order.
    ("G5", false, "org_crypto_sig_plus_order", 1),
    ("G5", false, "user_crypto_sig_plus_order", 1),
    ("G5", false, "ssr_0_sig_plus_order", 1),
    ("G5", false, "org_smallorder_pok", 1),
    // Encryption keys that are none.
    ("G6", false, "org_enc_*", 7),
    ("G6", false, "ssr_enckey_*", 2),
    // Secondary keys that are none.
    ("G7", false, "org_sok_*", 6),
    // libdime verifies field 5 of a request in place of field 4.
    ("G9", true, "ssr_chain_*", 5),
    // Custody without a predecessor is a note, not a refusal.
    ("G16", true, "ssr_chain_*_no_previous", 5),
    ("G16", true, "chain_*_no_previous", 5),
];

/// Armour that we read differently: rule, whether we accept, row, and why.
const DIFFERENT_ARMOR: &[(&str, bool, &str, &str)] = &[
    ("armor", false, "x_ssr_user_tag", "a tag that contradicts the type number"),
    ("armor", false, "x_user_under_org_tag", "a tag that contradicts the type number"),
    ("armor", false, "x_org_under_user_tag", "a tag that contradicts the type number"),
    ("armor", false, "x_crc_middle", "data behind the checksum"),
    ("armor", false, "x_two_blocks", "two objects in one file"),
    ("armor", false, "x_two_blocks_org_first", "two objects in one file"),
];

/// Key files from which libdime reads at least one key, and we read none: a
/// file is whole or it is refused.
const DIFFERENT_KEYS: &[(&str, &str, &str)] = &[
    ("armor", "x_org_under_user_tag", "a tag that contradicts the type number"),
    ("key", "x_org_with_user_encid", "no encryption key"),
    ("key", "x_short_sign", "no signing key"),
    ("key", "x_short_enc", "no encryption key"),
    ("key", "x_long_enc", "no encryption key"),
    ("key", "x_enc_zero", "an impossible encryption key"),
    ("key", "x_enc_ff", "an impossible encryption key"),
    ("key", "x_enc_first", "keys in the wrong order"),
];

static MANIFEST: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(&file("manifest.json")).unwrap());

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors").join(name)
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn rows(table: &str) -> &'static [Value] {
    MANIFEST[table].as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn examine(row: &Value) -> Verdict {
    let context = &row["context"];
    let org = context["org_signet"].as_str().map(file);
    let previous = context["previous"].as_str().map(file);
    let poks = context["pok"].as_array().map(|poks| {
        poks.iter().map(|pok| key::parse_public(text(pok)).unwrap()).collect::<Vec<_>>()
    });
    verdict::examine(
        &file(text(&row["file"])),
        &Context {
            org: org.as_deref(),
            poks: poks.as_deref(),
            previous: previous.as_deref(),
            ..Context::default()
        },
    )
}

/// All rows with our verdicts, made once.
static VERDICTS: LazyLock<Vec<(&'static Value, Verdict)>> =
    LazyLock::new(|| rows("rows").iter().map(|row| (row, examine(row))).collect());

fn matches(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => id
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|middle| !middle.is_empty()),
        None => pattern == id,
    }
}

#[test]
fn every_signet_row_agrees_or_names_its_rule() {
    assert_eq!(VERDICTS.len(), 1215);
    let mut counts = vec![0; DIFFERENT_SIGNETS.len()];
    let mut unexplained = Vec::new();
    for (row, verdict) in VERDICTS.iter() {
        if verdict.is_valid() == row["valid"].as_bool().unwrap() {
            continue;
        }
        let id = text(&row["id"]);
        let line = DIFFERENT_SIGNETS.iter().position(|(rule, accepted, pattern, _)| {
            verdict.rule() == Some(rule) && verdict.is_valid() == *accepted && matches(pattern, id)
        });
        match line {
            Some(line) => counts[line] += 1,
            None => unexplained.push((id, verdict.rule(), verdict.outcome.clone())),
        }
    }
    assert!(unexplained.is_empty(), "differences without a rule: {unexplained:#?}");
    for (found, line) in counts.into_iter().zip(DIFFERENT_SIGNETS) {
        assert_eq!(found, line.3, "stale line {line:?}");
    }
}

/// What the table says above must not be how ordinary signets get lost.
#[test]
fn no_fully_signed_signet_is_lost_without_a_rule() {
    let mut lost = Vec::new();
    let mut kept = 0;
    for (row, verdict) in VERDICTS.iter() {
        let group = ["org", "user", "sok"].contains(&text(&row["group"]));
        let signed = row["fully_signed"].as_bool() == Some(true);
        if group && signed && row["valid"] == true {
            match &verdict.outcome {
                Ok(_) => kept += 1,
                Err(refused) => lost.push((text(&row["id"]), refused.rule)),
            }
        }
    }
    // Its org signet's signature does not verify.
    assert_eq!(lost, [("user_id_org_badsig", "G3")]);
    assert_eq!(kept, 36);
}

#[test]
fn refusals_name_a_rule_and_acceptances_the_level_of_the_reference() {
    for (row, verdict) in VERDICTS.iter() {
        let id = &row["id"];
        match &verdict.outcome {
            Err(refused) => {
                assert!(!refused.rule.is_empty() && !refused.message.is_empty(), "{id}");
            }
            Ok(_) if row["valid"] == true => {
                let state = text(&row["state"]).trim_start_matches("SS_").to_lowercase();
                assert_eq!(verdict.level().unwrap().to_string(), state, "{id}");
            }
            Ok(_) => {}
        }
    }
}

#[test]
fn fingerprints_agree_wherever_a_level_is_defined() {
    let mut compared = 0;
    for (row, verdict) in VERDICTS.iter() {
        for level in Level::NAMED {
            if let Some(print) = verdict.fingerprint(level) {
                let expected = &row["fingerprints"][level.to_string()];
                assert_eq!(*expected, print.to_string(), "{} {level}", row["id"]);
                compared += 1;
            }
        }
    }
    assert!(compared > 1000, "only {compared} fingerprints were compared");
}

#[test]
fn keys_identifiers_and_fields_are_what_the_reference_reads() {
    let mut signets = 0;
    for (row, verdict) in VERDICTS.iter() {
        let Some(signet) = &verdict.signet else { continue };
        let id = &row["id"];
        assert_eq!(row["signet_type"], signet.kind().to_string(), "{id}");
        assert_eq!(row["signing_key"], hex::encode(signet.signing_key()), "{id}");
        assert_eq!(row["signet_id"].as_str(), signet.identifier(), "{id}");
        if !signet.encryption_key().is_empty() {
            assert_eq!(row["enckey_usable"], true, "{id}");
        }
        if let Some(fields) = row["fields"].as_array() {
            let ours: Vec<_> = signet.fields().collect();
            assert_eq!(ours.len(), fields.len(), "{id}");
            for (field, expected) in ours.iter().zip(fields) {
                assert_eq!(expected["id"], field.id, "{id}");
                assert_eq!(expected["sha512"], field_digest(field.data), "{id} {}", field.id);
            }
            signets += 1;
        }
        permissions(row, signet);
    }
    assert_eq!(signets, 65, "signets whose fields were compared");
}

fn field_digest(data: &[u8]) -> String {
    hex::encode(Sha512::digest(data))
}

/// The reference lists the POK first, then the secondary keys that have at
/// least the permission.
fn permissions(row: &Value, signet: &Signet) {
    for (name, bit) in [
        ("signet", SecondaryKey::MAY_SIGN_SIGNETS),
        ("msg", SecondaryKey::MAY_SIGN_MESSAGES),
        ("tls", SecondaryKey::MAY_SIGN_CERTIFICATES),
        ("software", SecondaryKey::MAY_SIGN_SOFTWARE),
    ] {
        let Some(expected) = row["keys_by_permission"][name].as_array() else { continue };
        let soks = signet.secondary_keys().filter(|sok| sok.may(bit)).map(|sok| sok.key);
        let ours: Vec<_> =
            std::iter::once(signet.signing_key()).chain(soks).map(hex::encode).collect();
        let expected: Vec<_> = expected.iter().map(text).collect();
        assert_eq!(ours, expected, "{} {name}", row["id"]);
    }
}

#[test]
fn armour_is_written_as_the_reference_writes_it() {
    let mut written = BTreeMap::new();
    for row in rows("rows") {
        let Some(pem) = row["pem"].as_str() else { continue };
        let signet = file(text(&row["file"]));
        // The reference calls a request an organizational signet.
        let tag = match row["signet_type"].as_str() {
            Some("user") => Tag::UserSignet,
            _ => Tag::OrgSignet,
        };
        let expected = String::from_utf8(file(pem)).unwrap();
        assert_eq!(armor::encode(&signet, tag), expected, "{pem}");
        let (read, object) = armor::decode(expected.as_bytes()).unwrap();
        assert_eq!((read, object), (tag, signet), "{pem}");
        written.insert(pem, ());
    }
    assert_eq!(written.len(), 67);
}

#[test]
fn every_armour_row_agrees_or_names_its_rule() {
    assert_eq!(rows("pem_rows").len(), 30);
    let mut used = Vec::new();
    for row in rows("pem_rows") {
        let id = text(&row["id"]);
        let loaded = armor::decode(&file(text(&row["file"]))).and_then(|(_, object)| {
            Signet::decode(&object)?;
            Ok(object)
        });
        if let (Ok(object), Some(digest)) = (&loaded, row["binary_sha512"].as_str()) {
            assert_eq!(field_digest(object), digest, "{id}");
        }
        if loaded.is_ok() == row["load"].as_bool().unwrap() {
            continue;
        }
        let line = DIFFERENT_ARMOR
            .iter()
            .find(|(_, accepted, row, _)| *row == id && *accepted == loaded.is_ok());
        let (rule, ..) = line.unwrap_or_else(|| panic!("no rule for {id}: {loaded:?}"));
        if let Err(refused) = &loaded {
            assert_eq!(refused.rule, *rule, "{id}");
        }
        used.push(id);
    }
    assert_eq!(used.len(), DIFFERENT_ARMOR.len(), "stale lines; used are {used:?}");
}

#[test]
fn every_key_row_agrees_or_names_its_rule() {
    assert_eq!(rows("key_rows").len(), 32);
    let mut used = Vec::new();
    for row in rows("key_rows") {
        let id = text(&row["id"]);
        let bytes = file(text(&row["file"]));
        let publics = [row["sign_public"].as_str(), row["enc_public"].as_str()];
        match PrivateKey::from_armor(&bytes) {
            Ok(key) => {
                assert_eq!(publics[0], Some(hex::encode(key.signing_key()).as_str()), "{id}");
                assert_eq!(publics[1], Some(hex::encode(key.encryption_key()).as_str()), "{id}");
                if let Some(private) = row["sign_private"].as_str() {
                    assert_eq!(hex::encode(key.seed()), private, "{id}");
                    assert_eq!(row["enc_private"], hex::encode(key.scalar()), "{id}");
                    assert_eq!(key.to_armor(Dialect::L).as_bytes(), bytes, "{id}");
                }
            }
            Err(_) if publics == [None, None] => {}
            Err(refused) => {
                let line = DIFFERENT_KEYS.iter().find(|(_, row, _)| *row == id);
                let (rule, ..) = line.unwrap_or_else(|| panic!("no rule for {id}: {refused}"));
                assert_eq!(refused.rule, *rule, "{id}");
                used.push(id);
            }
        }
    }
    assert_eq!(used.len(), DIFFERENT_KEYS.len(), "stale lines; used are {used:?}");
}

#[test]
fn verify_batch_says_the_same() {
    let run = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(["signet", "verify-batch"])
        .arg(path("manifest.json"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let lines: Vec<Value> = String::from_utf8(run.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), VERDICTS.len());
    for (line, (row, verdict)) in lines.iter().zip(VERDICTS.iter()) {
        let id = &row["id"];
        assert_eq!(line["id"], *id);
        assert_eq!(line["verdict"], if verdict.is_valid() { "valid" } else { "invalid" }, "{id}");
        assert_eq!(line["rule"].as_str(), verdict.rule(), "{id}");
        assert_eq!(line["level"], serde_json::json!(verdict.level().map(|l| l.to_string())));
        let crypto = verdict.fingerprint(Level::Crypto).map(|print| print.to_string());
        assert_eq!(line["fingerprints"]["crypto"], serde_json::json!(crypto), "{id}");
    }
}

/// A manifest of another set may lack keys, name files that are not there, or
/// hold armour; every row still gets its line.
#[test]
fn verify_batch_takes_rough_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let org = VERDICTS.iter().find(|(row, _)| row["id"] == "org_id").unwrap().0;
    std::fs::copy(path(text(&org["file"])), folder.path().join("org.bin")).unwrap();
    std::fs::copy(path("pem/user_id.pem"), folder.path().join("user.pem")).unwrap();
    let pok = STANDARD_NO_PAD.encode(hex::decode(text(&org["signing_key"])).unwrap());
    let manifest = serde_json::json!({"rows": [
        {"id": 1, "file": "org.bin", "context": {"pok": [pok], "extra": {}}, "odd": null},
        {"id": "two", "file": "user.pem",
         "context": {"org_signet": "org.bin", "pok": [pok], "name": "ALICE@public.example"}},
        {"id": "three", "file": "org.bin"},
        {"id": "four", "file": "absent.bin", "context": null},
        {"file": "org.bin", "context": {"pok": ["not a key"]}},
        {"id": "six", "file": "user.pem", "context": {"org_signet": "org.bin", "pok": []}},
    ]});
    let path = folder.path().join("manifest.json");
    std::fs::write(&path, manifest.to_string()).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_syndicate"))
        .args(["signet", "verify-batch"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1), "a file was missing");
    let said: Vec<(Value, Value)> = String::from_utf8(run.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|line: Value| (line["verdict"].clone(), line["rule"].clone()))
        .collect();
    let expected = [
        ("valid", None),
        ("valid", None),
        ("invalid", Some("no-pok")),
        ("invalid", Some("unreadable")),
        ("invalid", Some("key")),
        ("invalid", Some("pok-mismatch")),
    ];
    let expected = expected.map(|(verdict, rule)| (verdict.into(), serde_json::json!(rule)));
    assert_eq!(said, expected);
}

/// Whatever decodes can be asked anything.
fn ask_everything(signet: &Signet) {
    let _ = (signet.flags(), signet.identifier(), signet.custody(), signet.crypto_part());
    let _ = (signet.encryption_key().len(), signet.alternate_encryption_keys().count());
    let _ = (signet.secondary_keys().count(), format!("{signet:?}"));
    assert!(signet.fields().all(|field| !field.name.is_empty()));
    for level in Level::NAMED {
        if let Some(print) = signet.fingerprint(level) {
            assert!(signet.matches(&print));
        }
    }
    let split = Signet::decode(&signet.full_split()).unwrap();
    assert_eq!(split.fingerprint(Level::Full), signet.fingerprint(Level::Full));
}

fn signet_file() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<&str> = rows("rows").iter().map(|row| text(&row["file"])).collect();
    proptest::sample::select(files).prop_map(file)
}

/// Cuts, overwrites and insertions, and a header that agrees again or not.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..6);
    (bytes, edits, any::<bool>()).prop_map(|(mut bytes, edits, mend)| {
        for (at, byte, how) in edits {
            let at = at.index(bytes.len() + 1);
            match (how, bytes.get_mut(at)) {
                (0, Some(there)) => *there = byte,
                (1, Some(_)) => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        if mend && bytes.len() >= 5 {
            let length = (bytes.len() - 5) as u32;
            bytes[2..5].copy_from_slice(&length.to_be_bytes()[1..]);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decoding_mutated_signets_never_panics(bytes in mutated(signet_file())) {
        if let Ok(signet) = Signet::decode(&bytes) {
            prop_assert_eq!(signet.bytes(), bytes.as_slice());
            ask_everything(&signet);
        }
    }

    #[test]
    fn decoding_any_bytes_never_panics(
        kind in prop::sample::select(vec![Kind::Org, Kind::User, Kind::Ssr]),
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = kind.number().to_be_bytes().to_vec();
        bytes.extend([0, (body.len() >> 8) as u8, body.len() as u8]);
        bytes.extend(body);
        if let Ok(signet) = Signet::decode(&bytes) {
            ask_everything(&signet);
        }
    }

    #[test]
    fn reading_mutated_armour_never_panics(
        text in mutated(prop::sample::select(vec![
            "pem/org_id.pem", "pem/user_id.pem", "pem/x_two_blocks.pem", "keys/org.key",
        ]).prop_map(file)),
    ) {
        if let Ok((tag, object)) = armor::decode(&text) {
            prop_assert!(armor::decode(armor::encode(&object, tag).as_bytes()).is_ok());
        }
        let _ = PrivateKey::from_armor(&text);
    }

    #[test]
    fn reading_mutated_keys_never_panics(
        bytes in mutated(Just(armor::decode(&file("keys/alice0.key")).unwrap().1)),
    ) {
        if let Ok(key) = PrivateKey::decode(&bytes) {
            let same = [Dialect::L, Dialect::M].iter().any(|dialect| *key.encode(*dialect) == bytes);
            prop_assert!(same);
        }
    }
}
