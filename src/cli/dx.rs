//! `syndicate dx`: serve a domain's signets over DMTP, from a folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use syndicate::dime::{Domain, armor, key, record};
use syndicate::serve::dmtp::{Options, Server};
use syndicate::serve::dx::Folder;
use syndicate::serve::identity::Identity;
use tokio::net::TcpListener;

use super::output;

/// What `--help` says below the options.
const FOLDER: &str = "\
The folder holds, binary or armoured:

  DIR/org.signet               the org signet, or several org*.signet
  DIR/users/alice.signet       a mailbox with one signet
  DIR/users/alice/1-*.signet   a mailbox with a chain of signets

Names are in lower case. Several files sort by the number they begin with,
then by name: the last is current, the others answer HIST. Files are read anew
for each question, so a key is rotated by putting the next file there (write
it under another name, then rename it).

Without --cert and --key an RSA key and a certificate are made at the first
start and kept as DIR/dx-key.pem and DIR/dx-cert.pem. The printed tls= field
goes into the domain's management record. SIGINT and SIGTERM end it.";

#[derive(clap::Args)]
#[command(after_help = FOLDER)]
pub struct Args {
    /// The domain whose signets are served.
    #[arg(long, value_name = "DOMAIN")]
    domain: Domain,
    /// The folder with the signets.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Address and port to listen on; DMTP's port is 26.
    #[arg(long, value_name = "ADDR", default_value = "[::]:26")]
    listen: SocketAddr,
    /// Address and port to listen on in dual mode too: in the clear until
    /// STARTTLS. A domain found by its MX is looked for at port 25, then 587.
    #[arg(long, value_name = "ADDR")]
    starttls_listen: Option<SocketAddr>,
    /// Name of this host, for the banner and a made certificate; the domain if left out.
    #[arg(long, value_name = "HOST")]
    host: Option<Domain>,
    /// Certificate chain for TLS, PEM, this host's first. libdime needs an RSA key.
    #[arg(long, value_name = "PEM", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
    /// Private key of the domain's POK (key file or PEM): then the printed
    /// `tls=` is a signature, which libdime needs; else it is a fingerprint.
    #[arg(long, value_name = "FILE")]
    pok: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::from(output::YES),
        Err(error) => output::usage(format!("{error:#}")),
    }
}

fn serve(args: Args) -> anyhow::Result<()> {
    if !args.dir.is_dir() {
        bail!("{} is not a folder", args.dir.display());
    }
    let host = args.host.as_ref().unwrap_or(&args.domain).to_string();
    let identity = identity(&args, &host)?;
    let (form, tls) = tls_field(identity.der(), args.pok.as_deref())?;
    let config = identity.server_config()?;
    let folder = Folder::new(args.domain.clone(), &args.dir);
    let org_signets = folder.org_signets().context("reading the folder")?.len();
    if org_signets == 0 {
        eprintln!("syndicate: no org signet in {} yet", args.dir.display());
    }
    let server = Server::new(Arc::new(folder), config, Options::new(host));

    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = output::interrupted()?;
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("listening on {}", args.listen))?;
        let addr = listener.local_addr().context("listening")?;
        let dual = match args.starttls_listen {
            Some(addr) => Some(
                TcpListener::bind(addr).await.with_context(|| format!("listening on {addr}"))?,
            ),
            None => None,
        };
        let dual_addr = dual.as_ref().map(TcpListener::local_addr).transpose();
        let dual_addr = dual_addr.context("listening")?;
        if args.json {
            output::json_line(&json!({
                "event": "listening",
                "addr": addr.to_string(),
                "starttls_addr": dual_addr.map(|addr| addr.to_string()),
                "domain": args.domain.as_str(),
                "tls": tls,
                "tls_form": form,
                "org_signets": org_signets,
            }));
        } else {
            println!("serving {} on {addr}", args.domain);
            if let Some(addr) = dual_addr {
                println!("and with STARTTLS on {addr}");
            }
            println!("put into its management record ({form}): tls={tls}");
        }
        let dual = async {
            match dual {
                Some(dual) => server.clone().run_dual(dual, shutdown.clone()).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(server.clone().run(listener, shutdown.clone()), dual)
            .map(drop)
            .context("serving")
    })
}

fn identity(args: &Args, host: &str) -> anyhow::Result<Identity> {
    Ok(match (&args.cert, &args.key) {
        (Some(certificate), Some(key)) => Identity::from_files(certificate, key)?,
        _ => {
            let (certificate, key) = (args.dir.join("dx-cert.pem"), args.dir.join("dx-key.pem"));
            Identity::load_or_make(&certificate, &key, host)?
        }
    })
}

/// Form and value of the record's `tls` field (reference §1.5).
fn tls_field(der: &[u8], pok: Option<&Path>) -> anyhow::Result<(&'static str, String)> {
    let Some(path) = pok else {
        let digest = hex::encode_upper(Sha256::digest(der));
        return Ok(("fingerprint", STANDARD_NO_PAD.encode(digest)));
    };
    let file = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let private = if armor::is_armored(&file) {
        key::PrivateKey::from_armor(&file)
    } else {
        key::PrivateKey::decode(&file)
    };
    let signature = match private {
        Ok(private) => record::sign_certificate(private.seed(), der),
        Err(refused) => match key::pok_from_armor(&file) {
            Ok(seed) => record::sign_certificate(&seed, der),
            Err(_) => bail!("{}: {refused}", path.display()),
        },
    };
    Ok(("signature", STANDARD_NO_PAD.encode(signature)))
}
