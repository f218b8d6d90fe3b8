//! A judged incident in words that whoever runs mail understands, or as JSON.

use std::process::ExitCode;

use serde_json::{Value, json};
use syndicate::client::{DnsRoot, Policy};
use syndicate::proof::dnssec;
use syndicate::proof::incident::{self, Conviction, Fault, Findings, Incident, Party};

use super::output;

/// Judges an incident and prints it; 0 only if it proves something.
pub fn print(bytes: &[u8], policy: Option<&Policy>, root: &DnsRoot, as_json: bool) -> ExitCode {
    let incident = match Incident::read(bytes) {
        Ok(incident) => incident,
        Err(rejection) => {
            if as_json {
                output::json_line(&json!({
                    "proved": false,
                    "error": {"rule": rejection.rule, "message": rejection.message},
                }));
            } else {
                println!("NOTHING PROVED: {rejection}");
            }
            return ExitCode::from(output::NO);
        }
    };
    let anchors = match root {
        DnsRoot::Public => dnssec::iana(),
        DnsRoot::Only(anchors) => anchors.clone(),
    };
    let judged = incident::verify(&incident, &anchors, policy);
    if as_json {
        output::json_line(&object(&incident, &judged));
    } else {
        print!("{}", text(&incident, &judged));
    }
    let proved = judged.is_ok_and(|findings| findings.proves());
    ExitCode::from(if proved { output::YES } else { output::NO })
}

fn object(incident: &Incident, judged: &Result<Findings, Fault>) -> Value {
    let mut object = json!({
        "proved": judged.as_ref().is_ok_and(Findings::proves),
        "kind": incident.kind.as_str(),
        "name": incident.name.as_ref().map(|name| name.as_str()),
        "at": incident.at.to_string(),
        "observer": incident.observer,
        "id": hex::encode(incident.id()),
    });
    let more = match judged {
        Ok(findings) => json!({
            "convicts": findings.convicts.as_ref().map(conviction),
            "proof": findings.proved,
            "checked": findings.checked,
            "testimony": findings.testimony,
        }),
        Err(fault) => json!({"error": {"rule": fault.rule(), "message": fault.to_string()}}),
    };
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}

fn conviction(found: &Conviction) -> Value {
    let Conviction { party, deed } = found;
    match party {
        Party::Organization { domain, pok } => json!({
            "party": "organization", "domain": domain.as_str(), "pok": hex::encode(pok),
            "deed": deed,
        }),
        Party::Zone(zone) => json!({"party": "zone", "zone": zone, "deed": deed}),
        Party::Mirror { key } => {
            json!({"party": "mirror", "key": key.to_string(), "deed": deed})
        }
    }
}

fn text(incident: &Incident, judged: &Result<Findings, Fault>) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    let about = incident.name.as_ref().map_or("a mirror", |name| name.as_str());
    let head = match judged {
        Ok(findings) if findings.proves() => "INCIDENT",
        Ok(_) => "NOTHING PROVED",
        Err(_) => "REFUSED",
    };
    line(&format!("{head}: {} of {about}, seen at {}", incident.kind, incident.at));
    line(&format!("It says: {}", incident.kind.meaning()));
    line(&format!("File: {}", hex::encode(incident.id())));
    let findings = match judged {
        Ok(findings) => findings,
        Err(fault) => {
            line("");
            line(&format!("The file does not hold: {fault} [{}].", fault.rule()));
            line("Believe nothing that it says. It was changed, or whoever made it is wrong.");
            return text;
        }
    };
    line("");
    line(&match &findings.convicts {
        Some(Conviction { party, deed }) => {
            format!("By its own signatures, {party} {deed}.")
        }
        None => "It convicts nobody.".to_owned(),
    });
    for (title, sentences) in [
        ("Proved, by signatures in this file", &findings.proved),
        ("So of what is in this file, whoever made it", &findings.checked),
        ("Not proved: somebody's word", &findings.testimony),
    ] {
        if !sentences.is_empty() {
            line("");
            line(&format!("{title}:"));
            sentences.iter().for_each(|sentence| line(&format!("  - {sentence}")));
        }
    }
    text
}
