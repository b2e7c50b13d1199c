//! Columns as wide as their widest cell; on a terminal the last column is cut to what is left of the line.

use super::output;

/// Rows under a heading.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(String::from).into()] }
    }
    /// Cells are made safe to show; a row has as many as the heading.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.rows[0].len(), "a row has as many cells as the heading");
        self.rows.push(cells.map(|c| output::line(&c)).into());
    }
    /// For standard output: cut to the terminal's width, whole where the output goes elsewhere.
    pub fn for_stdout(&self) -> String {
        self.render(terminal_width())
    }

    fn render(&self, width: Option<usize>) -> String {
        let columns = self.rows[0].len();
        let widths: Vec<usize> =
            (0..columns).map(|i| self.rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
        let before: usize = widths[..columns - 1].iter().map(|w| w + 2).sum();
        let last = width.map_or(usize::MAX, |w| w.saturating_sub(before).max(20));
        let line = |row: &Vec<String>| {
            let mut text: String = row[..columns - 1]
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}  "))
                .collect();
            text.push_str(&cut(&row[columns - 1], last));
            text.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Columns of the terminal on standard output, if it is one.
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_cut_to_the_terminal() {
        let mut table = Table::new(["ID", "SERVICE", "TITLE"]);
        table.row(["4f2a9c".into(), "касса".into(), "every request fails since 03:02\nx".into()]);
        table.row(["1".into(), "checkout".into(), "slow".into()]);
        assert_eq!(
            table.render(None),
            "ID      SERVICE   TITLE\n\
             4f2a9c  касса     every request fails since 03:02 x\n\
             1       checkout  slow"
        );
        assert_eq!(table.render(Some(38)).lines().nth(1), Some("4f2a9c  касса     every request fails…"));
    }
}
