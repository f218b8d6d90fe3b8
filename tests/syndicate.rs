//! Mirrors as separate processes on separate hosts, with a network between
//! them that can be cut.

#[path = "support/client.rs"]
mod client;
#[path = "support/netns.rs"]
mod netns;
#[path = "support/process.rs"]
mod process;

use std::time::Duration;

use syndicate::demo::world::{Options, World};

use netns::{Host, Net};

/// A mirror's process on a host, its configuration and data.
struct Site {
    host: Host,
    folder: tempfile::TempDir,
    file: syndicate::config::File,
    running: Option<process::Mirror>,
}

impl Site {
    fn new(net: &Net, world: &World) -> Site {
        let (host, folder) = (net.host(), tempfile::tempdir().unwrap());
        let mut file = process::configuration(folder.path(), world.dns(), world.dmtp_port());
        let [a, b] = netns::WORLD;
        file.http.listen = format!("{}:80", host.address());
        file.dmtp.listen = format!("{}:26", host.address());
        file.crawl.allow_networks = vec![format!("{a}.{b}.0.0/16")];
        file.crawl.names = world.addresses().iter().map(ToString::to_string).collect();
        let roots = folder.path().join("ca.pem");
        std::fs::write(&roots, world.authority_pem()).unwrap();
        file.crawl.roots = Some(roots);
        Site { host, folder, file, running: None }
    }

    async fn start(&mut self) -> process::Faces {
        let path = process::write(self.folder.path(), &self.file);
        let command = self.host.command(env!("CARGO_BIN_EXE_syndicate"));
        let mut mirror = process::Mirror::start_with(command, &path, "info");
        let faces = mirror.faces().await;
        self.running = Some(mirror);
        faces
    }
}

#[tokio::test]
async fn a_cable_is_cut_and_mended() {
    if !netns::inside("a_cable_is_cut_and_mended") {
        return;
    }
    let net = Net::new();
    let world = World::start(Options { network: Some(netns::WORLD), ..Options::default() });
    let world = world.await.unwrap();
    let mut sites = vec![Site::new(&net, &world), Site::new(&net, &world)];
    let mut clients = Vec::new();
    for site in &mut sites {
        let faces = site.start().await;
        clients.push((client::Client::new(faces.key), faces.http));
    }
    for (client, http) in &mut clients {
        while client.look(http).await.is_none_or(|size| size < 40) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let [one, other] = &sites[..] else { unreachable!() };
    let reaches = |from: &Host, to: &Host| {
        let ping = ["-fsS", "-m", "2", "-o", "/dev/null"];
        let url = format!("http://{}/healthz", to.address());
        from.command("curl").args(ping).arg(url).status().unwrap().success()
    };
    assert!(reaches(&one.host, &other.host));
    one.host.part_from(&other.host);
    assert!(!reaches(&one.host, &other.host) && !reaches(&other.host, &one.host));
    let (client, http) = &mut clients[0];
    assert!(client.look(http).await.is_some(), "the router reaches both");
    one.host.join(&other.host);
    one.host.cut_off();
    assert!(!reaches(&other.host, &one.host));
    one.host.connect();
    one.host.slow_down(256);
    assert!(reaches(&other.host, &one.host));
    one.host.speed_up();
}
