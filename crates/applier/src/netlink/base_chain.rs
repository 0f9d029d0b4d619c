//! The base chains of all tables, which packets pass beside ours: what they let through is theirs to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use nix::libc;

use super::attribute::{Attributes, Fields, Malformed, shown};
use super::foreign::{Effect, Taken, effect};
use super::message::{Answer, Messages, build_for, os_error};
use super::uapi::{chain, message as kind, rule};
use super::{Kernel, socket::Socket};
use crate::kernel::DumpError;

/// The families whose chains a routed packet passes, as nft calls them: `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_NETDEV`,
/// `NFPROTO_IPV6`. A chain of the family `bridge` sees bridged frames, and one of `arp` no packets.
const FAMILIES: [(u8, &str); 4] = [(1, "inet"), (2, "ip"), (NETDEV, "netdev"), (10, "ip6")];

/// `NFPROTO_NETDEV`
const NETDEV: u8 = 5;

/// A base chain of any table that routed packets pass; prints as `chain ip filter FORWARD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// `ip`, `ip6`, `inet` or `netdev`.
    pub family: &'static str,
    /// The table's name, control characters escaped.
    pub table: String,
    /// Its own name, likewise.
    pub name: String,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// Where packets meet it.
    pub hook: Hook,
    /// Lower comes first; chains of one priority come in the order in which they were made.
    pub priority: i32,
    /// The interfaces whose packets it sees; empty: all.
    pub devices: Vec<String>,
    /// What becomes of a packet that none of its rules has decided on.
    pub end: End,
    /// For a nat chain at prerouting: what it, or a chain of its table that it may jump to, leads elsewhere.
    pub takes: Vec<Taken>,
}

/// `enum nf_inet_hooks` and `enum nf_dev_hooks`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `NF_NETDEV_INGRESS`, `NF_INET_INGRESS`
    Ingress,
    /// `NF_INET_PRE_ROUTING`
    Prerouting,
    /// `NF_INET_FORWARD`
    Forward,
    /// `NF_INET_POST_ROUTING`
    Postrouting,
    /// `NF_NETDEV_EGRESS`
    Egress,
    /// Any other: forwarded packets do not come there.
    Other,
}

/// What becomes of a packet that none of a chain's rules has decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Accepted,
    /// `policy drop`
    DroppedByPolicy,
    /// A rule without a condition drops or rejects it, as firewalld's does.
    RefusedByRule,
}

impl Display for BaseChain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} {} {}", self.family, self.table, self.name)
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
            Self::Other => "another hook",
        })
    }
}

/// Which chain it is, as the kernel names it: family, table, chain.
type Name = (u8, Vec<u8>, Vec<u8>);

impl Kernel {
    /// The base chains of all tables that routed packets pass, ours included, in the order in which their tables were
    /// made.
    ///
    /// Where others change the ruleset meanwhile, it is a mix of before and after.
    ///
    /// # Errors
    ///
    /// See [`DumpError`].
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>, DumpError> {
        let mut found: Vec<(Name, BaseChain)> = Vec::new();
        self.list("list chains", (kind::GETCHAIN, kind::NEWCHAIN), |family, attributes| {
            found.extend(parse_chain(family, attributes)?);
            Ok(())
        })?;
        let (mut refusing, mut takes) = (BTreeSet::new(), BTreeMap::<Name, Vec<Taken>>::new());
        self.list("list rules", (kind::GETRULE, kind::NEWRULE), |family, attributes| {
            let fields = Fields::<16>::parse(attributes)?;
            let of = || (family, fields.name(rule::TABLE).to_owned(), fields.name(rule::CHAIN).to_owned());
            match effect(&fields)? {
                Effect::Other => {}
                Effect::Refuses => drop(refusing.insert(of())),
                Effect::Takes(taken) => takes.entry(of()).or_default().push(taken),
            }
            Ok(())
        })?;
        let bases: BTreeSet<Name> = found.iter().map(|(name, _)| name.clone()).collect();
        for (name, chain) in &mut found {
            if chain.end == End::Accepted && refusing.contains(name) {
                chain.end = End::RefusedByRule;
            }
            if chain.kind == "nat" && chain.hook == Hook::Prerouting {
                // A rule of a chain that no base chain's packets come to does nothing, but that is the rarer case.
                let comes_to =
                    |of: &Name| of == name || ((of.0, &of.1) == (name.0, &name.1) && !bases.contains(of));
                let taken = takes.iter().filter(|(of, _)| comes_to(of));
                // What a jump to another chain asks for is not read.
                let certain = |of: &Name, taken: &Taken| taken.is_certain && of == name;
                let taken = taken.flat_map(|(of, taken)| {
                    taken.iter().map(move |one| Taken { is_certain: certain(of, one), ..one.clone() })
                });
                chain.takes = taken.collect();
            }
        }
        Ok(found.into_iter().map(|(_, chain)| chain).collect())
    }

    /// Hands each object of all families to `take`, with its family.
    fn list(
        &mut self,
        request: &'static str,
        (get, new): (u8, u8),
        mut take: impl FnMut(u8, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let all = libc::NFPROTO_UNSPEC as u8;
        let message =
            build_for(libc::NFNL_SUBSYS_NFTABLES, all, get, libc::NLM_F_DUMP, self.sequence, |_| {});
        let failed = |source: std::io::Error| match source.raw_os_error() {
            Some(libc::EPERM) => DumpError::Denied(source),
            Some(libc::EOPNOTSUPP | libc::ECONNREFUSED) => DumpError::Unsupported(source),
            _ => DumpError::Io { request, source },
        };
        let malformed = |Malformed(fault)| DumpError::Malformed { request, fault };
        let socket: &mut Socket = &mut self.socket;
        socket.send(&[&message]).map_err(failed)?;
        let mut result = Ok(());
        loop {
            let datagram = socket.receive().map_err(failed)?;
            for message in Messages(datagram) {
                let message = message.map_err(malformed)?;
                if message.sequence != self.sequence {
                    continue;
                }
                match message.answer().map_err(malformed)? {
                    Answer::Object { kind, family, attributes, .. } if kind == new => {
                        if let Err(fault) = take(family, attributes) {
                            result = Err(malformed(fault));
                        }
                    }
                    Answer::Done(0 | libc::EINTR) | Answer::Verdict { errno: 0, .. } => return result,
                    Answer::Done(errno) | Answer::Verdict { errno, .. } => {
                        return Err(failed(os_error(errno)));
                    }
                    Answer::Object { .. } | Answer::Other => {}
                }
            }
        }
    }
}

/// `NFT_MSG_NEWCHAIN`; `None` for what is no base chain, or of no family of ours.
fn parse_chain(family: u8, attributes: &[u8]) -> Result<Option<(Name, BaseChain)>, Malformed> {
    let fields = Fields::<16>::parse(attributes)?;
    let known = FAMILIES.iter().find(|(number, _)| *number == family);
    let (Some(&(_, family_name)), Some(hook)) = (known, fields.get(chain::HOOK)) else { return Ok(None) };
    let hook = Fields::<8>::parse(hook)?;
    let (table, name) = (fields.name(chain::TABLE), fields.name(chain::NAME));
    let drops = fields.be32(chain::POLICY) == Some(libc::NF_DROP as u32);
    let found = BaseChain {
        family: family_name,
        table: shown(table),
        name: shown(name),
        kind: shown(fields.name(chain::TYPE)),
        hook: match (family, hook.be32(chain::HOOK_NUMBER).map(u32::cast_signed)) {
            (NETDEV, Some(0)) | (_, Some(libc::NF_INET_INGRESS)) => Hook::Ingress,
            (NETDEV, Some(1)) => Hook::Egress,
            (_, Some(libc::NF_INET_PRE_ROUTING)) => Hook::Prerouting,
            (_, Some(libc::NF_INET_FORWARD)) => Hook::Forward,
            (_, Some(libc::NF_INET_POST_ROUTING)) => Hook::Postrouting,
            _ => Hook::Other,
        },
        priority: hook.be32(chain::HOOK_PRIORITY).map_or(0, u32::cast_signed),
        devices: devices(&hook)?,
        end: if drops { End::DroppedByPolicy } else { End::Accepted },
        takes: Vec::new(),
    };
    Ok(Some(((family, table.to_owned(), name.to_owned()), found)))
}

/// `NFTA_HOOK_DEV`, or several in `NFTA_HOOK_DEVS`.
fn devices(hook: &Fields<'_, 8>) -> Result<Vec<String>, Malformed> {
    if hook.get(chain::HOOK_DEVICE).is_some() {
        return Ok(vec![shown(hook.name(chain::HOOK_DEVICE))]);
    }
    let several = Attributes(hook.get(chain::HOOK_DEVICES).unwrap_or_default());
    several
        .map(|device| Ok(shown(device?.value.split(|&byte| byte == 0).next().unwrap_or_default())))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_end_and_never_panic(family: u8, bytes: Vec<u8>) {
            let _ = parse_chain(family, &bytes);
        }
    }
}
