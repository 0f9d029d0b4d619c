//! The base chains of all tables, which packets pass beside ours: what they let through is theirs to say.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};

use nix::libc;

use super::attribute::{Attributes, Fields, Malformed, shown};
use super::message::{Answer, Messages, build_for, os_error};
use super::uapi::{self, chain, expr, message as kind, rule};
use super::{Kernel, socket::Socket};
use crate::kernel::DumpError;

/// The families of IP packets, as nft calls them: `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];

/// A base chain of any table of the families `ip`, `ip6` and `inet`; prints as `chain ip filter FORWARD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// `ip`, `ip6` or `inet`.
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
    /// What becomes of a packet that none of its rules has decided on.
    pub end: End,
}

/// `enum nf_inet_hooks`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `NF_INET_PRE_ROUTING`
    Prerouting,
    /// `NF_INET_FORWARD`
    Forward,
    /// Any other.
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

/// Which chain it is, as the kernel names it.
type Name = (u8, Vec<u8>, Vec<u8>);

impl Kernel {
    /// The base chains of all tables of the families `ip`, `ip6` and `inet`, ours included, in the order in which their
    /// tables were made.
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
        let mut refusing: BTreeSet<Name> = BTreeSet::new();
        self.list("list rules", (kind::GETRULE, kind::NEWRULE), |family, attributes| {
            refusing.extend(parse_refusal(family, attributes)?);
            Ok(())
        })?;
        let chains = found.into_iter().map(|(name, chain)| match chain.end {
            End::Accepted if refusing.contains(&name) => BaseChain { end: End::RefusedByRule, ..chain },
            _ => chain,
        });
        Ok(chains.collect())
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
        hook: match hook.be32(chain::HOOK_NUMBER).map(u32::cast_signed) {
            Some(libc::NF_INET_PRE_ROUTING) => Hook::Prerouting,
            Some(libc::NF_INET_FORWARD) => Hook::Forward,
            _ => Hook::Other,
        },
        priority: hook.be32(chain::HOOK_PRIORITY).map_or(0, u32::cast_signed),
        end: if drops { End::DroppedByPolicy } else { End::Accepted },
    };
    Ok(Some(((family, table.to_owned(), name.to_owned()), found)))
}

/// `NFT_MSG_NEWRULE`: the chain, if the rule drops or rejects whatever comes to it.
fn parse_refusal(family: u8, attributes: &[u8]) -> Result<Option<Name>, Malformed> {
    let fields = Fields::<16>::parse(attributes)?;
    let mut refuses = false;
    for element in Attributes(fields.get(rule::EXPRESSIONS).unwrap_or_default()) {
        let expression = Fields::<4>::parse(element?.value)?;
        match expression.name(expr::NAME) {
            b"counter" | b"log" => {}
            b"reject" => refuses = true,
            b"immediate" if drops(expression.get(expr::DATA).unwrap_or_default())? => refuses = true,
            // A condition, or another verdict.
            _ => return Ok(None),
        }
    }
    let name = || (family, fields.name(rule::TABLE).to_owned(), fields.name(rule::CHAIN).to_owned());
    Ok(refuses.then(name))
}

/// Whether an `immediate` expression is the verdict `drop`.
fn drops(immediate: &[u8]) -> Result<bool, Malformed> {
    let data = Fields::<4>::parse(immediate)?.get(uapi::immediate::DATA).unwrap_or_default();
    let verdict = Fields::<4>::parse(data)?.get(uapi::immediate::VERDICT).unwrap_or_default();
    Ok(Fields::<4>::parse(verdict)?.be32(uapi::immediate::CODE) == Some(libc::NF_DROP as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_end_and_never_panic(family: u8, bytes: Vec<u8>) {
            let _ = (parse_chain(family, &bytes), parse_refusal(family, &bytes), drops(&bytes));
        }
    }
}
