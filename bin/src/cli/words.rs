//! Values as people write them, to the API's numbers: durations, bytes, processors, key=value, shell words.

/// Nanoseconds from `1h30m`, `10s`, `500ms`; a bare `0` too.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no duration: write such as 500ms, 10s, 1m30s, 2h");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += number * unit;
        rest = &rest[end..];
    }
    // 2^63 nanoseconds are 292 years; f64 is exact enough far beyond what is asked for.
    if text.is_empty() || !(0.0..9.2e18).contains(&total) { Err(bad()) } else { Ok(total.round() as i64) }
}

/// Bytes from `512`, `64k`, `64m`, `1.5g`, in powers of 1024 as Docker does.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no amount of bytes: write such as 512m or 2g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| bad())?;
    let power = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(bad()),
    };
    let total = number * 1024f64.powi(power);
    if total < 9.2e18 { Ok(total as i64) } else { Err(bad()) }
}

/// Billionths of a processor from `0.5`.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..1e9).contains(&number) => Ok((number * 1e9).round() as i64),
        _ => Err(format!("{text:?} is no number of processors: write such as 0.5 or 2")),
    }
}

/// `KEY[=VALUE]`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        Err(format!("{text:?} is no label: write KEY=VALUE"))
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}

/// Words as a shell splits them: quotes and backslashes, nothing else.
pub(crate) fn shell_words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => (quote, open) = (Some(c), true),
            (c, Some(q)) if c == q => quote = None,
            ('\\', None | Some('"')) => {
                word.push(chars.next().ok_or_else(|| format!("{text:?} ends with a backslash"))?);
                open = true;
            }
            (c, None) if c.is_whitespace() => {
                if open {
                    words.push(std::mem::take(&mut word));
                    open = false;
                }
            }
            (c, _) => {
                word.push(c);
                open = true;
            }
        }
    }
    if quote.is_some() {
        return Err(format!("{text:?} has an open quote"));
    }
    if open {
        words.push(word);
    }
    Ok(words)
}

/// Fields of one CSV line, with double quotes around fields that hold commas.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("{text:?} has an open quote"));
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_docker_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
        ] {
            assert_eq!(duration(text), Ok(nanos), "{text}");
        }
        for text in ["", "10", "s", "10 s", "-1s", "1d", "1e99h", "..s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_read_in_powers_of_1024() {
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes("1.5GB"), Ok(3 << 29));
        assert_eq!(bytes("512"), Ok(512));
        assert!(bytes("much").is_err() && bytes("1x").is_err());
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert!(cpus("-1").is_err() && cpus("NaN").is_err());
    }

    #[test]
    fn shell_words_keep_what_quotes_hold_together() {
        assert_eq!(
            shell_words(r#"sh -c 'a b' "c \"d" e\ f ''"#),
            Ok(vec!["sh".into(), "-c".into(), "a b".into(), "c \"d".into(), "e f".into(), String::new()])
        );
        assert!(shell_words("'open").is_err());
    }

    #[test]
    fn csv_fields_may_hold_commas_in_quotes() {
        assert_eq!(
            csv(r#"type=tmpfs,"volume-opt=o=a,b",x"#),
            Ok(vec!["type=tmpfs".into(), "volume-opt=o=a,b".into(), "x".into()])
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text: String) {
            let _ = (duration(&text), bytes(&text), cpus(&text), pair(&text), shell_words(&text), csv(&text));
        }
    }
}
