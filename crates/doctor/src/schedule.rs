//! Whether something runs cachenat again when nodes are replaced.

use crate::Finding;

/// What runs cachenat by itself.
pub struct Runner {
    /// What it is, and so what it does.
    pub kind: Kind,
    /// The unit or the file.
    pub name: String,
}

/// What runs cachenat, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `cachenat.timer` runs `apply`.
    Timer,
    /// `cachenat-watch.service` runs `watch`.
    Watch,
    /// `cachenat-restore.service` runs `restore`.
    Restore,
    /// A line for cron runs `apply`.
    Cron,
}

impl Kind {
    /// Whether it runs `apply`, which forwards again after a `remove`.
    pub fn applies(self) -> bool {
        matches!(self, Self::Timer | Self::Cron)
    }
}

impl Runner {
    /// How to stop it.
    pub fn stop(&self) -> String {
        match self.kind {
            Kind::Cron => format!("delete its line of 'cachenat apply' in {}", self.name),
            Kind::Timer | Kind::Watch | Kind::Restore => {
                format!("'systemctl disable --now {}' stops it", self.name)
            }
        }
    }
}

/// Whether one of them follows replaced nodes.
pub fn schedule(runners: &[Runner]) -> Finding {
    match runners.iter().find(|runner| runner.kind != Kind::Restore) {
        Some(Runner { name, .. }) => Finding::ok("schedule", format!("{name} keeps the rules true")),
        None => Finding::warn(
            "schedule",
            "neither systemd nor cron runs cachenat, so that replaced nodes are not followed",
            "enable cachenat.timer or cachenat-watch.service, or add a line to cron",
        ),
    }
}
