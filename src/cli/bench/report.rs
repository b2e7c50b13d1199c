//! Figures as people read them: one column for each thing that was measured.

use super::super::output;

/// Rows of a name and a value for each column.
pub struct Report {
    heading: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Report {
    pub fn new(columns: impl IntoIterator<Item = String>) -> Self {
        Self { heading: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// One value for each column; a column without one shows nothing.
    pub fn row(&mut self, name: &str, values: impl IntoIterator<Item = Option<String>>) {
        let values: Vec<String> = values.into_iter().map(Option::unwrap_or_default).collect();
        if values.iter().any(|value| !value.is_empty()) {
            self.rows.push((name.to_owned(), values));
        }
    }

    pub fn text(&self) -> String {
        let name = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|(_, values)| values.get(i));
            cells.chain(self.heading.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let line = |first: &str, cells: &[String]| {
            let cells = cells.iter().enumerate().map(|(i, cell)| format!("  {cell:>0$}", width(i)));
            format!("{first:<name$}{}", cells.collect::<String>()).trim_end().to_owned()
        };
        let rows = self.rows.iter().map(|(name, values)| line(name, values));
        std::iter::once(line("", &self.heading)).chain(rows).collect::<Vec<_>>().join("\n")
    }
}

/// `31,204`.
pub fn count(number: f64) -> String {
    let sign = if number < 0.0 { "-" } else { "" };
    format!("{sign}{}", output::thousands(number.abs().round_ties_even() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut report = Report::new(["aiops".to_owned(), "other".to_owned()]);
        report.row("accepted/s", [Some(count(31_204.4)), Some(count(950.0))]);
        report.row("nothing", [None, None]);
        report.row("µs", [None, Some("7".into())]);
        assert_eq!(
            report.text(),
            "             aiops  other\naccepted/s  31,204    950\nµs                      7"
        );
        assert_eq!(count(1_234_567.0), "1,234,567");
    }
}
