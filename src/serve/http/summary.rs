//! A receipt in a few words for people who look at JSON. It is the mirror's
//! claim about its own answer: nobody signed it, and no client reads it.

use serde_json::{Value, json};

use crate::dime::Timestamp;
use crate::dime::signet::{Level, Signet};
use crate::log::answer::Span;
use crate::proof::receipt::{self, Asker, Receipt};

/// What this mirror says that its receipt proves.
pub fn of(receipt: &Receipt, span: Span, genesis: Option<&[u8]>, now: Timestamp) -> Value {
    let kind = match span {
        _ if receipt.subject.items.is_empty() => "absence",
        Span::Latest => "latest",
        Span::From(_) | Span::Whole => "history",
    };
    let note = "This mirror's own claim, signed by nobody. Check the receipt: syndicate verify";
    let asker = Asker { genesis, ..Asker::default() };
    let verdict = match receipt::verify(receipt, &asker, now) {
        Ok(verdict) => verdict,
        Err(fault) => {
            // The rule alone: the message could hold more.
            tracing::error!(rule = fault.rule(), "a receipt of our own does not hold");
            return json!({"note": note, "kind": kind, "claim": "INCONSISTENT"});
        }
    };
    let said = verdict.statement();
    let signet = said.signet.as_deref().and_then(|bytes| Signet::decode(bytes).ok());
    let notes: Vec<String> = said.notes.iter().map(ToString::to_string).collect();
    let events: Vec<&str> = said.events.iter().map(|event| event.name()).collect();
    json!({
        "note": note,
        "kind": kind,
        "claim": said.word.to_string(),
        "name": said.name.as_str(),
        "version": said.latest,
        "current": said.current,
        "events": events,
        "notes": notes,
        "held_until": said.held_until.map(|until| until.to_string()),
        "confirmed_at": (said.confirmed_at != Timestamp::default())
            .then(|| said.confirmed_at.to_string()),
        "root_time": said.root_time.to_string(),
        "fingerprints": signet.map(|signet| fingerprints(&signet)),
    })
}

fn fingerprints(signet: &Signet) -> Value {
    let print = |level| signet.fingerprint(level).map(|print| print.to_string());
    json!({
        "crypto": print(Level::Crypto),
        "full": print(Level::Full),
        "id": print(Level::Id),
    })
}
