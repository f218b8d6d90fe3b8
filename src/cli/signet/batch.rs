//! `syndicate signet verify-batch`: a whole manifest of vectors, a line a row.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use syndicate::dime::verdict::{self, Context, Verdict};
use syndicate::dime::{Name, Rejection, key};

use super::{Done, Failure, Failure::Usage, fingerprints, load, message, read};
use crate::cli::output::{self, NO, YES};

/// Check every row of a manifest of test vectors.
///
/// The manifest is a JSON object whose "rows" each have an "id", a "file" and a
/// "context" with "org_signet", "pok" (a list of keys in hex, or null),
/// "previous" and optionally "previous_org" and "name". Paths are relative to
/// the manifest. Each row gives one line of JSON: id, verdict, level, rule,
/// message, fingerprints.
///
/// A user signet's org signet is checked against the row's "pok"; where that is
/// null, against its own first key. Exit code 0 if every row got a verdict,
/// 1 if a file could not be read, 2 if the manifest could not.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  syndicate signet verify-batch tests/data/vectors/manifest.json | grep G16")]
pub struct VerifyBatch {
    /// The manifest.
    manifest: PathBuf,
}

#[derive(Deserialize)]
struct Manifest {
    rows: Vec<Row>,
}

/// Keys that are missing count as null; others are not looked at.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    file: String,
    #[serde(default)]
    context: Option<RowContext>,
}

#[derive(Default, Deserialize)]
struct RowContext {
    #[serde(default)]
    org_signet: Option<PathBuf>,
    #[serde(default)]
    pok: Option<Vec<String>>,
    #[serde(default)]
    previous: Option<PathBuf>,
    #[serde(default)]
    previous_org: Option<PathBuf>,
    #[serde(default)]
    name: Option<String>,
}

pub fn run(args: &VerifyBatch) -> Done {
    let path = &args.manifest;
    let manifest: Manifest = serde_json::from_slice(&read(path)?)
        .map_err(|error| Usage(format!("{} is not a manifest: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut code = YES;
    for row in &manifest.rows {
        let verdict = examine(folder, row).unwrap_or_else(|failure| {
            let refused = match failure {
                Usage(message) => {
                    code = NO;
                    Rejection::new("unreadable", message)
                }
                Failure::Refused(refused) => refused,
            };
            Verdict { signet: None, outcome: Err(refused) }
        });
        output::json_line(&json!({
            "id": row.id,
            "verdict": if verdict.is_valid() { "valid" } else { "invalid" },
            "level": verdict.level().map(|level| level.to_string()),
            "rule": verdict.rule(),
            "message": message(&verdict),
            "fingerprints": fingerprints(verdict.signet.as_ref()),
        }));
    }
    Ok(code)
}

fn examine(folder: &Path, row: &Row) -> Result<Verdict, Failure> {
    let none = RowContext::default();
    let context = row.context.as_ref().unwrap_or(&none);
    let load = |path: &Path| load(&folder.join(path));
    let optional = |path: &Option<PathBuf>| path.as_deref().map(load).transpose();
    let keys = |keys: &Vec<String>| keys.iter().map(|key| key::parse_public(key)).collect();
    let poks: Option<Vec<_>> = context.pok.as_ref().map(keys).transpose()?;
    let name: Option<Name> = context.name.as_deref().map(str::parse).transpose()?;
    let (org, previous) = (optional(&context.org_signet)?, optional(&context.previous)?);
    let previous_org = optional(&context.previous_org)?;
    let bytes = load(Path::new(&row.file))?;
    Ok(verdict::examine(
        &bytes,
        &Context {
            org: org.as_deref(),
            poks: poks.as_deref(),
            previous: previous.as_deref(),
            previous_org: previous_org.as_deref(),
            name: name.as_ref(),
        },
    ))
}
