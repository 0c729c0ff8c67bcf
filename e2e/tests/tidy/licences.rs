//! Every dependency may be used: its licence, read from `cargo metadata`, is on the list.

use crate::{list, metadata, word};

/// Licences that ask for no more than their text and a name; MPL-2.0 reaches only its own files.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an expression such as `(MIT OR Apache-2.0) AND Unicode-3.0` can be met; the old `/` means OR.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest) && rest.is_empty()
}

fn any(rest: &mut &[&str]) -> bool {
    let mut met = all(rest);
    while let ["OR", tail @ ..] = *rest {
        *rest = tail;
        met |= all(rest);
    }
    met
}

fn all(rest: &mut &[&str]) -> bool {
    let mut met = one(rest);
    while let ["AND", tail @ ..] = *rest {
        *rest = tail;
        met &= one(rest);
    }
    met
}

fn one(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", tail @ ..] => {
            *rest = tail;
            let met = any(rest);
            if let [")", tail @ ..] = *rest {
                *rest = tail;
                met
            } else {
                false
            }
        }
        [name, "WITH", exception, tail @ ..] => {
            *rest = tail;
            ALLOWED.contains(&format!("{name} WITH {exception}").as_str())
        }
        [name, tail @ ..] => {
            *rest = tail;
            ALLOWED.contains(name)
        }
        [] => false,
    }
}

#[test]
fn an_expression_is_met_by_one_side_of_or_and_both_sides_of_and() {
    assert!(is_allowed("MIT"));
    assert!(is_allowed("GPL-3.0-only OR MIT"));
    assert!(is_allowed("(GPL-3.0-only OR MIT) AND Unicode-3.0"));
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only"));
    assert!(is_allowed("Apache-2.0/MIT"));
    assert!(!is_allowed("GPL-3.0-only"));
    assert!(!is_allowed("MIT AND GPL-3.0-only"));
    assert!(!is_allowed("(MIT"));
    assert!(!is_allowed(""));
}

#[test]
fn every_dependency_may_be_used() {
    let metadata = metadata();
    let packages = list(&metadata["packages"]);
    assert!(packages.len() > 100, "cargo metadata lists only {} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !is_allowed(&word(&package["license"])))
        .map(|package| {
            format!("{} {}: {}", word(&package["name"]), word(&package["version"]), package["license"])
        })
        .collect();
    assert!(refused.is_empty(), "not on the list of licences:\n{}", refused.join("\n"));
}

#[test]
fn what_is_copied_into_the_tree_brings_its_licence() {
    for file in
        ["LICENSE-MIT", "LICENSE-APACHE", "e2e/vendor/axe-core/LICENSE", "e2e/vendor/axe-core/README.md"]
    {
        assert!(e2e::paths::root().join(file).exists(), "{file} is missing");
    }
}
