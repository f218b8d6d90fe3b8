//! Dashboards and alerts speak of metrics that the mirror exports, and of all
//! of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use prometheus::proto::MetricFamily;

/// What a fresh mirror's registry names, counters without a value included.
fn exported() -> BTreeSet<String> {
    let faces = syndicate::serve::metrics::Metrics::new().expect("the faces' metrics");
    let crawl = syndicate::crawl::Metrics::new(faces.registry());
    crawl.expect("the crawl's metrics");
    let sources = fs::read_dir(root().join("src")).expect("sources");
    let mut names = BTreeSet::new();
    let mut open: Vec<_> = sources.map(|entry| entry.expect("an entry").path()).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path).expect("a folder").map(|e| e.expect("an entry").path()),
            );
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            for quoted in text.split('"').filter(|word| word.starts_with("syndicate_")) {
                names.insert(quoted.to_owned());
            }
        }
    }
    // A metric with labels shows no family before its first value, so names come
    // from the sources; those that do show must be among them.
    let shown: Vec<MetricFamily> = faces.registry().gather();
    for family in shown.iter().filter(|family| family.name().starts_with("syndicate_")) {
        assert!(names.contains(family.name()), "{} is not a literal", family.name());
    }
    assert!(shown.len() > 5, "the registry is empty");
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every word that looks like a metric of ours, without a histogram's endings.
fn spoken(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("dashboards").join(file)).expect("a dashboard");
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("syndicate_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[test]
fn dashboards_and_alerts_name_what_is_exported() {
    let exported = exported();
    for file in ["mirror.json", "alerts.yml"] {
        let spoken = spoken(file);
        let unknown: Vec<_> = spoken.difference(&exported).collect();
        assert!(unknown.is_empty(), "{file} speaks of {unknown:?}");
    }
    let shown = spoken("mirror.json");
    let hidden: Vec<_> = exported.difference(&shown).collect();
    assert!(hidden.is_empty(), "on no panel: {hidden:?}");
}

#[test]
fn the_dashboard_is_json() {
    let text = fs::read(root().join("dashboards/mirror.json")).expect("the dashboard");
    let board: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert!(board["panels"].as_array().is_some_and(|panels| panels.len() >= 10));
}
