//! `man` and `completions`: generated from the definition of the command line, and installed by the packages.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::{Cli, Global};
use crate::output::{Exit, Output};

/// The sections of the main page that are not in the definition of the command line.
const MORE: &str = r#".SH FILES
.TP
\fI/etc/cachenat/config.yaml\fR
The configuration.
.TP
\fI/var/lib/cachenat\fR
Leases, the last good inventory and the rules made from it (\fIstate_dir\fR).
.TP
\fI/etc/sysctl.d/90\-cachenat.conf\fR
The kernel settings for the next boot (\fIsysctl_dir\fR).
.TP
\fI/run/cachenat.lock\fR
Prevents concurrent runs (\fIlock_file\fR).
.SH ENVIRONMENT
.TP
\fBCACHENAT_CONFIG\fR
The configuration file, unless \fB\-\-config\fR is given.
.TP
\fBAWS_REGION\fR, \fBAWS_PROFILE\fR, \fBAWS_ACCESS_KEY_ID\fR, \fBAWS_ENDPOINT_URL\fR, ...
As in every AWS SDK; the default is the instance's role and region.
.TP
\fBAWS_EC2_METADATA_DISABLED\fR
\fItrue\fR: do not use the instance metadata.
.TP
\fBNO_COLOR\fR
Disables colours on a terminal.
.SH SEE ALSO
.BR nft (8),
.BR ip\-sysctl (7),
.BR systemd.timer (5)
"#;

/// Prints the manual page, or writes it and a page for each command into `dir`.
pub(super) fn man(global: &Global, dir: Option<&Path>) -> anyhow::Result<Exit> {
    let pages = pages();
    match dir {
        Some(dir) => {
            write(&pages, dir).with_context(|| format!("write manual pages into {}", dir.display()))?
        }
        None => {
            // The main page is the last one.
            if let Some((_, page)) = pages.last() {
                Output::new(global).data(page)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The manual pages by file name; the main page is the last.
fn pages() -> Vec<(String, String)> {
    // `cachenat help` prints the same text as the pages, so it needs no page.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages);
    if let Some((_, page)) = pages.last_mut() {
        page.push_str(MORE);
    }
    pages
}

fn add_pages(command: &Command, pages: &mut Vec<(String, String)>) {
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).for_each(|sub| add_pages(sub, pages));
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    // Writing to a vector can't fail.
    let _ = man.render(&mut page);
    let page = String::from_utf8_lossy(&page);
    // Examples and exit codes have their own sections in a manual page (man-pages(7)).
    let page = page.replace(".SH EXTRA\nExamples:", ".SH EXAMPLES");
    let page = page.replace(".SH EXTRA\nExit codes:", ".SH EXIT STATUS");
    pages.push((man.get_filename(), page));
}

fn write(pages: &[(String, String)], dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    pages.iter().try_for_each(|(name, page)| fs::write(dir.join(name), page))
}

/// Prints the completion script for `shell`.
pub(super) fn completions(global: &Global, shell: Shell) -> anyhow::Result<Exit> {
    Output::new(global).data(&script(shell))?;
    Ok(Exit::Done)
}

fn script(shell: Shell) -> String {
    // clap_complete also completes hidden commands, so leave them out here.
    let whole = Cli::command();
    let mut shown = Command::new("cachenat")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(whole.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned());
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, "cachenat", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn quiet() -> Global {
        let log_format = crate::args::LogFormat::Text;
        Global { config: "config.yaml".into(), inventory: None, quiet: true, verbose: 0, log_format }
    }

    #[test]
    fn only_visible_commands_have_a_page() {
        let dir = tempfile::tempdir().unwrap();
        man(&quiet(), Some(dir.path())).unwrap();
        let mut pages: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        for page in ["cachenat.1", "cachenat-apply.1", "cachenat-leases-release.1"] {
            assert!(pages.iter().any(|other| other == page), "{page} is not among {pages:?}");
        }
        assert!(!pages.iter().any(|page| page.contains("guard") || page.contains("help")), "{pages:?}");
        let page = fs::read_to_string(dir.path().join("cachenat-apply.1")).unwrap();
        assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{page}");
        assert!(page.contains("cachenat apply \\-\\-wait 120s"), "{page}");
    }

    #[test]
    fn each_page_has_the_usual_sections() {
        let pages = pages();
        let (main, commands) = pages.split_last().unwrap();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "FILES", "ENVIRONMENT", "SEE ALSO"] {
            assert!(main.1.contains(&format!(".SH {section}\n")), "{section}");
        }
        for (name, page) in commands {
            assert!(page.contains(".SH EXAMPLES\n"), "{name}: {page}");
        }
        assert!(!pages.iter().any(|(_, page)| page.contains("EXTRA")));
    }

    #[test]
    fn shells_complete_only_visible_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("status") && script.contains("log-format"), "{shell}");
            assert!(!script.replace("wireguard", "").contains("guard"), "{shell}");
        }
    }

    #[test]
    fn bash_completes_a_command_and_a_value() {
        let complete = |words: &str, current: &str, previous: &str| {
            let lines = format!(
                "{}\nCOMP_WORDS=({words} '{current}'); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
                 _cachenat cachenat '{current}' {previous}; echo \"${{COMPREPLY[@]}}\"",
                script(Shell::Bash)
            );
            let output = std::process::Command::new("bash").args(["-c", &lines]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(complete("cachenat", "stat", "cachenat"), "status\n");
        assert_eq!(complete("cachenat status --format", "", "--format"), "text json prometheus\n");
    }
}
