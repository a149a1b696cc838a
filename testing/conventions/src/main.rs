//! `cargo run -p conventions [RULE…] [TEXT]`: the violations of these rules (all if none is named)
//! that contain the text: a package's name, a path. The rules are those of [`conventions::RULES`].

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_rule = |name: &str| conventions::RULES.iter().any(|(rule, _)| *rule == name);
    let (named, texts): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| is_rule(argument.as_str()));
    let mut total = 0;
    for (rule, find) in conventions::RULES {
        if !named.is_empty() && !named.iter().any(|name| name == rule) {
            continue;
        }
        let violations = find()?;
        let shown: Vec<_> = violations
            .iter()
            .filter(|violation| texts.iter().all(|text| violation.contains(text.as_str())))
            .collect();
        shown.iter().for_each(|violation| println!("{violation}"));
        println!("{rule}: {} violations", shown.len());
        total += shown.len();
    }
    Ok(if total == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
