//! Join tokens and unlock keys are taken out of any text before a person or a log sees it.

const MARKS: [&str; 2] = ["SWMTKN-", "SWMKEY-"];

/// The text with every join token and unlock key in it cut to its mark.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, mark)) = MARKS.iter().filter_map(|mark| rest.find(mark).map(|at| (at, *mark))).min() {
        out.push_str(&rest[..at + mark.len()]);
        out.push('…');
        let tail = &rest[at + mark.len()..];
        let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(tail.len());
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_out_of_any_text() {
        let text = "bad 'SWMTKN-1-abc-def@10.0.0.1:2377' and SWMKEY-1-xyz.";
        assert_eq!(redact(text), "bad 'SWMTKN-…@10.0.0.1:2377' and SWMKEY-….");
        assert_eq!(redact("nothing"), "nothing");
    }
}
