//! `man` and `completions`: what packages install, from the one definition of the command line.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::{Cli, Global};
use crate::output::{Exit, Output};

/// Prints the manual page, or writes it and one for each command into `dir`.
pub(super) fn man(global: &Global, dir: Option<&Path>) -> anyhow::Result<Exit> {
    // `cachenat help` prints what the pages say; it needs none of its own.
    let command = Cli::command().disable_help_subcommand(true);
    match dir {
        Some(dir) => fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(command, dir))
            .with_context(|| format!("write manual pages into {}", dir.display()))?,
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).context("write the manual page")?;
            Output::new(global).data(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Exit::Done)
}

/// Prints what makes this shell complete our command line.
pub(super) fn completions(global: &Global, shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cachenat", &mut script);
    Output::new(global).data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Global {
        let log_format = crate::args::LogFormat::Text;
        Global { config: "config.yaml".into(), inventory: None, quiet: true, verbose: false, log_format }
    }

    #[test]
    fn each_command_has_a_page_and_hidden_ones_have_none() {
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
}
