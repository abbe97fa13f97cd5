//! What shells and `man` know about the program, made from its command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// A shell's completions, as a script that it sources.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "simusage", &mut script);
    script
}

/// The page of the program, or of one of its subcommands, in roff.
///
/// # Errors
/// There is no such subcommand; the error names those that there are.
pub fn page(subcommand: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let mut command = Cli::command();
    // Options that hold everywhere are handed down to the subcommands by this.
    command.build();
    let command = match subcommand {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            let known: Vec<_> = command
                .get_subcommands()
                .filter(|known| !known.is_hide_set())
                .collect();
            let known: Vec<_> = known.iter().map(|known| known.get_name()).collect();
            anyhow::anyhow!("there is no subcommand {name}, only {}", known.join(", "))
        })?,
    };
    let mut page = vec![];
    clap_mangen::Man::new(command)
        .source(concat!("simusage ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// Each subcommand that is shown, and one of its own options.
    fn subcommands() -> Vec<(String, Option<String>)> {
        let command = Cli::command();
        let shown = command
            .get_subcommands()
            .filter(|subcommand| !subcommand.is_hide_set());
        let own = |subcommand: &clap::Command| {
            subcommand
                .get_arguments()
                .find_map(|argument| argument.get_long())
                .map(str::to_owned)
        };
        shown
            .map(|subcommand| (subcommand.get_name().to_owned(), own(subcommand)))
            .collect()
    }

    #[test]
    fn every_shell_completes_every_subcommand_and_its_options() {
        assert!(subcommands().len() >= 5);
        for &shell in <Shell as clap::ValueEnum>::value_variants() {
            let script = text(completions(shell));
            for (name, option) in subcommands() {
                assert!(script.contains(&name), "{shell}: {name}");
                assert!(
                    option.is_none_or(|option| script.contains(&option)),
                    "{shell}: {name}"
                );
            }
        }
    }

    #[test]
    fn the_manual_has_a_page_for_every_subcommand() {
        let all = text(page(None).unwrap());
        for (name, option) in subcommands() {
            assert!(
                all.contains(&format!("simusage\\-{name}(1)")),
                "{name}: {all}"
            );
            let own = text(page(Some(&name)).unwrap());
            assert!(
                own.contains(&format!("simusage\\-{name}")) && own.contains("database\\-url"),
                "{own}"
            );
            assert!(
                option.is_none_or(|option| own.contains(&option.replace('-', "\\-"))),
                "{own}"
            );
        }
        let unknown = page(Some("nothing")).unwrap_err().to_string();
        assert!(
            unknown.starts_with("there is no subcommand nothing, only migrate, ingest, serve"),
            "{unknown}"
        );
    }
}
