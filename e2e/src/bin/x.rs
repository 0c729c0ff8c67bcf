//! `cargo x`: the project's own commands (`test`, `show`), thin over the library.

use std::process::ExitCode;

const HELP: &str = "\
cargo x test [--only LAYER]...   install what is missing, run every layer (or the named ones) in order
cargo x test --list              the layers
cargo x show                     the evidence programs
cargo x show NAME [OPTION=VALUE]...   run one; ends with one line of JSON, exit 0 only where it holds";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test", rest @ ..] => e2e::layers::main(rest),
        ["show", rest @ ..] => e2e::shows::main(rest),
        ["writer", rest @ ..] => e2e::writer::main(rest),
        ["probe", rest @ ..] => e2e::probe::main(rest),
        ["echo", rest @ ..] => e2e::probe::echo(rest),
        _ => {
            println!("{HELP}");
            return if matches!(words.as_slice(), ["help" | "--help" | "-h"]) {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(2)
            };
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
