//! What a show prints: a table for a person, then one line of JSON for a machine.

use serde_json::{Map, Value};

/// A table whose columns are as wide as their widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this first line.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    /// One more line.
    pub fn row<T: ToString>(&mut self, cells: &[T]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// The table as lines of text; figures stand at the right of their column.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let wide = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(wide).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, wide)| {
                    let wide = *wide;
                    if is_figure(cell) { format!("{cell:>wide$}") } else { format!("{cell:<wide$}") }
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints it.
    pub fn print(&self) {
        print!("{}", self.text());
    }
}

fn is_figure(cell: &str) -> bool {
    !cell.is_empty() && cell.chars().all(|one| one.is_ascii_digit() || one == '.')
}

/// What a show found: whether its claim holds, and the facts that say so.
#[derive(Debug)]
pub struct Outcome {
    /// Whether everything the show claims was seen.
    pub holds: bool,
    /// Figures for the last line, in the order of the alphabet.
    pub facts: Map<String, Value>,
}

impl Outcome {
    /// An outcome with its facts, given as a JSON object.
    #[must_use]
    pub fn new(holds: bool, facts: Value) -> Self {
        let facts = if let Value::Object(facts) = facts { facts } else { Map::new() };
        Self { holds, facts }
    }

    /// The last line: `{"show":NAME,"holds":…,…}`.
    #[must_use]
    pub fn line(&self, show: &str) -> String {
        let mut line = format!("{{\"show\":{},\"holds\":{}", Value::from(show), self.holds);
        for (name, value) in &self.facts {
            line.push_str(&format!(",{}:{value}", Value::from(name.as_str())));
        }
        line.push('}');
        line
    }
}

/// The smallest, middle and largest of some figures, for a table.
#[must_use]
pub fn spread(figures: &[u64]) -> (u64, u64, u64) {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_json_that_names_the_show_first() {
        let line = Outcome::new(true, serde_json::json!({"rounds": 20, "lost": 0})).line("counter-failover");
        assert!(line.starts_with("{\"show\":\"counter-failover\",\"holds\":true,"));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["rounds"], 20);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["step", "ms"]);
        table.row(&["detect", "2000"]);
        table.row(&["a longer step", "7"]);
        assert_eq!(table.text(), "step           ms\ndetect         2000\na longer step     7\n");
    }

    #[test]
    fn the_spread_of_no_figures_is_nought() {
        assert_eq!(spread(&[]), (0, 0, 0));
        assert_eq!(spread(&[3, 1, 2]), (1, 2, 3));
    }
}
