//! docs/reference/{cli,configuration,exit-codes}.md are what the code says.

use std::fmt::Write as _;

use crate::{cli::Exit, test_support::assert_generated};

#[test]
fn the_reference_of_exit_codes_is_generated() {
    let row = |exit: &Exit| format!("| {} | {} |\n", exit.code(), exit.meaning());
    assert_generated(
        "exit-codes.md",
        &format!("| code | means |\n|---|---|\n{}", Exit::ALL.iter().map(row).collect::<String>()),
    );
}

/// Every command's own help, in the order of the command line.
fn helps(command: &clap::Command, path: &str, page: &mut String) {
    let visible: Vec<_> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    if visible.is_empty() {
        let mut command =
            command.clone().bin_name(path).term_width(120).color(clap::ColorChoice::Never);
        let help = command.render_long_help().to_string();
        let _ = write!(
            page,
            "## {path}\n\n```text\n{}\n```\n\n",
            help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end()
        );
    }
    for below in visible {
        helps(below, &format!("{path} {}", below.get_name()), page);
    }
}

#[test]
fn the_reference_of_the_command_line_is_generated() {
    let mut command = crate::cli::command();
    command.build();
    let mut page = String::new();
    helps(&command, "redirector", &mut page);
    assert!(
        page.contains("## redirector route rollback\n") && !page.contains("verify-probe"),
        "{page}"
    );
    assert_generated("cli.md", page.trim_end());
}

#[test]
fn the_reference_of_the_configuration_is_generated() {
    let defaults: toml::Table =
        crate::config::Config::default().effective_toml().parse().expect("TOML");
    let documented = include_str!("../../../../deploy/redirector.toml");
    let mut page = "| key | default | in the environment |\n|---|---|---|\n".to_owned();
    let mut rows = 0;
    for (section, keys) in &defaults {
        for (key, value) in keys.as_table().into_iter().flatten() {
            let at = documented
                .split(&format!("\n[{section}]"))
                .nth(1)
                .unwrap_or_else(|| panic!("deploy/redirector.toml has no [{section}]"));
            let at = at.split("\n[").next().unwrap_or_default();
            let written = at.lines().any(|line| {
                line.trim_start_matches(['#', ' ']).split([' ', '=']).next() == Some(key)
            });
            assert!(written, "deploy/redirector.toml does not show {section}.{key}");
            let variable = format!("REDIRECTOR_{}_{}", section.to_uppercase(), key.to_uppercase());
            let _ = writeln!(page, "| `{section}.{key}` | `{value}` | `{variable}` |");
            rows += 1;
        }
    }
    assert!(rows >= 14, "{page}");
    assert_generated(
        "configuration.md",
        &format!("{page}\n```toml\n{}\n```", documented.trim_end()),
    );
}
