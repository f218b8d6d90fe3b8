//! Hosts of the test's own, each in a network namespace with its own address,
//! joined by a router that the test process lives in. Nothing of it is seen
//! outside: the test runs itself again in a namespace that it makes first.
//!
//! ```text
//!   10.78.1.2 ──┐
//!   10.78.2.2 ──┤ router (the test process): 10.77.0.0/16 is all its own,
//!   10.78.3.2 ──┘ for a private DNS and DX hosts
//! ```
#![allow(dead_code)] // each test binary uses another part

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// The router's own /16.
pub const WORLD: [u8; 2] = [10, 77];
/// Set in the process that runs inside.
const INSIDE: &str = "SYNDICATE_NETNS";

/// Runs the named test of this binary again, in a namespace of its own. `true`
/// in that process: go on with the test. `false` outside, when it has passed
/// there, or could not be run here, which is then said as SKIPPED.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // Tests of one binary run at the same time, each in its own.
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("syn{}n{number}", std::process::id());
    if !try_ip(&["netns", "add", &name]) {
        println!("SKIPPED {test}: network namespaces need root and the package iproute2");
        return false;
    }
    let _gone = Namespace(name.clone());
    let program = std::env::current_exe().unwrap();
    let status = Command::new("ip")
        .args(["netns", "exec", &name])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, &name)
        .status()
        .unwrap();
    assert!(status.success(), "{test}, in its namespace: {status}");
    false
}

/// A namespace, deleted when dropped.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        try_ip(&["netns", "del", &self.0]);
    }
}

/// The router. One a process, in the namespace that [`inside`] made.
pub struct Net {
    hosts: AtomicU8,
}

impl Net {
    pub fn new() -> Net {
        assert!(std::env::var_os(INSIDE).is_some(), "outside of a namespace of its own");
        ip(&["link", "set", "lo", "up"]);
        let [a, b] = WORLD;
        ip(&["route", "add", "local", &format!("{a}.{b}.0.0/16"), "dev", "lo"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        Net { hosts: AtomicU8::new(0) }
    }

    /// A further host, connected.
    pub fn host(&self) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let namespace = format!("{}h{number}", std::env::var(INSIDE).unwrap());
        ip(&["netns", "add", &namespace]);
        let host = Host { number, namespace: Namespace(namespace.clone()) };
        let near = host.link();
        ip(&["link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["addr", "add", &format!("10.78.{number}.1/24"), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        host.ip(&["link", "set", "lo", "up"]);
        host.ip(&["addr", "add", &format!("{}/24", host.address()), "dev", "eth0"]);
        host.connect();
        host
    }
}

/// One host.
pub struct Host {
    number: u8,
    namespace: Namespace,
}

impl Host {
    pub fn address(&self) -> String {
        format!("10.78.{}.2", self.number)
    }

    /// Runs a program there.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace.0]).arg(program.as_ref());
        command
    }

    /// Cuts it off from everybody, or connects it again.
    pub fn cut_off(&self) {
        self.ip(&["link", "set", "eth0", "down"]);
    }

    pub fn connect(&self) {
        self.ip(&["link", "set", "eth0", "up"]);
        self.ip(&["route", "replace", "default", "via", &format!("10.78.{}.1", self.number)]);
    }

    /// Parts it from one other host, in both directions, or joins them again.
    pub fn part_from(&self, other: &Host) {
        self.ip(&["route", "replace", "blackhole", &other.address()]);
        other.ip(&["route", "replace", "blackhole", &self.address()]);
    }

    pub fn join(&self, other: &Host) {
        self.ip(&["route", "del", "blackhole", &other.address()]);
        other.ip(&["route", "del", "blackhole", &self.address()]);
    }

    /// Lets no more than so many kilobits a second through, each way.
    pub fn slow_down(&self, kilobits: u32) {
        let rate = format!("{kilobits}kbit");
        let shape = ["root", "tbf", "rate", &rate, "burst", "8kb", "latency", "2s"];
        let near = self.link();
        let here: Vec<&str> = ["qdisc", "replace", "dev", &near].into_iter().chain(shape).collect();
        run(Command::new("tc").args(here));
        let there: Vec<&str> =
            ["qdisc", "replace", "dev", "eth0"].into_iter().chain(shape).collect();
        run(self.command("tc").args(there));
    }

    pub fn speed_up(&self) {
        run(Command::new("tc").args(["qdisc", "del", "dev", &self.link(), "root"]));
        run(self.command("tc").args(["qdisc", "del", "dev", "eth0", "root"]));
    }

    /// The router's end of the cable.
    fn link(&self) -> String {
        format!("veth{}", self.number)
    }

    fn ip(&self, arguments: &[&str]) {
        run(self.command("ip").args(arguments));
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn try_ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
