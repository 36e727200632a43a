//! Hosts on one machine: a network namespace for each, joined by a bridge, with cuts made by dropping packets.
//!
//! Needs root, `ip` and `nft`. Names and the subnet are drawn per network, so that several can exist at once.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use rand::Rng;

use super::{HarnessError, note, run};

/// A network of hosts. Taken apart when dropped.
pub struct Network {
    tag: String,
    subnet: u8,
    hosts: usize,
}

impl Network {
    /// Makes a network of `hosts` hosts.
    ///
    /// # Errors
    /// The system does not let us; what had been made is removed.
    pub fn create(hosts: usize, rng: &mut impl Rng) -> Result<Self, HarnessError> {
        let tag = format!("dry{:04x}", rng.random::<u16>());
        let network = Self { tag, subnet: rng.random_range(16..250), hosts };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("10.213.{}.254/24", network.subnet), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for host in 1..=hosts {
            network.add_host(host)?;
        }
        Ok(network)
    }

    fn add_host(&self, host: usize) -> Result<(), HarnessError> {
        let (name, bridge) = (self.host(host), self.bridge());
        let outside = format!("{name}o");
        ip(&["netns", "add", &name])?;
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["link", "set", &outside, "master", &bridge, "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])
    }

    fn bridge(&self) -> String {
        format!("{}b", self.tag)
    }

    fn host(&self, host: usize) -> String {
        format!("{}h{host}", self.tag)
    }

    /// The address of a host, from 1 on.
    #[must_use]
    pub fn address(&self, host: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 213, self.subnet, u8::try_from(host).unwrap_or(u8::MAX)))
    }

    /// What to put before a command so that it runs on a host.
    #[must_use]
    pub fn wrapper(&self, host: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.host(host)].map(str::to_owned).to_vec()
    }

    /// Drops every packet between the two sides, both ways. The test itself still reaches all hosts.
    ///
    /// # Errors
    /// The filter cannot be set.
    pub fn cut(&self, one: &[usize], other: &[usize]) -> Result<(), HarnessError> {
        for (here, there) in [(one, other), (other, one)] {
            for &host in here {
                let from: Vec<String> = there.iter().map(|&host| self.address(host).to_string()).collect();
                let from = from.join(", ");
                let rules = format!(
                    "table ip cut {{\n\
                     chain inbound {{\n type filter hook input priority 0\n ip saddr {{ {from} }} drop\n }}\n\
                     chain outbound {{\n type filter hook output priority 0\n ip daddr {{ {from} }} drop\n }}\n}}\n"
                );
                self.on_host(host, &["nft", &rules])?;
            }
        }
        Ok(())
    }

    /// Lets every packet through again.
    ///
    /// # Errors
    /// The filter cannot be removed.
    pub fn heal(&self) -> Result<(), HarnessError> {
        (1..=self.hosts).try_for_each(|host| self.on_host(host, &["nft", "flush ruleset"]))
    }

    fn on_host(&self, host: usize, arguments: &[&str]) -> Result<(), HarnessError> {
        let mut all = vec!["netns", "exec"];
        let name = self.host(host);
        all.push(&name);
        all.extend(arguments);
        ip(&all)
    }

    /// Whether a host can open a TCP connection to a port of another: for tests of the network itself.
    #[must_use]
    pub fn connects(&self, host: usize, to: IpAddr, port: u16) -> bool {
        let probe = format!("exec 3<>/dev/tcp/{to}/{port}");
        self.on_host(host, &["timeout", "2", "bash", "-c", &probe]).is_ok()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            // A host that was never made cannot be removed; anything else is worth a word.
            if let Err(error) = ip(&["netns", "del", &self.host(host)])
                && !error.to_string().contains("No such file")
            {
                note(&error.to_string());
            }
        }
        if let Err(error) = ip(&["link", "del", &self.bridge()])
            && !error.to_string().contains("Cannot find device")
        {
            note(&error.to_string());
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), HarnessError> {
    run(Command::new("ip").args(arguments)).map(drop)
}

/// Why networks cannot be made here, if they cannot: not root, or a tool is missing.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let missing = |tool: &&str| run(Command::new(tool).arg("-V")).is_err();
    if let Some(tool) = ["ip", "nft"].iter().find(|tool| missing(tool)) {
        return Some(format!("`{tool}` does not run"));
    }
    // A name of its own: the tests of one process look at the same time.
    let probe = format!("dryprobe{:08x}", rand::random::<u32>());
    let made = ip(&["netns", "add", &probe]).and_then(|()| ip(&["netns", "del", &probe]));
    made.err().map(|error| error.to_string())
}
