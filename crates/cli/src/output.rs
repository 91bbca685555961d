//! What goes to standard output: aligned columns for people, JSON for programs.
//!
//! Everything is written through [`std::io::Write`] with `?`, never `println!`: a reader that goes
//! away (`oncelog ... | head -1`) is an ordinary end, not a panic. `main` turns it into exit code 0.

use std::io::{self, Write};

use oncelog_pipeline::finding::Finding;
use serde_json::Value;

use crate::failure::Failure;
use crate::options::Options;

/// Rows under headings, each column as wide as its widest cell, two spaces between columns.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headings: &[&'static str]) -> Self {
        Table {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Panics if the row has not as many cells as there are headings.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.headings.len(), "a row must fill every column");
        self.rows.push(cells.into());
    }

    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|&heading| heading.into())
            .collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What a `check` found: whether each is fine, what it is, and what to do about it. Errors: there is a
/// fault.
pub fn findings(options: &Options, found: &[Finding]) -> anyhow::Result<()> {
    let faults = found.iter().filter(|one| !one.ok).count();
    if options.json() {
        let rows = found
            .iter()
            .map(|one| serde_json::json!({ "ok": one.ok, "what": one.what, "fix": one.fix }));
        print_json(&Value::Array(rows.collect()))?;
    } else {
        let mut out = io::stdout().lock();
        for Finding { ok, what, fix } in found {
            let mark = match (ok, fix) {
                (false, _) => "FAULT ",
                (true, Some(_)) => "advice",
                (true, None) => "ok    ",
            };
            writeln!(out, "{mark}  {what}")?;
            if let Some(fix) = fix {
                writeln!(out, "        -> {}", fix.replace('\n', "\n           "))?;
            }
        }
    }
    match faults {
        0 => Ok(()),
        1 => Err(Failure::refused("1 fault was found").into()),
        _ => Err(Failure::refused(format!("{faults} faults were found")).into()),
    }
}

/// One JSON value, indented, and a newline.
pub fn print_json(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value:#}")?;
    out.flush()
}

/// `-` where there is nothing to show, as Kafka's own tools print it.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// `1,2,3`
pub fn comma_list(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["a-long-name".into(), "1".into()]);
        table.row(["ä".into(), "22".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME         N\na-long-name  1\nä            22\n"
        );
    }
}
