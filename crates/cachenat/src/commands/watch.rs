//! stub
use crate::args::Global;
use crate::output::Exit;
use std::time::Duration;
pub(super) fn run(_global: &Global, _i: Duration, _d: Duration) -> anyhow::Result<Exit> {
    anyhow::bail!("not yet")
}
