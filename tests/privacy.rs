//! No mailbox name in anything that a mirror writes for its operator: at the
//! level `debug`, over good visits, bad ones, incidents and questions. The same
//! is asked of every event (`events`), of hostile hosts (`hosts`) and of a long
//! run with faults (`soak`), over all that those processes trace.

#[path = "support/client.rs"]
mod client;
#[path = "support/process.rs"]
mod process;
#[path = "support/rogue.rs"]
mod rogue;
#[path = "support/words.rs"]
mod words;

use std::net::IpAddr;
use std::time::Duration;

use client::Client;
use process::{Mirror, PATIENCE};
use rogue::{Answer, Conduct, Rogue};
use syndicate::demo::world::{Options, World};
use syndicate::dime::{Address, Domain, Name, Timestamp};
use syndicate::dmtp::{self, AddressFilter, Entrance, Roots, Target};
use tokio::time::{Instant, sleep};
use words::MARK;

async fn rogue(world: &World, number: usize, conduct: Conduct) -> Rogue {
    let domain: Domain = format!("rogue{number}.example").parse().unwrap();
    let local = format!("{MARK}-r{number}");
    let rogue = Rogue::start(&domain, &local, world.dmtp_port(), conduct).await;
    world.dns().add_zone(domain.as_str(), true).unwrap();
    world.dns().set_txt(&format!("_dime.{domain}"), &[&rogue.record]).unwrap();
    world.dns().set_addresses(&format!("dx.{domain}"), &[IpAddr::V4(rogue.ip)]).unwrap();
    rogue
}

/// A mailbox in each of the world's domains, each with another fate.
fn mailboxes(world: &World) -> Vec<Address> {
    let mut made = Vec::new();
    for (number, domain) in world.domains().iter().enumerate() {
        let address = world.enroll(domain, &format!("{MARK}-{number}")).unwrap();
        match number % 4 {
            0 => {}
            1 => drop(world.rotate(&address).unwrap()),
            2 => drop(world.swap_key(&address).unwrap()),
            // Somebody else's signet under this name.
            _ => {
                let other: Address = format!("alice@{domain}").parse().unwrap();
                let signet = world.served(&other).unwrap().last().unwrap().clone();
                world.serve(&address, signet).unwrap();
            }
        }
        made.push(address);
    }
    made
}

/// Asks the mirror's DMTP face, as a mail client would.
async fn ask_over_dmtp(addr: &str, address: &Address) {
    let options = dmtp::Options {
        filter: AddressFilter::with_loopback(),
        roots: Roots::none(),
        ..dmtp::Options::default()
    };
    let target =
        Target { host: "mirror.example", addr: addr.parse().unwrap(), entrance: Entrance::Tls };
    let connected = dmtp::client::connect(target, &options, Timestamp::default()).await.unwrap();
    let mut session = connected.open().await.unwrap();
    let name = Name::Address(address.clone());
    // Found, not found or held: any answer will do.
    let _ = session.signet(&name, None).await;
    let _ = session.history(address, None, None).await;
    session.quit().await;
}

/// What chance writes into a key names nobody.
#[test]
fn a_name_is_told_from_what_is_random() {
    for named in ["alice@alder.example", "GET /v1/lookup/Bob%40x", "users/erin/1", "<dave>", MARK] {
        assert_eq!(words::leak(named), Some(named));
    }
    let key = "qL3/Bob/9+erin+vXc0Zk7yT5uWb2sHnJ8fQe4rGd6aMi1oPxV";
    for random in [key.to_owned(), format!("tls={key}"), format!("RRSIG {key}==")] {
        assert_eq!(words::leak(&random), None);
    }
}

/// Outcomes of mailboxes that are among the rogues' and the world's.
const OUTCOMES: [&str; 5] = ["changed", "signet-invalid", "refused", "malformed", "truncated"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mailbox_name_is_written() {
    let world = World::start(Options::default()).await.unwrap();
    let mut addresses = mailboxes(&world);
    let conducts = [
        Conduct::User(Answer::Cut(60)),
        Conduct::User(Answer::Says(format!("554 NO {MARK} HERE\r\n"))),
        Conduct::User(Answer::Says(format!("250 OK {MARK}\r\n"))),
        Conduct::User(Answer::Breaks(format!("250 {MARK}"))),
        Conduct::Org(Answer::Says(format!("450 {MARK}\r\n"))),
        Conduct::Greets("220 quetzalcoatl ESMTP\r\n"),
        Conduct::History(Answer::Says(format!("250-[{MARK}]\r\n250 OK\r\n"))),
        Conduct::HangsUp,
    ];
    let mut rogues = Vec::new();
    for (number, conduct) in conducts.into_iter().enumerate() {
        let rogue = rogue(&world, number, conduct).await;
        addresses.push(rogue.address.clone());
        rogues.push(rogue);
    }

    let folder = tempfile::tempdir().unwrap();
    let mut file = process::configuration(folder.path(), world.dns(), world.dmtp_port());
    let roots = folder.path().join("ca.pem");
    std::fs::write(&roots, world.authority_pem()).unwrap();
    file.crawl.roots = Some(roots);
    file.crawl.names = addresses.iter().map(ToString::to_string).collect();
    let config = process::write(folder.path(), &file);
    let mut mirror = Mirror::start(&config, "debug");
    let faces = mirror.faces().await;

    // Until every visit is over: all domains with their mailboxes are counted. On a
    // slow machine some are counted twice before others have their turn.
    let client = Client::new(faces.key.clone());
    let deadline = Instant::now() + PATIENCE;
    let visits = (world.domains().len() + rogues.len()) as u64;
    let metrics = loop {
        let metrics = client.get(&format!("{}/metrics", faces.http)).await.unwrap_or_default();
        let metrics = String::from_utf8(metrics.to_vec()).unwrap();
        let counted: u64 = metrics
            .lines()
            .filter(|line| line.starts_with("syndicate_crawl_visits_total{"))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        let line = |outcome| format!("syndicate_crawl_mailboxes_total{{outcome=\"{outcome}\"}}");
        if counted >= visits && OUTCOMES.iter().all(|outcome| metrics.contains(&line(outcome))) {
            break metrics;
        }
        assert!(
            Instant::now() < deadline,
            "{counted} of {visits} visits, not all of {OUTCOMES:?}:\n{metrics}\n{}",
            mirror.words()
        );
        sleep(Duration::from_millis(300)).await;
    };
    let unknown: Address = format!("{MARK}-nobody@alder.example").parse().unwrap();
    for address in addresses.iter().chain([&unknown]) {
        client.get(&format!("{}/v1/lookup/{address}", faces.http)).await;
        client.get(&format!("{}/v1/lookup/{address}%20", faces.http)).await;
        ask_over_dmtp(&faces.dmtp, address).await;
    }
    let more = client.get(&format!("{}/metrics", faces.http)).await.unwrap();
    let more = String::from_utf8(more.to_vec()).unwrap();

    let (code, words) = mirror.stop().await;
    assert_eq!(code, Some(0), "{words}");
    // It did write about what happened, and things did go wrong.
    for said in ["alder.example", "rogue0.example", "incident", "DEBUG"] {
        assert!(words.contains(said), "nothing about {said}:\n{words}");
    }
    for (place, text) in [("output", &words), ("metrics", &metrics), ("metrics", &more)] {
        assert_eq!(words::leak(text), None, "a mailbox name in the {place}");
    }
}
