//! What goes wrong in the demo, and who notices.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use syndicate::crawl::Outcome;
use syndicate::daemon::Mirror;
use syndicate::demo::world::World;
use syndicate::dime::{Address, Name};
use syndicate::proof::Event;

use super::asked::Asked;
use super::operators::Operator;
use super::{Attack, GLANCE, PATIENCE, Teller};

/// One DX host serves a new key without the old one's signature.
pub async fn key_swap(
    world: &World,
    operator: &Operator,
    asked: &Asked,
    teller: Teller,
) -> anyhow::Result<Attack> {
    teller.act("Attack: the mail host of hazel.example swaps erin's key for one of its own");
    let mirror = operator.mirror()?;
    let victim: Address = "erin@hazel.example".parse()?;
    world.swap_key(&victim)?;
    let began = Instant::now();
    let report = mirror.crawl.visit(Name::Address(victim.clone()), "demo").await?;
    let millis = began.elapsed().as_millis();
    let swapped = report.entries.iter().any(|entered| {
        entered.name == Name::Address(victim.clone())
            && entered.events.iter().any(|event| event == Event::Restarted)
    });
    let changed = report.users.iter().any(|(at, how)| *at == victim && *how == Outcome::Changed);
    teller.tell(
        "attack",
        &format!(
            "the mirror {} it after {millis} ms: RESTARTED, a new key without the old one's signature",
            if swapped && changed { "reported" } else { "DID NOT report" }
        ),
        json!({ "name": "key-swap", "reported": swapped && changed, "ms": millis as u64 }),
    );
    operator.until_cosigned().await?;
    let held = asked.lookup(&victim, teller).await?.is("HELD");
    Ok(Attack { name: "key-swap", detected: swapped && changed && held, millis })
}

/// One mirror is shown a forged key that nobody else sees: each log is right by
/// itself, and together they contradict each other.
pub async fn split_view(
    world: &World,
    operators: &[Operator],
    asked: &Asked,
    folder: &Path,
    teller: Teller,
) -> anyhow::Result<Attack> {
    teller.act("Attack: the mail host of birch.example shows cleo, and nobody else, a forged key");
    let victim: Address = "carol@birch.example".parse()?;
    let deceived = operators.last().context("no mirror")?;
    world.swap_key_for(&deceived.vantage, &victim).await?;
    let began = Instant::now();
    deceived.mirror()?.crawl.visit(Name::Address(victim.clone()), "demo").await?;
    let (mut found, mut witnesses) = (None, Vec::new());
    while began.elapsed() < PATIENCE && witnesses.len() < operators.len() {
        for operator in operators {
            if witnesses.contains(&operator.name) {
                continue;
            }
            if let Some(incident) = incident_at(operator.mirror()?, &victim).await? {
                found.get_or_insert((incident, began.elapsed().as_millis()));
                witnesses.push(operator.name);
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
    let millis = found.as_ref().map_or(began.elapsed().as_millis(), |(_, millis)| *millis);
    teller.tell(
        "attack",
        &match witnesses.is_empty() {
            true => "NO mirror found the two histories".to_owned(),
            false => format!(
                "split view after {millis} ms, two fresh looks on each side; kept by {}",
                witnesses.join(", ")
            ),
        },
        json!({ "name": "split-view", "reported": !witnesses.is_empty(), "by": witnesses, "ms": millis as u64 }),
    );
    let proved = match found {
        None => false,
        Some((incident, _)) => {
            std::fs::write(folder.join("incident.json"), incident.to_string())?;
            asked.incident("incident.json", teller).await?
        }
    };
    let detected = proved && witnesses.len() >= 2;
    Ok(Attack { name: "split-view", detected, millis })
}

/// One client is shown a forged key that no mirror sees: only its own check can
/// tell.
pub async fn forged_key(world: &World, asked: &Asked, teller: Teller) -> anyhow::Result<Attack> {
    teller.act("Attack: the mail host of cedar.example shows a forged key to one client only");
    let victim: Address = "alice@cedar.example".parse()?;
    let vantage = world.vantage().await?;
    world.swap_key_for(&vantage, &victim).await?;
    let began = Instant::now();
    let answer = asked.check(victim.as_str(), vantage.dns().address(), teller).await?;
    let millis = began.elapsed().as_millis();
    let split = answer["verdict"] == "SPLIT";
    teller.tell(
        "attack",
        &match split {
            true => format!("the client knew after {millis} ms, and kept the evidence"),
            false => "the client DID NOT notice".to_owned(),
        },
        json!({ "name": "forged-key", "reported": split, "ms": millis as u64 }),
    );
    let proved = match answer["evidence"][0].as_str() {
        Some(file) => asked.incident(file, teller).await?,
        None => false,
    };
    Ok(Attack { name: "forged-key", detected: split && proved, millis })
}

/// A split view of this name that a mirror gives out to whoever names it.
async fn incident_at(mirror: &Mirror, name: &Address) -> anyhow::Result<Option<Value>> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/v1/incidents", mirror.http);
    let answer = http.post(url).json(&json!({ "name": name.as_str() })).send().await?;
    let body: Value = answer.error_for_status()?.json().await?;
    let incidents = body["incidents"].as_array().cloned().unwrap_or_default();
    Ok(incidents.into_iter().find(|incident| incident["kind"] == "split-view"))
}
