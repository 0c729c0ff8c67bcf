//! The colours of the page can be read: contrast of every token against what it stands on, in both themes.

use std::collections::BTreeMap;

use crate::{files, read};

/// Text needs this ratio (WCAG 2.2 AA), shapes and the borders of controls the lower one.
const TEXT: f64 = 4.5;
const SHAPE: f64 = 3.0;

/// What stands on what, and the ratio it needs: the table of the visual language, section 2.
const PAIRS: &[(&str, &str, f64)] = &[
    ("ink", "surface", TEXT),
    ("ink", "bg", TEXT),
    ("ink", "sunken", TEXT),
    ("ink2", "surface", TEXT),
    ("ink2", "bg", TEXT),
    ("ink3", "surface", TEXT),
    ("ink3", "bg", TEXT),
    ("ink3", "sunken", TEXT),
    ("line2", "surface", SHAPE),
    ("line2", "bg", SHAPE),
    ("ok", "surface", TEXT),
    ("ok", "bg", TEXT),
    ("ok", "ok-tint", TEXT),
    ("move", "surface", TEXT),
    ("move", "bg", TEXT),
    ("move", "move-tint", TEXT),
    ("warn", "surface", TEXT),
    ("warn", "bg", TEXT),
    ("warn", "warn-tint", TEXT),
    ("bad", "surface", TEXT),
    ("bad", "bg", TEXT),
    ("bad", "bad-tint", TEXT),
    ("un", "surface", TEXT),
    ("un", "bg", TEXT),
    ("un", "un-tint", TEXT),
    ("onstate", "ok", SHAPE),
    ("onstate", "move", SHAPE),
    ("onstate", "warn", SHAPE),
    ("onstate", "bad", SHAPE),
    ("onstate", "un", SHAPE),
    ("surface", "ink", TEXT),
];

type Colours = BTreeMap<String, [u8; 3]>;

/// The light theme and the dark one: the first value of a token, and its last where a dark block follows.
fn themes(css: &str) -> (Colours, Colours) {
    let (mut light, mut dark) = (Colours::new(), Colours::new());
    let mut in_dark = false;
    for line in css.lines() {
        if line.contains('{') && !line.trim_start().starts_with("--") {
            in_dark = line.contains("dark") || (in_dark && line.starts_with(' '));
        }
        for declaration in line.split([';', '{']) {
            let Some((name, value)) = declaration.trim().split_once(':') else { continue };
            let Some(name) = name.trim().strip_prefix("--") else { continue };
            let Some(colour) = hexadecimal(value.trim()) else { continue };
            let theme = if in_dark { &mut dark } else { &mut light };
            theme.insert(name.to_owned(), colour);
        }
    }
    (light, dark)
}

fn hexadecimal(value: &str) -> Option<[u8; 3]> {
    let digits = value.strip_prefix('#')?.split_whitespace().next()?;
    let digits: String = match digits.len() {
        3 => digits.chars().flat_map(|digit| [digit, digit]).collect(),
        _ => digits.to_owned(),
    };
    let part = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (digits.len() == 6).then_some([part(0)?, part(2)?, part(4)?])
}

/// Relative luminance as WCAG defines it.
fn luminance(colour: [u8; 3]) -> f64 {
    let part = |value: u8| {
        let value = f64::from(value) / 255.0;
        if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let [red, green, blue] = colour;
    0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue)
}

fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn contrast_is_what_wcag_says() {
    assert!((contrast([0, 0, 0], [255, 255, 255]) - 21.0).abs() < 0.01);
    assert!((contrast([0x77, 0x77, 0x77], [255, 255, 255]) - 4.48).abs() < 0.01);
}

#[test]
fn every_token_can_be_read_on_what_it_stands_on() {
    let css: String = files()
        .iter()
        .filter(|file| file.starts_with("static") && file.extension().is_some_and(|end| end == "css"))
        .map(|file| read(file))
        .collect();
    let (light, dark) = themes(&css);
    let mut faults = Vec::new();
    for (theme, colours) in [("light", &light), ("dark", &dark)] {
        for (front, back, needed) in PAIRS {
            let (Some(one), Some(other)) = (colours.get(*front), colours.get(*back)) else {
                faults.push(format!("{theme}: no colour --{front} or --{back}"));
                continue;
            };
            let found = contrast(*one, *other);
            if found < *needed {
                faults.push(format!("{theme}: {front} on {back} has {found:.2}, needs {needed}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
