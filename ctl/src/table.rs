//! Columns for people.

use std::io::{self, Write};

/// Writes rows with aligned columns; the last column is not padded.
pub(crate) fn write(to: &mut impl Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        writeln!(to, "{}", line.trim_end())?;
    }
    to.flush()
}

/// A reader that has gone away (`| head`) is not an error of ours.
pub(crate) fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// An id as far as people need it.
pub(crate) fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..13).unwrap_or(digits)
}

/// `3m`, as an age of people's size.
pub(crate) fn age(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Bytes with a decimal unit.
pub(crate) fn size(bytes: u64) -> String {
    let mut whole = bytes;
    let mut rest = 0;
    for unit in ["B", "kB", "MB", "GB"] {
        if whole < 1000 {
            return if unit == "B" {
                format!("{whole} B")
            } else {
                format!("{whole}.{} {unit}", rest / 100)
            };
        }
        rest = whole % 1000;
        whole /= 1000;
    }
    format!("{whole}.{} TB", rest / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["A".to_owned(), "B".to_owned()],
            vec!["long".to_owned(), "x".to_owned()],
        ];
        let mut text = Vec::new();
        write(&mut text, &rows).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "A      B\nlong   x\n");
        assert_eq!(
            (size(999), size(1500), size(7_250_000)),
            ("999 B".to_owned(), "1.5 kB".to_owned(), "7.2 MB".to_owned())
        );
        assert_eq!(
            (age(5_000_000_000), age(7_300_000_000_000)),
            ("5s".to_owned(), "2h".to_owned())
        );
    }
}
