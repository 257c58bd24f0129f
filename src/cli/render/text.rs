//! Text into columns.
#![forbid(unsafe_code)]

/// Columns a text takes. One per character: what is shown here is nearly all ASCII, and a table that
/// is off by one is worth less than a table of character widths.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Breaks a text into lines of at most `width` columns: between words, and inside one only when it is
/// longer than a line. At least one line; `width` 0 counts as 1.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    if columns(text) <= width {
        // As it is, with the indentation of a stack trace.
        return vec![text.to_owned()];
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let gap = usize::from(!line.is_empty());
        if columns(&line) + gap + columns(word) <= width {
            if gap == 1 {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if columns(&line) == width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

/// Adds `label` and a wrapped text, the continuation lines indented under the text.
pub(super) fn field(out: &mut String, width: Option<usize>, label: &str, text: &str) {
    let indent = columns(label);
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(20));
    for (n, line) in wrap(text, room).iter().enumerate() {
        let before = if n == 0 { label.to_owned() } else { " ".repeat(indent) };
        out.push_str(format!("{before}{line}").trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_too_long_and_no_word_is_lost() {
        let text = "memory (2710 MiB) > 2600 MiB, 3 of 5 aaaaaaaaaaaaaaaaaaaaaaaaa b";
        for width in 1..80 {
            let lines = wrap(text, width);
            assert!(lines.iter().all(|line| columns(line) <= width), "{width}: {lines:?}");
            assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""), "{width}");
        }
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("  at main.rb:1", 20), ["  at main.rb:1"]);
        assert_eq!(wrap("a b", 0), ["a", "b"]);
    }
}
