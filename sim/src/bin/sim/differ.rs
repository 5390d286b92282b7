//! The first event in which two runs of the same differ.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::cli;
use crate::jobs;
use crate::outcome::DIFFERS;

/// Events shown before the first that differs.
const BEFORE: usize = 8;

/// `sim differ`
pub(crate) fn run(words: &cli::Differ) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("no folder for the events")?;
    let plan = folder.path().join("plan.json");
    words.source.plan()?.write(&plan)?;
    let files = [folder.path().join("one"), folder.path().join("two")];
    let mut both = Vec::new();
    for file in &files {
        let said = ["replay", "--json", "--events"].map(str::to_owned).into_iter();
        let paths = [file, &plan].map(|path| path.display().to_string());
        let all: Vec<String> = said.chain(paths).collect();
        both.push(jobs::start((), &all)?);
    }
    let mut stories = Vec::new();
    while let Some(ended) = jobs::any(&mut both)? {
        stories.push(ended.outcome);
    }
    let [one, two] = &stories[..] else { bail!("a run is missing") };
    match first(&files[0], &files[1])? {
        None if one.story() != two.story() => {
            println!("the events that were kept are the same, and the runs are not:");
            println!("< {}\n> {}", one.line(), two.line());
            Ok(ExitCode::from(DIFFERS))
        }
        None => {
            println!("both runs are the same: {}", words.source.again());
            Ok(ExitCode::SUCCESS)
        }
        Some((number, before, one, two)) => {
            before.iter().for_each(|line| println!("  {line}"));
            println!("event {number} differs:\n< {one}\n> {two}");
            Ok(ExitCode::from(DIFFERS))
        }
    }
}

/// The number of the first line that differs, some lines before it, and both lines.
type Difference = (usize, Vec<String>, String, String);

fn first(one: &Path, two: &Path) -> anyhow::Result<Option<Difference>> {
    let open = |path: &Path| -> anyhow::Result<_> {
        Ok(BufReader::new(std::fs::File::open(path).context("a run left no events")?).lines())
    };
    let (mut one, mut two) = (open(one)?, open(two)?);
    let mut before: Vec<String> = Vec::new();
    for number in 1.. {
        let (a, b) = (one.next().transpose()?, two.next().transpose()?);
        if a != b {
            let end = || "(the end)".to_owned();
            return Ok(Some((number, before, a.unwrap_or_else(end), b.unwrap_or_else(end))));
        }
        let Some(line) = a else { break };
        if before.len() == BEFORE {
            before.remove(0);
        }
        before.push(line);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_found_and_equal_files_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (a, b, c) = (file("a", "1\n2\n3\n"), file("b", "1\n2\n4\n"), file("c", "1\n2\n"));
        assert!(first(&a, &a).unwrap().is_none());
        let (number, before, one, two) = first(&a, &b).unwrap().unwrap();
        assert_eq!((number, before.len(), one.as_str(), two.as_str()), (3, 2, "3", "4"));
        assert_eq!(first(&a, &c).unwrap().unwrap().3, "(the end)");
    }
}
