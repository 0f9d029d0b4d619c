//! What becomes of a packet in a base chain, through jumps and sets.

use std::fmt::{self, Display, Formatter};

use super::flow::{Course, Packet};
use super::{
    Backend, Bits, Chain, Expression, Field, Flow, Flows, Foreign, Message, Rule, Table, Truth, Verdict,
};

/// Sixteen registers of 4 bytes (`NFT_REG32_COUNT`).
const REGISTERS: usize = 64;

/// `NFT_JUMP_STACK_SIZE`
const DEPTH: usize = 16;

/// What becomes of a packet in a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It goes on.
    Passes,
    /// It does not, for sure.
    Stopped(Fate, RuleOrPolicy<'a>),
    /// That can't be told.
    Unclear(Doubt<'a>),
}

/// How a packet is kept from the way that cachenat needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is dropped or rejected.
    Dropped,
    /// conntrack does not see it, so that nothing is translated.
    Untracked,
    /// It is led elsewhere.
    LedElsewhere,
    /// A program decides.
    Queued,
}

/// A rule, or the policy of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleOrPolicy<'a> {
    /// The chain.
    pub chain: &'a Chain,
    /// The rule; `None`: the chain's policy.
    pub rule: Option<&'a Rule>,
}

/// Why the fate of a packet can't be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt<'a> {
    /// The rule that is about it, or is not: that decides.
    pub place: RuleOrPolicy<'a>,
    /// What of the rule is not understood; `None`: it depends on what is unknown of the packet.
    pub what: Option<&'a str>,
    /// What may become of it; `None`: it is stopped unless that rule lets it pass.
    pub fate: Option<Fate>,
}

impl Display for RuleOrPolicy<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let chain = self.chain;
        match (self.rule.map(|rule| rule.number), chain.table.backend) {
            (None, _) => write!(f, "the policy of {chain}"),
            (Some(handle), Backend::NfTables) => write!(f, "rule handle {handle} of {chain}"),
            (Some(number), Backend::LegacyIptables) => write!(f, "rule {number} of {chain}"),
        }
    }
}

impl Foreign {
    /// What becomes of the packets of some connections in a base chain, and of which.
    ///
    /// All of a family are looked at as one of which only that is known which they have in common, and each by itself only if that
    /// one may not pass. The first that is stopped is told, else the first that may be. A chain that meets none lets all pass.
    pub fn judge<'a, 'f>(
        &'a self,
        chain: &'a Chain,
        flows: &'f Flows,
        message: Message,
    ) -> (Answer<'a>, Option<&'f Flow>) {
        let Some(base) = &chain.base else { return (Answer::Passes, None) };
        let answer = |course: &Course| {
            let packet = course.packet(message, base).filter(|_| chain.table.family.sees(course.family));
            packet.map_or(Answer::Passes, |packet| Walk::new(self, packet).base_chain(chain))
        };
        if flows.as_one().iter().all(|course| answer(course) == Answer::Passes) {
            return (Answer::Passes, None);
        }
        let mut unclear = (Answer::Passes, None);
        for (flow, course) in flows.each() {
            match answer(&course) {
                Answer::Passes => {}
                stopped @ Answer::Stopped(..) => return (stopped, Some(flow)),
                doubt @ Answer::Unclear(_) if unclear.1.is_none() => unclear = (doubt, Some(flow)),
                Answer::Unclear(_) => {}
            }
        }
        unclear
    }

    fn chain(&self, table: &Table, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name && chain.table == *table)
    }
}

/// A packet on its way through one base chain.
struct Walk<'a> {
    foreign: &'a Foreign,
    packet: Packet,
    /// The first rule that may have let it pass though a later one stops it.
    may_pass: Option<Doubt<'a>>,
    /// The first rule that may have stopped it though a later one lets it pass.
    may_stop: Option<Doubt<'a>>,
}

/// How a chain was left.
enum Left<'a> {
    /// At its end, or by `return`.
    AtEnd,
    Accepted,
    Stopped(Fate, RuleOrPolicy<'a>),
}

/// What a rule says of a packet.
struct Said<'a> {
    /// Whether the rule is about it.
    truth: Truth,
    /// What of the rule is not understood.
    unclear: Option<&'a str>,
    verdict: &'a Verdict,
}

impl<'a> Walk<'a> {
    fn new(foreign: &'a Foreign, packet: Packet) -> Self {
        Self { foreign, packet, may_pass: None, may_stop: None }
    }

    fn base_chain(mut self, chain: &'a Chain) -> Answer<'a> {
        let drops = chain.base.as_ref().is_some_and(|base| base.drops_by_policy);
        let stopped = match self.chain(chain, None, 0) {
            Left::Stopped(fate, place) => Some((fate, place)),
            Left::AtEnd if drops => Some((Fate::Dropped, RuleOrPolicy { chain, rule: None })),
            Left::AtEnd | Left::Accepted => None,
        };
        match (stopped, self.may_pass, self.may_stop) {
            (None, _, None) => Answer::Passes,
            (None, _, Some(doubt)) | (Some(_), Some(doubt), _) => Answer::Unclear(doubt),
            (Some((fate, place)), None, _) => Answer::Stopped(fate, place),
        }
    }

    /// Walks a chain. With a doubt it is uncertain whether the packet comes here at all, and no verdict is final.
    fn chain(&mut self, chain: &'a Chain, mut doubt: Option<Doubt<'a>>, depth: usize) -> Left<'a> {
        for rule in &chain.rules {
            let place = RuleOrPolicy { chain, rule: Some(rule) };
            for said in self.rule(chain, rule, doubt.is_none()) {
                let here = match said.truth {
                    Truth::No => continue,
                    Truth::Yes => doubt.clone(),
                    Truth::Maybe => doubt.clone().or(Some(Doubt { place, what: said.unclear, fate: None })),
                };
                let fate = match said.verdict {
                    Verdict::Continue => continue,
                    Verdict::Accept if here.is_none() => return Left::Accepted,
                    Verdict::Accept => {
                        self.may_pass = self.may_pass.take().or(here);
                        continue;
                    }
                    Verdict::Return if here.is_none() => return Left::AtEnd,
                    Verdict::Return => {
                        // What follows is met only if it did not return.
                        doubt = here;
                        continue;
                    }
                    Verdict::Jump(to) => {
                        let left = self.called(chain, to, here, depth);
                        if !matches!(left, Left::AtEnd) {
                            return left;
                        }
                        continue;
                    }
                    Verdict::Goto(to) => {
                        let left = self.called(chain, to, here.clone(), depth);
                        if here.is_none() {
                            return left;
                        }
                        doubt = here;
                        continue;
                    }
                    Verdict::Queue => {
                        let doubt = Doubt { place, what: None, fate: Some(Fate::Queued) };
                        self.may_stop.get_or_insert(doubt);
                        if here.is_none() {
                            return Left::Accepted;
                        }
                        continue;
                    }
                    Verdict::Untrack if self.packet.is_tracked() => continue,
                    Verdict::Untrack => Fate::Untracked,
                    Verdict::Drop => Fate::Dropped,
                    Verdict::LeadElsewhere => Fate::LedElsewhere,
                };
                match here {
                    None => return Left::Stopped(fate, place),
                    Some(here) => {
                        self.may_stop.get_or_insert(Doubt { fate: Some(fate), ..here });
                    }
                }
            }
        }
        Left::AtEnd
    }

    /// Walks the chain that another leads to; one that is not there, or too deep for the kernel, was read in the midst of a
    /// change.
    fn called(&mut self, from: &'a Chain, to: &str, doubt: Option<Doubt<'a>>, depth: usize) -> Left<'a> {
        match self.foreign.chain(&from.table, to) {
            Some(chain) if depth < DEPTH => self.chain(chain, doubt, depth + 1),
            _ => Left::AtEnd,
        }
    }

    /// Carries a rule out: what it may say, of a map of verdicts each that it may have. `is_met`: the packet comes to it for
    /// sure.
    fn rule(&mut self, chain: &Chain, rule: &'a Rule, is_met: bool) -> Vec<Said<'a>> {
        let mut registers = Bits::unknown(REGISTERS);
        let (mut truth, mut unclear) = (Truth::Yes, None);
        for expression in &rule.expressions {
            let condition = match expression {
                Expression::Load { field, to, length } => {
                    let Some(value) = self.packet.load(field, *length) else { return vec![] };
                    if let Field::Unknown(name) = field {
                        unclear = Some(name.as_str());
                    }
                    registers.put(*to, &value.padded(length.next_multiple_of(4)));
                    continue;
                }
                Expression::Constant { value, to } => {
                    registers.put(*to, &Bits::known(value).padded(value.len().next_multiple_of(4)));
                    continue;
                }
                Expression::Mask { from, to, mask, xor } => {
                    let value = registers.part(*from, mask.len()).mask(mask, xor);
                    registers.put(*to, &value.padded(mask.len().next_multiple_of(4)));
                    continue;
                }
                Expression::SetMark(from) => {
                    let is_set = is_met && truth == Truth::Yes;
                    self.packet.mark = if is_set { registers.part(*from, 4) } else { Bits::unknown(4) };
                    continue;
                }
                Expression::SetFlowMark => {
                    self.packet.flow_mark = Bits::unknown(4);
                    continue;
                }
                Expression::Verdict(verdict) => {
                    return vec![Said { truth, unclear, verdict }];
                }
                Expression::Unclear(name) => {
                    // It may have loaded any of them.
                    registers = Bits::unknown(REGISTERS);
                    unclear = Some(name.as_str());
                    Truth::Maybe
                }
                Expression::Compare { from, relation, value } => {
                    registers.part(*from, value.len()).compare(*relation, value)
                }
                Expression::Within { from, ranges, negated } => {
                    let within = |(first, last): &(Vec<u8>, Vec<u8>)| {
                        registers.part(*from, first.len()).is_within(first, last)
                    };
                    ranges.iter().map(within).fold(Truth::No, Truth::or).negated(*negated)
                }
                Expression::Lookup { from, set, to, negated } => {
                    let Some(set) = self.foreign.sets.get(&(chain.table.clone(), set.clone())) else {
                        registers = Bits::unknown(REGISTERS);
                        unclear = Some("lookup");
                        truth = truth.and(Truth::Maybe);
                        continue;
                    };
                    let found = set.found(&registers.part(*from, set.key_length()));
                    let verdicts = found.verdicts(truth);
                    if !verdicts.is_empty() {
                        return verdicts
                            .into_iter()
                            .map(|(truth, verdict)| Said { truth, unclear, verdict })
                            .collect();
                    }
                    if let Some(to) = to {
                        registers.put(*to, &found.value());
                    }
                    found.truth.negated(*negated)
                }
            };
            truth = truth.and(condition);
            if truth == Truth::No {
                break;
            }
        }
        vec![Said { truth, unclear, verdict: &Verdict::Continue }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::{Base, Hook, Interface, Relation, ReplyTo, TableFamily};

    fn table() -> Table {
        Table { backend: Backend::NfTables, family: TableFamily::Inet, name: "fw".to_owned() }
    }

    /// A chain at forward, and one named `inner` that no packet meets by itself.
    fn foreign(base: Vec<Vec<Expression>>, inner: Vec<Vec<Expression>>, drops_by_policy: bool) -> Foreign {
        let chain = |name: &str, base, rules: Vec<Vec<Expression>>| {
            let numbered =
                rules.into_iter().zip(1..).map(|(expressions, number)| Rule { number, expressions });
            Chain { table: table(), name: name.to_owned(), base, rules: numbered.collect() }
        };
        let hook = Base { is_nat: false, hook: Hook::Forward, priority: 0, devices: vec![], drops_by_policy };
        let chains = vec![chain("c", Some(hook), base), chain("inner", None, inner)];
        Foreign { chains, ..Foreign::default() }
    }

    fn flow(client: &str, port: u16) -> Flow {
        Flow {
            input: Interface { name: "eth0".parse().unwrap(), index: Some(2) },
            output: Interface { name: "eth0".parse().unwrap(), index: Some(2) },
            client: client.parse().unwrap(),
            listener: format!("10.0.0.55:{port}").parse().unwrap(),
            target: "10.0.1.230:6379".parse().unwrap(),
            reply_to: ReplyTo::Client,
        }
    }

    /// The answer about new connections to one node, in short.
    fn told(foreign: &Foreign) -> String {
        let flows = Flows::new(vec![flow("198.51.100.27/32", 6379)]);
        short(&foreign.judge(&foreign.chains[0], &flows, Message::New).0)
    }

    fn short(answer: &Answer<'_>) -> String {
        match answer {
            Answer::Passes => "passes".to_owned(),
            Answer::Stopped(fate, place) => format!("{fate:?} by {place}"),
            Answer::Unclear(Doubt { place, what, fate }) => format!("{fate:?} by {place} for {what:?}"),
        }
    }

    fn verdict(verdict: Verdict) -> Vec<Expression> {
        vec![Expression::Verdict(verdict)]
    }

    /// The same under a condition that is not understood.
    fn perhaps(verdict: Verdict) -> Vec<Expression> {
        vec![Expression::Unclear("recent".to_owned()), Expression::Verdict(verdict)]
    }

    #[test]
    fn a_doubt_names_the_rule_that_decides() {
        use Verdict::{Accept, Drop, Goto, Jump, Queue, Return};
        let inner = || "inner".to_owned();
        let policy = "Dropped by the policy of chain inet fw c";
        for (base, of_inner, drops, expected) in [
            (vec![], vec![], false, "passes"),
            (vec![], vec![], true, policy),
            (vec![perhaps(Accept)], vec![], false, "passes"),
            (
                vec![perhaps(Accept)],
                vec![],
                true,
                "None by rule handle 1 of chain inet fw c for Some(\"recent\")",
            ),
            (
                vec![perhaps(Drop), verdict(Accept)],
                vec![],
                false,
                "Some(Dropped) by rule handle 1 of chain inet fw c for Some(\"recent\")",
            ),
            (
                vec![perhaps(Drop), verdict(Drop)],
                vec![],
                false,
                "Dropped by rule handle 2 of chain inet fw c",
            ),
            (vec![verdict(Jump(inner())), verdict(Drop)], vec![verdict(Accept)], true, "passes"),
            (
                vec![verdict(Jump(inner())), verdict(Accept)],
                vec![verdict(Return), verdict(Drop)],
                true,
                "passes",
            ),
            (vec![verdict(Goto(inner())), verdict(Accept)], vec![], true, policy),
            // It may end with the policy.
            (
                vec![perhaps(Goto(inner())), verdict(Drop)],
                vec![],
                false,
                "Some(Dropped) by rule handle 1 of chain inet fw c for Some(\"recent\")",
            ),
            // Behind a return that is uncertain nothing is certain.
            (
                vec![verdict(Jump(inner()))],
                vec![perhaps(Return), verdict(Drop)],
                false,
                "Some(Dropped) by rule handle 1 of chain inet fw inner for Some(\"recent\")",
            ),
            (vec![perhaps(Jump(inner())), verdict(Accept)], vec![verdict(Accept)], true, "passes"),
            (
                vec![perhaps(Jump(inner()))],
                vec![verdict(Accept)],
                true,
                "None by rule handle 1 of chain inet fw c for Some(\"recent\")",
            ),
            (vec![verdict(Queue)], vec![], true, "Some(Queued) by rule handle 1 of chain inet fw c for None"),
            (vec![verdict(Jump(inner()))], vec![verdict(Jump(inner()))], false, "passes"),
            (vec![verdict(Jump("gone".to_owned()))], vec![], true, policy),
        ] {
            assert_eq!(
                told(&foreign(base.clone(), of_inner.clone(), drops)),
                expected,
                "{base:?} {of_inner:?}"
            );
        }
    }

    /// What is not understood may load registers, such as `socket` or `numgen`.
    #[test]
    fn behind_what_is_not_understood_no_register_is_known() {
        let port = Expression::Load { field: Field::Transport(2), to: 0, length: 2 };
        let is_22 = Expression::Compare { from: 0, relation: Relation::Equal, value: vec![0, 22] };
        let drop = Expression::Verdict(Verdict::Drop);
        let rule = vec![port.clone(), is_22.clone(), drop.clone()];
        assert_eq!(told(&foreign(vec![rule], vec![], false)), "passes");
        let rule = vec![port, Expression::Unclear("socket".to_owned()), is_22, drop];
        let unclear = "Some(Dropped) by rule handle 1 of chain inet fw c for Some(\"socket\")";
        assert_eq!(told(&foreign(vec![rule], vec![], false)), unclear);
    }

    #[test]
    fn the_first_connection_that_is_stopped_is_told_and_else_the_first_that_may_be() {
        let from = |value: &[u8]| {
            vec![
                Expression::Load { field: Field::Network(12), to: 0, length: 4 },
                Expression::Compare { from: 0, relation: Relation::Equal, value: value.to_vec() },
                Expression::Verdict(Verdict::Drop),
            ]
        };
        let foreign = foreign(vec![from(&[203, 0, 113, 9])], vec![], false);
        let judge = |clients: &[&str]| {
            let flows = Flows::new(clients.iter().map(|client| flow(client, 6379)).collect());
            let (answer, flow) = foreign.judge(&foreign.chains[0], &flows, Message::New);
            (short(&answer), flow.map(|flow| flow.client.to_string()))
        };
        let unclear = "Some(Dropped) by rule handle 1 of chain inet fw c for None".to_owned();
        assert_eq!(judge(&["198.51.100.27/32", "198.51.100.0/28"]), ("passes".to_owned(), None));
        assert_eq!(
            judge(&["198.51.100.27/32", "203.0.113.0/24"]),
            (unclear, Some("203.0.113.0/24".to_owned()))
        );
        let (answer, flow) = judge(&["203.0.113.0/24", "203.0.113.9/32"]);
        assert_eq!((&answer[..7], flow.as_deref()), ("Dropped", Some("203.0.113.9/32")));
        assert_eq!(judge(&[]).0, "passes");
    }
}
