//! A tour of cachenat, on a VPC made of network namespaces. Run it by `scripts/demo`.
//!
//! Runs the commands of an operator and a client, shows their output, and panics at the first unexpected result.

use std::process::Command;

use cachenat_tests::lab::product::Run;
use cachenat_tests::lab::wait::wait_for;
use cachenat_tests::lab::{CLIENT, GATEWAY, Lab, Node, PUBLIC, STRANGER};

fn main() {
    let mut lab = Lab::new();
    lab.add_replication_group("my-cluster", 3);
    introduce(&lab);
    first_apply(&lab);
    reach(&lab);
    replace(&mut lab);
    add(&mut lab);
    remove(&lab);
    drop(lab);
    say("The lab is gone: its namespaces, servers and files were its own.");
}

fn introduce(lab: &Lab) {
    say(&format!(
        "A VPC made of network namespaces, with the ElastiCache cache my-cluster in its private subnet:\n\
         real redis-servers, one primary and two replicas. The NAT instance has the one address {GATEWAY},\n\
         which the internet knows as {PUBLIC}. The client is outside, at {CLIENT}."
    ));
    operator(lab, &format!("cat {}", lab.config().display())).shows(&CLIENT.to_string());
    say("Nothing is reachable yet.");
    client(lab, "redis-cli -h 203.0.113.73 -p 6379 ping").exits(1).complains("Connection refused");
}

fn first_apply(lab: &Lab) {
    say("What does the ElastiCache API say, and where do the names lead?");
    operator(lab, "cachenat discover").shows("10.0.1.230").shows("10.0.1.231").shows("10.0.1.232");
    say("What would change? (1: something would.)");
    operator(lab, "cachenat diff").exits(1).shows("10.0.1.230");
    say("The same as iptables rules: what AWS's guide has you type, and keep true by hand.");
    operator(lab, "cachenat render --format iptables-restore")
        .exits(0)
        .shows("--to-destination 10.0.1.230:6379");
    operator(lab, "cachenat apply").exits(0);
}

fn reach(lab: &Lab) {
    say(
        "The client writes to the primary and reads from both replicas. Each port leads to a node of its own.",
    );
    client(lab, "redis-cli -h 203.0.113.73 -p 6379 set greeting hello").shows("OK");
    // WAIT works only on the connection that wrote; on another connection it returns at once.
    let has_it = |node: &Node| node.redis().call(&["GET", "greeting"]).is_ok_and(|value| value == "hello");
    wait_for("the replicas to have it", || lab.nodes().all(has_it).then_some(()));
    for (port, address) in [(6379, "10.0.1.230"), (6380, "10.0.1.231"), (6381, "10.0.1.232")] {
        client(lab, &format!("redis-cli -h 203.0.113.73 -p {port} get greeting")).shows("hello");
        client(lab, &format!("redis-cli -h 203.0.113.73 -p {port} config get bind")).shows(address);
    }
    client(lab, "redis-cli -h 203.0.113.73 -p 6379 role").shows("master");
    client(lab, "redis-cli -h 203.0.113.73 -p 6380 role").shows("slave");
    say(&format!("Another host, {STRANGER}, is not in the config's `clients`."));
    stranger(lab, "redis-cli -h 203.0.113.73 -p 6379 ping").exits(1).complains("Connection refused");
    operator(lab, "cachenat status").exits(0).shows("my-cluster-001").shows("6379");
}

fn replace(lab: &mut Lab) {
    say(
        "AWS replaces my-cluster-002: the same name, a new address. What was typed by hand would be wrong now.",
    );
    lab.replace_node("my-cluster-002");
    client(lab, "timeout 1 redis-cli -h 203.0.113.73 -p 6380 get greeting").exits(124);
    operator(lab, "cachenat diff").exits(1).shows("10.0.1.231").shows("10.0.1.233");
    operator(lab, "cachenat apply").exits(0);
    client(lab, "redis-cli -h 203.0.113.73 -p 6380 get greeting").shows("hello");
    client(lab, "redis-cli -h 203.0.113.73 -p 6380 config get bind").shows("10.0.1.233");
    say(
        "Cron or a timer runs apply again and again. In step, it sends nothing to the kernel and says nothing.",
    );
    operator(lab, "cachenat apply").exits(0).says_nothing();
    operator(lab, "cachenat diff").exits(0);
}

fn add(lab: &mut Lab) {
    say("A third replica comes. It gets the next port; every other node keeps its own.");
    lab.add_node("my-cluster");
    operator(lab, "cachenat apply").exits(0);
    client(lab, "redis-cli -h 203.0.113.73 -p 6382 get greeting").shows("hello");
    client(lab, "redis-cli -h 203.0.113.73 -p 6379 config get bind").shows("10.0.1.230");
}

fn remove(lab: &Lab) {
    say("And back to where the instance was.");
    operator(lab, "cachenat remove").exits(0);
    operator(lab, "nft list tables").shows("table ip nat").lacks("cachenat");
    client(lab, "redis-cli -h 203.0.113.73 -p 6379 ping").exits(1).complains("Connection refused");
}

fn say(words: &str) {
    println!("\n# {}", words.replace('\n', "\n# "));
}

/// A command line typed on the NAT instance.
fn operator(lab: &Lab, line: &str) -> Shown {
    let (program, args) = words(line);
    let mut command = match program {
        "cachenat" => lab.cachenat_command(),
        _ => lab.operator_command(program),
    };
    Shown::run("nat#", line, command.args(args))
}

/// A command line typed on the allowed client.
fn client(lab: &Lab, line: &str) -> Shown {
    let (program, args) = words(line);
    Shown::run("client$", line, lab.network.client.command(program).args(args))
}

/// A command line typed on a host that is not on the allow-list.
fn stranger(lab: &Lab, line: &str) -> Shown {
    let (program, args) = words(line);
    Shown::run("stranger$", line, lab.network.stranger.command(program).args(args))
}

fn words(line: &str) -> (&str, Vec<&str>) {
    let mut words = line.split(' ');
    (words.next().unwrap_or_default(), words.collect())
}

/// A command that was shown to the reader, and the checks on its result.
struct Shown {
    line: String,
    run: Run,
}

impl Shown {
    fn run(prompt: &str, line: &str, command: &mut Command) -> Self {
        println!("\n{prompt} {line}");
        let run = Run::from(command.output().expect("nsenter is part of util-linux"));
        print!("{}{}", run.stdout, run.stderr);
        if run.code != 0 {
            println!("[exit code {}]", run.code);
        }
        Self { line: line.to_owned(), run }
    }

    fn exits(self, code: i32) -> Self {
        assert_eq!(self.run.code, code, "the exit code of {}", self.line);
        self
    }

    fn shows(self, text: &str) -> Self {
        assert!(self.run.stdout.contains(text), "{} should have shown {text}", self.line);
        self
    }

    fn lacks(self, text: &str) -> Self {
        assert!(!self.run.stdout.contains(text), "{} should not have shown {text}", self.line);
        self
    }

    /// It says so on stderr.
    fn complains(self, text: &str) -> Self {
        assert!(self.run.stderr.contains(text), "{} should have complained of {text}", self.line);
        self
    }

    fn says_nothing(self) -> Self {
        assert_eq!(
            (self.run.stdout.as_str(), self.run.stderr.as_str()),
            ("", ""),
            "{} should be silent",
            self.line
        );
        self
    }
}
