//! What the kernel's rules refused: it counts that by itself, at no cost for what passes, and tells it when it is asked.

use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError};

use super::netlink::{BODY_AT, BUFFER_BYTES, DUMP, REQUEST, attribute, attribute_of, message, open, take_in};
use super::rules::RULES;

const SUBSYSTEM: u16 = 10 << 8;
const TOLD: u16 = SUBSYSTEM | 18;
const GET: u16 = SUBSYSTEM | 19;
/// Tables of both families of addresses at once.
const INET: u8 = 1;
const TABLE: u16 = 1;
const NAME: u16 = 2;
const CONTENT: u16 = 4;
const PACKETS: u16 = 2;
/// Messages that are read at most: our table has few counters.
const READS_MAX: usize = 16;

/// Why the rules refuse a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It goes from one network to another.
    Crossing,
    /// Its sender's address is not of the sender's network.
    Foreign,
    /// It comes from outside, where nobody inside asked for it.
    Entering,
}

impl Why {
    pub(super) const ALL: [Self; 3] = [Self::Crossing, Self::Foreign, Self::Entering];

    /// In one word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crossing => "crossing",
            Self::Foreign => "foreign",
            Self::Entering => "entering",
        }
    }

    /// The kernel's counter of it.
    pub(super) fn counter(self) -> String {
        format!("refused_{}", self.name())
    }
}

type Counts = [u64; Why::ALL.len()];

/// What was refused in all, though the kernel begins anew with each table.
#[derive(Debug, Default)]
struct Tally {
    /// By tables that are gone.
    before: Counts,
    /// By the one that is there, as last told.
    now: Counts,
}

impl Tally {
    fn see(&mut self, told: Counts) {
        for (at, count) in told.into_iter().enumerate() {
            if count < self.now[at] {
                self.before[at] += self.now[at];
            }
            self.now[at] = count;
        }
    }

    /// The table is another one from now on.
    fn begin_anew(&mut self) {
        self.see(Counts::default());
    }

    fn totals(&self) -> Counts {
        std::array::from_fn(|at| self.before[at] + self.now[at])
    }
}

/// What this host's rules refused since this program started.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<Tally>);

impl Refused {
    /// In all, by reason. What the kernel does not tell is as it was told last.
    pub(super) fn totals(&self) -> Vec<(&'static str, u64)> {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut tally);
        Why::ALL.map(Why::name).into_iter().zip(tally.totals()).collect()
    }

    /// Replace the table, or take it away, by `replace`: what it counted so far stays.
    pub(super) fn across<T>(&self, replace: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut tally);
        let replaced = replace()?;
        tally.begin_anew();
        Ok(replaced)
    }
}

fn look(tally: &mut Tally) {
    match of_rules() {
        Ok(told) => tally.see(told),
        Err(error) => tracing::debug!(%error, "the kernel does not tell what its rules refused"),
    }
}

fn wish() -> Vec<u8> {
    attribute_of(TABLE, &[RULES.as_bytes(), &[0]].concat())
}

fn of_rules() -> io::Result<Counts> {
    let socket = open()?;
    socket.send(&message(GET, REQUEST | DUMP, INET, &wish()))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut counts = Counts::default();
    for _ in 0..READS_MAX {
        let count = (&mut &socket).read(&mut buffer)?;
        if read(&buffer[..count], &mut counts)? {
            return Ok(counts);
        }
    }
    Err(io::Error::other("the kernel's answer has no end"))
}

/// Take in a piece of the answer. Returns whether it is the last one.
fn read(answer: &[u8], counts: &mut Counts) -> io::Result<bool> {
    take_in(answer, |kind, body| {
        if kind == TOLD {
            note(body.get(BODY_AT..).unwrap_or_default(), counts);
        }
    })
}

fn note(body: &[u8], counts: &mut Counts) {
    let text = |number| attribute(body, number).map(|bytes| bytes.strip_suffix(&[0]).unwrap_or(bytes));
    if text(TABLE) != Some(RULES.as_bytes()) {
        return;
    }
    let at = Why::ALL.iter().position(|why| text(NAME) == Some(why.counter().as_bytes()));
    let packets = attribute(body, CONTENT).and_then(|content| attribute(content, PACKETS));
    let packets = packets.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()).map(u64::from_be_bytes);
    if let (Some(at), Some(packets)) = (at, packets) {
        counts[at] = packets;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::netlink::{DONE, ERROR};
    use super::*;

    fn counter(table: &str, name: &str, packets: u64) -> Vec<u8> {
        let text = |text: &str| [text.as_bytes(), &[0]].concat();
        let content =
            [attribute_of(1, &1500_u64.to_be_bytes()), attribute_of(2, &packets.to_be_bytes())].concat();
        let body = [
            attribute_of(TABLE, &text(table)),
            attribute_of(NAME, &text(name)),
            attribute_of(CONTENT, &content),
        ]
        .concat();
        message(TOLD, 0, INET, &body)
    }

    #[test]
    fn counters_are_read_as_the_kernel_tells_them() {
        let mut counts = Counts::default();
        let first = [
            counter("shoal", "refused_foreign", 7),
            counter("other", "refused_crossing", 9),
            counter("shoal", "nobodys", 9),
        ];
        assert!(!read(&first.concat(), &mut counts).unwrap());
        let last = [counter("shoal", "refused_entering", 1 << 40), message(DONE, 0, 0, &[])];
        assert!(read(&last.concat(), &mut counts).unwrap());
        assert_eq!(counts, [0, 7, 1 << 40]);
        let refused = message(ERROR, 0, 1, &[]);
        assert!(read(&refused, &mut counts).is_err());
    }

    proptest! {
        /// However often the table is replaced: nothing that was told is forgotten, and nothing counted twice.
        #[test]
        fn what_was_refused_in_all_outlives_its_tables(
            tables in prop::collection::vec((prop::collection::vec(0u64..100, 1..5), any::<bool>()), 0..6),
        ) {
            let (mut tally, mut all) = (Tally::default(), 0);
            for (steps, is_known) in tables {
                let mut count = 0;
                for step in steps {
                    count += step;
                    tally.see([count, 0, count]);
                    prop_assert_eq!(tally.totals(), [all + count, 0, all + count]);
                }
                all += count;
                if is_known {
                    tally.begin_anew();
                } else {
                    // Somebody else took it away, and it was made anew unseen.
                    tally.see(Counts::default());
                }
            }
            prop_assert_eq!(tally.totals(), [all, 0, all]);
        }
    }
}
