//! The way of words to the two streams.
//!
//! Nothing is written while a run holds the lock ([`Hush`]), so a reader that is slow or gone holds up no change and
//! fails none. A process that goes on by itself ([`in_background`]) does not wait for readers at all.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::event::{Level, line};
use crate::args::LogFormat;
use crate::clock::now;

/// How many bytes may wait for a reader in the background; one text more than fits is taken, and no other after it.
const ROOM: usize = 1 << 20;

/// How long the end of the process waits for a reader in the background.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

#[derive(Debug)]
pub(super) struct Words {
    pub(super) stream: Stream,
    pub(super) text: String,
    /// How to complain if they can't be written.
    pub(super) log: LogFormat,
}

#[derive(Debug)]
struct Voice {
    /// How many [`Hush`] there are.
    hushed: usize,
    waiting: Vec<Words>,
    background: Option<[Arc<Lane>; 2]>,
    /// How many texts found no room in the background.
    dropped: usize,
}

static VOICE: Mutex<Voice> =
    Mutex::new(Voice { hushed: 0, waiting: Vec::new(), background: None, dropped: 0 });

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Silence: what is said while it lasts is written when it ends.
#[derive(Debug)]
pub(crate) struct Hush(());

impl Hush {
    pub(crate) fn begin() -> Self {
        locked(&VOICE).hushed += 1;
        Self(())
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        let mut voice = locked(&VOICE);
        voice.hushed -= 1;
        if voice.hushed == 0 {
            let waiting = mem::take(&mut voice.waiting);
            drop(voice);
            waiting.into_iter().for_each(speak);
        }
    }
}

/// Whether nothing may be written now.
pub(super) fn is_hushed() -> bool {
    locked(&VOICE).hushed > 0
}

/// Writes the words, now or when the silence ends; that it fails changes nothing for the caller.
pub(super) fn speak(words: Words) {
    let mut voice = locked(&VOICE);
    if voice.hushed > 0 {
        voice.waiting.push(words);
        return;
    }
    let Some([out, err]) = voice.background.clone() else {
        drop(voice);
        return write(&words);
    };
    let lane = match words.stream {
        Stream::Out => &out,
        Stream::Err => &err,
    };
    let log = words.log;
    if !lane.take(words) {
        voice.dropped += 1;
    } else if voice.dropped > 0 {
        let dropped = mem::take(&mut voice.dropped);
        let text = format!("{dropped} messages were dropped while nothing read stdout or stderr");
        err.take(complaint(log, &text));
    }
}

/// From now on nothing waits for a reader of stdout or stderr: what finds no room is dropped and counted.
pub(crate) fn in_background() {
    let start = || {
        let lane = Arc::new(Lane::default());
        let own = Arc::clone(&lane);
        thread::spawn(move || own.run());
        lane
    };
    locked(&VOICE).background.get_or_insert_with(|| [start(), start()]);
}

/// Waits until all is written, or for a second where nothing reads.
pub(crate) fn finish() {
    let Some(lanes) = locked(&VOICE).background.clone() else { return };
    let deadline = Instant::now() + LAST_WORDS;
    for lane in lanes {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = lane.changed.wait_timeout_while(locked(&lane.queue), left, |queue| queue.bytes > 0);
        drop(waited);
    }
}

/// The texts that wait for the reader of one stream.
#[derive(Debug, Default)]
struct Lane {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Words>,
    /// With the text that is being written.
    bytes: usize,
}

impl Lane {
    /// Whether there was room.
    fn take(&self, words: Words) -> bool {
        let mut queue = locked(&self.queue);
        let has_room = queue.bytes < ROOM;
        if has_room {
            queue.bytes += words.text.len();
            queue.waiting.push_back(words);
            self.changed.notify_all();
        }
        has_room
    }

    /// Writes what comes, for as long as the process lives.
    fn run(&self) {
        loop {
            let waiting = self.changed.wait_while(locked(&self.queue), |queue| queue.waiting.is_empty());
            let Some(words) = waiting.unwrap_or_else(PoisonError::into_inner).waiting.pop_front() else {
                continue;
            };
            write(&words);
            locked(&self.queue).bytes -= words.text.len();
            self.changed.notify_all();
        }
    }
}

/// One text in one write, so that no other process' words come between.
fn write(words: &Words) {
    match words.stream {
        Stream::Out => {
            if let Err(error) = to_stdout(&words.text) {
                write(&complaint(words.log, &format!("stdout: {error}; the changes are made all the same")));
            }
        }
        // There is no one left to hear of it.
        Stream::Err => drop(io::stderr().lock().write_all(words.text.as_bytes())),
    }
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no error.
pub(super) fn to_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn complaint(log: LogFormat, text: &str) -> Words {
    Words { stream: Stream::Err, text: line(log, Level::Warning, text, now()), log }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(length: usize) -> Words {
        Words { stream: Stream::Err, text: "x".repeat(length), log: LogFormat::Text }
    }

    #[test]
    fn a_lane_without_reader_is_bounded() {
        let lane = Lane::default();
        assert!(lane.take(words(ROOM - 1)));
        assert!(lane.take(words(ROOM)), "one text may be larger than what is left");
        assert!(!lane.take(words(1)));
        assert_eq!(locked(&lane.queue).waiting.len(), 2);
    }
}
