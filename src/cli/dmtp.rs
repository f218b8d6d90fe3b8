//! `syndicate dmtp`: read command lines as a DMTP server would.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use serde_json::json;
use syndicate::dime::Rejection;
use syndicate::dime::command::{self, Line, MAX_LINE};

use super::output;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read one command line, in either grammar; exit 0 if it is accepted, 1 if not.
    ///
    /// Grammar A: 'SGNT <alice@example.com>'. Grammar B: 'SGNT USER=<alice@example.com>'.
    Parse {
        /// The line; CRLF is added if it has no line end. `-` reads it from
        /// standard input exactly as it is, with its line end.
        line: OsString,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: Args) -> ExitCode {
    let Command::Parse { line, json } = args.command;
    let line = match bytes(line) {
        Ok(line) => line,
        Err(error) => return output::usage(format!("cannot read standard input: {error}")),
    };
    match command::parse(&line) {
        Ok(line) => {
            accept(&line, json);
            ExitCode::from(output::YES)
        }
        Err(why) => {
            refuse(&why, json);
            ExitCode::from(output::NO)
        }
    }
}

/// One byte more than a line may have is enough to have it refused.
fn bytes(line: OsString) -> std::io::Result<Vec<u8>> {
    let mut line = line.into_vec();
    if line == b"-" {
        line.clear();
        std::io::stdin().take(MAX_LINE as u64 + 1).read_to_end(&mut line)?;
    } else if !line.contains(&b'\n') {
        line.extend_from_slice(b"\r\n");
    }
    Ok(line)
}

fn accept(line: &Line, json: bool) {
    let verb = line.command.verb();
    let overlooked: Vec<String> = line.overlooked.iter().map(ToString::to_string).collect();
    let arguments = line.command.arguments();
    if json {
        let arguments: Vec<_> =
            arguments.iter().map(|(key, value)| json!({"name": key, "value": value})).collect();
        return output::json_line(&json!({
            "command": verb,
            "grammar": line.grammar.to_string(),
            "strict": line.strict,
            "overlooked": overlooked,
            "arguments": arguments,
        }));
    }
    println!("accepted     {verb}");
    println!("grammar      {}", line.grammar);
    for (key, value) in arguments {
        println!("{key:<12} {}", value.escape_debug());
    }
    if !overlooked.is_empty() {
        println!("overlooked   {}", overlooked.join(" "));
    }
}

fn refuse(why: &Rejection, json: bool) {
    if json {
        output::json_line(&json!({"error": {"rule": why.rule, "message": why.message}}));
    } else {
        println!("refused: {why}");
    }
}
