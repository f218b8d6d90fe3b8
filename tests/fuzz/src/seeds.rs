//! Where the fuzzers begin: the files of `tests/data`, and what the little log of the
//! tests makes.

use std::fs;
use std::path::Path;

use serde_json::Value;
use syndicate::client::follow;
use syndicate::dime::key::Owner;
use syndicate::dime::record::Template;
use syndicate::log::commit::{
    Batch, Commit, Fence, Floor, LogRecord, Payload, PrivateRecord, Records, Segment, sha256,
};
use syndicate::proof::checkpoint::{AddCheckpoint, SignedCheckpoint, TlogProof};
use syndicate::proof::tile::{Edge, encode_bundle};
use syndicate::proof::{Entry, Kind, merkle};

use super::mini_log::{self, MiniLog, ORIGIN, WORLD, at, orgs, world};
use super::{dnssec, incident, receipt};

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// The seeds of all targets, each with its target's name. `data` is the folder `tests/data`.
pub fn seeds(data: &Path) -> Seeds {
    let mut seeds = Seeds::new();
    dime(&data.join("vectors"), &mut seeds);
    dmtp(&data.join("vectors"), &mut seeds);
    log(&world(), &mut seeds);
    kept(&world(), &mut seeds);
    policies(&mut seeds);
    seeds.extend(dnssec::chains().iter().map(|chain| ("dnssec", chain.clone())));
    seeds.extend(incident::made().iter().map(|it| ("incident", it.to_bytes().to_vec())));
    for number in 0..32u8 {
        let bytes = (0..60).map(|place: u8| place.wrapping_mul(number).wrapping_add(number));
        seeds.push(("proof", bytes.collect()));
    }
    seeds
}

fn dime(vectors: &Path, seeds: &mut Seeds) {
    let folders = [
        ("signets", "signet"),
        ("malformed", "signet"),
        ("pem", "armor"),
        ("keys", "armor"),
        ("records", "armor"),
    ];
    for (folder, target) in folders {
        for file in fs::read_dir(vectors.join(folder)).expect("a folder of vectors") {
            let path = file.expect("a file").path();
            if path.extension().is_some_and(|ending| ending != "json") {
                seeds.push((target, fs::read(path).expect("a vector")));
            }
        }
    }
    for org in orgs() {
        let address = format!("alice@{}", org.domain);
        let user = org.user(&address, &mini_log::key(Owner::User, 1), None, None);
        for signet in [org.signet(), user] {
            seeds.push(("signet", signet.bytes().to_vec()));
        }
        seeds.push(("record", org.record().into_bytes()));
        seeds.push(("name", format!("{address}\nnonce").into_bytes()));
        seeds.push(("name", org.domain.into()));
    }
    let template = Template {
        poks: vec![super::stranger(); 2],
        tls: vec![[1; 64]],
        syndicates: vec!["a.example:443".into(), "b.example".into()],
        dx: vec!["dx.one.example:26".into()],
        expiry_days: 30,
        ..Template::default()
    };
    seeds.push(("record", template.text().into_bytes()));
    seeds.push(("record", b"dx.one.example:26".to_vec()));
    seeds.push(("armor", hex::encode([7; 32]).into_bytes()));
    for record in list(&vectors.join("records/records.json"), "records") {
        seeds.push(("record", latin1(&record["record"])));
    }
    let pem = fs::read_to_string(vectors.join("records/dx_cert.pem")).expect("a certificate");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    seeds.push(("certificate", decoded(&base64)));
    seeds.push(("certificate", pem.into_bytes()));
}

fn dmtp(vectors: &Path, seeds: &mut Seeds) {
    for line in list(&vectors.join("dmtp_commands.json"), "lines") {
        seeds.push(("command", latin1(&line["line"])));
    }
    for (first, stream) in [
        (0, "220 dx.example DMTPv1 x\r\n250 OK [AAECAwQ=]\r\n450 NO\r\n"),
        (7, "250-[AAEC]\r\n250-[AwQF]\r\n250 OK\r\n"),
        (
            1,
            "250 UPDATE [z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBegGpWjp2Q8yK+g]\r\n",
        ),
        (2, "250 CURRENT\r\n"),
        (4, "250 DMTPv1\r\n"),
    ] {
        seeds.push(("reply", [&[first][..], stream.as_bytes()].concat()));
    }
}

fn log(log: &MiniLog, seeds: &mut Seeds) {
    let keys = mini_log::cosigners();
    let times: Vec<_> = keys.iter().map(|key| (key, at(WORLD))).collect();
    let note = log.checkpoint(&times);
    let checkpoint = SignedCheckpoint::parse(&note).expect("our own checkpoint");
    let (leaves, size) = (log.leaves(), log.entries.len() as u64);
    for (old, extra) in [(1, None), (size / 2, Some(b"extra".to_vec()))] {
        let proof = merkle::consistency_proof(leaves.as_slice(), old, size).expect("all leaves");
        let path = merkle::inclusion_proof(leaves.as_slice(), old, size).expect("all leaves");
        let add = AddCheckpoint { old, proof, checkpoint: checkpoint.clone() };
        let proof = TlogProof { extra, index: old, path, checkpoint: checkpoint.clone() };
        seeds.push(("checkpoint", add.to_string().into_bytes()));
        seeds.push(("checkpoint", proof.to_string().into_bytes()));
    }
    let lines = note.split(|byte| *byte == b'\n').filter(|line| line.starts_with("—".as_bytes()));
    seeds.extend(lines.map(|line| ("note", line.to_vec())));
    seeds.push(("note", note.to_vec()));
    seeds.push(("note", log.key().to_secret_text().as_bytes().to_vec()));
    for key in keys.iter().chain([&log.key()]) {
        seeds.push(("note", key.verifier().to_string().into_bytes()));
    }

    for entry in &log.entries {
        seeds.push(("entry", entry.to_vec()));
    }
    let mut ended = world();
    ended.end(at(2 * WORLD));
    seeds.push(("entry", ended.entries[ended.entries.len() - 2].to_vec()));
    for count in [1, 2, log.entries.len()] {
        let bundle = encode_bundle(&log.entries[..count]).expect("short entries");
        seeds.push(("tile", [&[count as u8 - 1][..], &bundle].concat()));
    }
    for path in ["tile/0/x001/234.p/12", "tile/entries/000", "tile/1/255"] {
        seeds.push(("tile", path.into()));
    }
    for name in receipt::NAMES {
        let receipt = receipt::honest(log, name, 0);
        seeds.push(("receipt", receipt.to_json().to_string().into_bytes()));
        seeds.push(("receipt", receipt.encode()));
        for item in receipt.subject.items {
            seeds.extend(item.hidden.map(|hidden| ("entry", hidden.payload.to_vec())));
        }
    }
}

/// The objects of `kept`, in its order.
fn kept(log: &MiniLog, seeds: &mut Seeds) {
    let record = LogRecord {
        origin: ORIGIN.into(),
        log_key: [1; 32],
        vrf_key: [2; 32],
        fence: Fence::Blobs,
        identity: [3; 32],
        made: at(0),
        predecessor: Some("log.example/0".into()),
    };
    let private = PrivateRecord {
        index: 2,
        address: "alice@one.example".parse().expect("an address"),
        payload: b"payload".to_vec().into(),
        opening: [4; 32],
        signet: Some(b"signet".to_vec().into()),
    };
    let batch = Batch { n: 0, previous: [0; 32], entries: log.entries.clone() }.encode();
    let payload = Payload { n: 0, records: vec![private.encode()] }.encode();
    let root = log.entries.last().map(|entry| Entry::decode(entry).expect("our own entry").kind);
    let Some(Kind::Root(root)) = root else { panic!("it ends with a root") };
    let commit = Commit {
        n: 0,
        previous: sha256(&record.encode()),
        batch: sha256(&batch),
        size: log.entries.len() as u64,
        root: merkle::root_from_leaves(&log.leaves()),
        directory_root: root.root,
        labels: root.labels,
        time: log.time,
        records: vec![sha256(&private.encode())],
        fence: Fence::Blobs,
    }
    .encode();
    let steps = vec![(commit.clone(), batch.clone())];
    let segment = Segment { first: 0, previous: commit_name(&record), steps }.encode();
    let records = Records { first: 0, payloads: vec![payload.clone()] }.encode();
    let floor = Floor { n: 0, previous: commit_name(&record) }.encode();
    let (edge, _) = Edge::new().integrate(&log.leaves());
    let position = follow::Position::at(edge).encode().into();
    let carrying = vec![0; 32 + 8 + 8 + 2 * 66].into();
    let objects = [
        record.encode(),
        commit,
        batch,
        payload,
        private.encode(),
        segment,
        records,
        floor,
        position,
        carrying,
    ];
    for (which, object) in (0..).zip(objects) {
        seeds.push(("kept", [&[which][..], &object].concat()));
    }
}

fn commit_name(record: &LogRecord) -> [u8; 32] {
    sha256(&record.encode())
}

fn policies(seeds: &mut Seeds) {
    let three = mini_log::policy_text(2);
    let members = three.split("group").next().unwrap_or_default();
    for rest in [
        "quorum none\n",
        "#! max-age 60\n#!\tmax-observation-age 0\nquorum w0\n",
        "group X 2 w0 w1\n# a comment\n\n \tgroup\tY any w2 \ngroup both all X Y\nquorum both\n",
        "group replaying 2 w0 w1 w2\n#! operator alpha w0 w1\nquorum replaying\n",
    ] {
        seeds.push(("policy", format!("{members}{rest}").into_bytes()));
    }
    seeds.push(("policy", three.into_bytes()));
}

fn list(file: &Path, name: &str) -> Vec<Value> {
    let text = fs::read(file).expect("a file of vectors");
    let value: Value = serde_json::from_slice(&text).expect("JSON");
    value[name].as_array().expect("a list").clone()
}

/// Texts in the vectors hold one character per byte.
fn latin1(text: &Value) -> Vec<u8> {
    text.as_str().unwrap_or_default().chars().map(|letter| letter as u8).collect()
}

fn decoded(base64: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(base64).expect("base64")
}
