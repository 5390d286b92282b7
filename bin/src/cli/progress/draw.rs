//! Showing progress: lines redrawn in place on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};

use super::view::View;

/// With more slots than this one bar stands for all.
const SLOT_LINES_MAX: usize = 20;
const BAR_WIDTH: usize = 40;

/// Where progress goes.
pub(crate) enum Draw {
    /// Nowhere.
    Quiet,
    /// To a terminal; so many lines are to be overwritten.
    Live(usize),
    /// To anything else; the last line, so that it is not repeated.
    Plain(String),
}

impl Draw {
    /// Choose for stderr.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Live(0)
        } else {
            Self::Plain(String::new())
        }
    }

    /// Show how far it is.
    pub(crate) fn show(&mut self, name: &str, view: &View) {
        match self {
            Self::Quiet => {}
            Self::Live(before) => {
                let lines = lines(name, view);
                *before = redraw(*before, &lines);
            }
            Self::Plain(_) => self.say(&format!("{name}: {}", view.line())),
        }
    }

    /// Say a line beside the progress, which goes on below it.
    pub(crate) fn note(&mut self, line: &str) {
        match self {
            Self::Quiet => {}
            Self::Live(before) => {
                *before = 0;
                eprintln!("{line}");
            }
            Self::Plain(_) => eprintln!("{line}"),
        }
    }

    /// Say a line unless it was the last; on a terminal it stays below what was drawn.
    pub(crate) fn say(&mut self, line: &str) {
        match self {
            Self::Quiet => {}
            Self::Live(before) => {
                *before = 0;
                eprintln!("{line}");
            }
            Self::Plain(last) => {
                if last != line {
                    eprintln!("{line}");
                    line.clone_into(last);
                }
            }
        }
    }
}

fn lines(name: &str, view: &View) -> Vec<String> {
    let width = usize::try_from(view.wanted.max(1)).unwrap_or(usize::MAX);
    let full = usize::try_from(view.running).unwrap_or_default() * BAR_WIDTH / width;
    let full = full.min(BAR_WIDTH);
    let mut out =
        vec![format!("{name}  [{}{}]  {}", "=".repeat(full), " ".repeat(BAR_WIDTH - full), view.line())];
    if view.slots.len() <= SLOT_LINES_MAX {
        out.extend(view.slots.iter().map(|slot| {
            let why = if slot.state == "running" { "" } else { slot.why.as_str() };
            format!("  {:<12} {:<10} {why}", slot.name, slot.state)
        }));
    } else {
        out.extend(view.reasons().iter().take(5).map(|(count, why)| format!("  {count:>6} × {why}")));
    }
    out
}

fn redraw(before: usize, lines: &[String]) -> usize {
    let columns = columns();
    let mut text = String::new();
    if before > 0 {
        text.push_str(&format!("\x1b[{before}A"));
    }
    for line in lines {
        // Control characters of a container's words must not steer the terminal.
        let line: String = line.chars().filter(|c| !c.is_control()).take(columns).collect();
        text.push_str(&format!("\x1b[2K{line}\n"));
    }
    text.push_str("\x1b[J");
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    lines.len()
}

fn columns() -> usize {
    // SAFETY: an all-zero winsize is valid, and the kernel writes no more than it.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live winsize, as TIOCGWINSZ wants.
    let done = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if done == 0 && size.ws_col > 0 { usize::from(size.ws_col) - 1 } else { 100 }
}

#[cfg(test)]
mod tests {
    use super::super::view::SlotView;
    use super::*;

    fn view(slots: usize) -> View {
        let slot =
            |i: usize| SlotView { name: i.to_string(), state: "pending".into(), why: "no node".into() };
        View { wanted: slots as u64, slots: (1..=slots).map(slot).collect(), ..View::default() }
    }

    #[test]
    fn few_slots_have_a_line_each_and_many_share_a_bar() {
        assert_eq!(lines("web", &view(6)).len(), 7);
        let many = lines("web", &view(60));
        assert_eq!(many.len(), 2);
        assert!(many[0].contains("0/60 running; 60 waiting: no node"), "{}", many[0]);
    }
}
