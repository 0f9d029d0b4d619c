//! Cuts the connections that the rules in force would not make.
//!
//! What is to be cut is written down before the commit and forgotten after the cut, so that a run that is killed in
//! between, or cannot cut, leaves it to the next one.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use applier::conntrack::{Conntrack, ConntrackError, Which};
use applier::plain_file;
use rules::flows::{Fate, Former, Pair};
use rules::{AddressRange, Ruleset};
use serde::{Deserialize, Serialize};

use crate::config::{Config, OnGone};
use crate::output::{Output, with_cause};
use crate::state::{self, StateError, remembered};

const FILE: &str = "uncut.json";

/// What a commit is about to take away.
pub(crate) struct Cut<'a> {
    former: Former,
    now: &'a Ruleset,
    file: PathBuf,
    is_noted: bool,
    which: Which,
}

/// Connections that the rules in force would not make are left open.
#[derive(Debug, thiserror::Error)]
#[error(
    "connections that the rules would not make were not cut: {}; {}",
    with_cause(why),
    if *is_noted { "the next run tries again" } else { "they end by their own timeouts" }
)]
pub(crate) struct Uncut {
    why: ConntrackError,
    /// Whether the next run knows of them.
    is_noted: bool,
}

/// The form of [`Former`] in the file.
#[derive(Default, Serialize, Deserialize)]
struct Note {
    version: u32,
    /// Where clients connected to, and where that led.
    #[serde(rename = "legs")]
    pairs: Vec<(String, String)>,
    /// The first and the last address of each range.
    clients: Vec<(IpAddr, IpAddr)>,
}

impl<'a> Cut<'a> {
    /// What `now` takes away from the rules in force, and what earlier runs have left; the caller commits next.
    pub(crate) fn prepare(config: &Config, before: &Ruleset, now: &'a Ruleset, output: Output) -> Self {
        let file = config.state_dir.join(FILE);
        let left = Note::read(&file).map(|note| note.former(config));
        let was_left = left.is_some();
        let mut former = Former::of(before, now);
        former.extend(left.unwrap_or_default(), now);
        if config.on_move == OnGone::Drain {
            former.pairs.clear();
        }
        if config.on_client_gone == OnGone::Drain {
            former.clients.clear();
        }
        let has_tunnels = before.has_routed() || now.has_routed();
        let which = if has_tunnels { Which::All } else { Which::Translated };
        let mut cut = Self { former, now, file, is_noted: false, which };
        if !cut.former.is_empty() {
            cut.is_noted = cut.note().is_ok();
        } else if was_left {
            remembered(cut.forget(), output);
        }
        cut
    }

    /// Cuts; the rules are in force by now.
    ///
    /// # Errors
    ///
    /// Why connections are left that the next run is to cut.
    pub(crate) fn carry_out(self, output: Output) -> Result<(), Uncut> {
        if self.former.is_empty() {
            return Ok(());
        }
        let (mut moved, mut delisted) = (0, 0);
        let cut = Conntrack::open().and_then(|mut conntrack| {
            conntrack.cut(self.which, |flow| {
                match self.former.fate(self.now, flow) {
                    Fate::Stays => return false,
                    Fate::Moved => moved += 1,
                    Fate::Delisted => delisted += 1,
                }
                true
            })
        });
        match cut {
            Ok(flows) if self.now.sets.is_empty() => {
                if flows > 0 {
                    output.note(&format!("cut {flows} connections"));
                }
            }
            Ok(_) => {
                if moved > 0 {
                    output.note(&format!("cut {moved} connections to removed targets"));
                }
                if delisted > 0 {
                    output.note(&format!("cut {delisted} connections of clients that are no longer listed"));
                }
            }
            // It won't be able to list connections later either.
            Err(error @ ConntrackError::Unsupported(_)) => output.warn(&with_cause(&error)),
            Err(why) => return Err(Uncut { why, is_noted: self.is_noted }),
        }
        remembered(self.forget(), output);
        Ok(())
    }

    fn note(&self) -> Result<(), StateError> {
        let Former { pairs, clients } = &self.former;
        let note = Note {
            version: 1,
            pairs: pairs.iter().map(|pair| (pair.listen.to_string(), pair.target.to_string())).collect(),
            clients: clients.iter().map(|range| (range.first(), range.last())).collect(),
        };
        match serde_json::to_string(&note) {
            Ok(text) => state::write_for_this_boot(&self.file, [text, "\n".to_owned()]),
            Err(source) => Err(StateError::Io { file: self.file.clone(), source: source.into() }),
        }
    }

    fn forget(&self) -> Result<(), StateError> {
        state::delete(&self.file)
    }
}

impl Note {
    /// Reads the file; one that is damaged knows nothing, and `None` says that there is none.
    fn read(file: &Path) -> Option<Self> {
        match plain_file::read(file, plain_file::LIMIT) {
            Ok(text) => Some(
                serde_json::from_str(&text).ok().filter(|note: &Self| note.version == 1).unwrap_or_default(),
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(_) => Some(Self::default()),
        }
    }

    /// What of it can have been ours: a planted line must not cut what others translate.
    fn former(&self, config: &Config) -> Former {
        let (plan, has_tunnels) = (config.plan(&[]), !config.gateway.tunnels.is_empty());
        let pairs = self.pairs.iter().filter_map(|(listen, target)| {
            let pair = Pair { listen: listen.parse().ok()?, target: target.parse().ok()? };
            (plan.uses(pair.listen.port) || (has_tunnels && pair.is_routed())).then_some(pair)
        });
        let clients = self.clients.iter().filter_map(|&(first, last)| AddressRange::new(first, last));
        Former { pairs: pairs.collect(), clients: clients.collect() }
    }
}
