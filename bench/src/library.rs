//! Measures the applier on the kernel, without starting processes.

use std::fmt::Write as _;

use applier::kernel::Netfilter;
use applier::netlink::Kernel;
use applier::sync::{difference, sync};

use crate::Plan;
use crate::data::Nodes;
use crate::measure::{Times, grouped, timed};

const SIZES: [u16; 4] = [10, 1_000, 10_000, 60_000];

const HEAD: &str = "## The applier, by number of forwards

Milliseconds of wall time in one process. A first commit is dump, diff, one transaction and read-back; a change moves one
node, in the same steps; `in step` is a dump that finds nothing to do.

| forwards | first commit | change of one node | of it the transaction | dump | in step |
|--:|--:|--:|--:|--:|--:|
";

#[derive(Clone, Default)]
struct Row {
    first: Times,
    change: Times,
    transaction: Times,
    dump: Times,
    in_step: Times,
}

pub(crate) fn measure(plan: Plan) -> String {
    let mut kernel = Kernel::open().unwrap();
    let mut rows = [(); SIZES.len()].map(|()| Row::default());
    for round in 1..=plan.long_rounds {
        eprintln!("the applier: round {round} of {}", plan.long_rounds);
        for (size, row) in SIZES.iter().zip(&mut rows) {
            once(&mut kernel, Nodes::new(*size), row);
        }
    }

    let mut page = String::from(HEAD);
    for (size, Row { first, change, transaction, dump, in_step }) in SIZES.iter().zip(&rows) {
        writeln!(page, "| {} | {first} | {change} | {transaction} | {dump} | {in_step} |", grouped(*size))
            .unwrap();
    }
    let [.., at_10_000, at_60_000] = &rows;
    let share = at_10_000.dump.median() / at_10_000.change.median() * 100.0;
    writeln!(
        page,
        "\nA change costs one dump ({share:.0} % of it at 10,000 forwards) and one small transaction: what it touched is \
         read back element by element. 60,000 forwards are committed in {:.0} ms, as one transaction.\n",
        at_60_000.first.median(),
    )
    .unwrap();
    page
}

/// From an empty kernel to an empty kernel.
fn once(kernel: &mut Kernel, nodes: Nodes, row: &mut Row) {
    let (before, after) = (nodes.ruleset(), nodes.moved().ruleset());
    row.first.push(timed(|| drop(sync(kernel, Some(&before)).unwrap())));
    row.change.push(timed(|| drop(sync(kernel, Some(&after)).unwrap())));
    let dump = kernel.dump().unwrap();
    let back = difference(&dump, Some(&before)).unwrap().transaction();
    assert_eq!(back.operations.len(), 4, "one node is two elements, each deleted and added");
    row.transaction.push(timed(|| _ = kernel.commit(&back, dump.generation).unwrap()));
    row.dump.push(timed(|| drop(kernel.dump().unwrap())));
    row.in_step.push(timed(|| assert!(sync(kernel, Some(&before)).unwrap().changes.is_empty())));
    sync(kernel, None).unwrap();
}
