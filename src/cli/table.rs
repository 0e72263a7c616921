//! Tables for a person at a terminal: columns as wide as their longest entry, a head above them.

use crate::system::logging;

/// Lines of a table: its head, then a line a row. What came from outside starts no line and steers no terminal.
pub(super) fn lines<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| logging::escape(cell))).collect();
    let width = |column: usize| {
        let of = |text: &str| text.chars().count();
        rows.iter().map(|row| of(&row[column])).chain([of(head[column])]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(line(head)).chain(rows.iter().map(|row| line(row.each_ref().map(String::as_str)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads_and_nothing_of_a_row_steers_a_terminal() {
        let rows = [["ada".into(), "Ada Lovelace".into(), "4".into()], ["b".into(), "x\u{1b}[2J\ny".into(), "12".into()]];
        let table = lines(["PERSON", "NAME", "N"], &rows);
        assert_eq!(table[..2], ["PERSON  NAME           N", "ada     Ada Lovelace   4"]);
        assert!(table.len() == 3 && !table[2].contains(['\u{1b}', '\n']), "{table:?}");
        assert_eq!(lines(["A"], &[]), ["A"]);
    }
}
