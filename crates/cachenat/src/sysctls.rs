//! The kernel settings of this host: those that the rules need, and what becomes of them at the next boot.

use std::path::Path;

use applier::host;
use applier::host_facts;
use applier::sysctl::{Applied, Interfaces, SysctlError, Sysctls};
use plan::Admitted;
use rules::json::DesiredState;
use rules::sysctl::AtBoot;
use rules::{IfName, Sysctl};

use crate::config::Config;
use crate::output::{Output, with_cause};

/// The kernel settings of this host, seen from the interfaces that matter to these rules.
pub(crate) fn of_host(config: &Config, wanted: &DesiredState) -> anyhow::Result<Sysctls> {
    let ingress = wanted.ruleset.ingress().into_iter().cloned().collect();
    // Routes cost two dumps, and IPv4 has none that forwarding takes away.
    let routes = if wanted.sysctls.contains(&Sysctl::Ipv6Forward) { host::routes()? } else { vec![] };
    let advertised = routes
        .into_iter()
        .filter(|route| route.is_advertised && route.destination.prefix_len() == 0)
        .filter_map(|route| route.interface.parse().ok());
    let interfaces = Interfaces { ingress, advertised: advertised.collect() };
    Ok(Sysctls::new(&config.sysctl_dir).of_interfaces(interfaces))
}

/// A warning for each setting that another file takes back at the next boot.
pub(crate) fn boot_warnings(config: &Config, wanted: &DesiredState) -> Vec<String> {
    let ingress = wanted.ruleset.ingress();
    let line = |sysctl: &Sysctl| {
        let found = at_boot(config, sysctl, &ingress)?;
        (found.is_amiss(sysctl) && found.is_beyond_ours()).then(|| {
            format!(
                "{} says {:?} for the next boot, and nothing is forwarded then until cachenat has run: take that line out",
                found.file.display(),
                found.line
            )
        })
    };
    wanted.sysctls.iter().filter_map(line).collect()
}

/// What the next boot sets a setting to, by the files of sysctl.d(5); `None`: nothing.
pub(crate) fn at_boot(config: &Config, sysctl: &Sysctl, ingress: &[&IfName]) -> Option<AtBoot> {
    let others = ["/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"].map(Path::new);
    let dirs: Vec<&Path> = [config.sysctl_dir.as_path()].into_iter().chain(others).collect();
    host_facts::at_boot(&dirs, sysctl, ingress)
}

/// Has the next boot know of the settings that are in force.
///
/// `false`: the drop-in could not be written, which is told.
pub(crate) fn keep(config: &Config, wanted: &Admitted, output: Output) -> bool {
    let kept = of_host(config, wanted).and_then(|settings| Ok(settings.apply(&wanted.sysctls)?));
    match &kept {
        Ok(Applied { skipped_drop_in: None, .. }) => {}
        Ok(Applied { skipped_drop_in: Some(left), .. }) => output.warn(&left_to_root(left)),
        Err(error) => output.warn(&format!("{error:#}; the next boot forwards only once cachenat has run")),
    }
    matches!(kept, Ok(Applied { skipped_drop_in: None, .. }))
}

/// What there is to know of a drop-in that was left as it is.
pub(crate) fn left_to_root(left: &SysctlError) -> String {
    let remedy =
        if left.is_denied_drop_in() { ": one 'cachenat apply' as root puts it right, and" } else { ";" };
    format!(
        "{}; left unchanged{remedy} until then forwarding stays off after a reboot until cachenat runs",
        with_cause(left)
    )
}
