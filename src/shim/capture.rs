//! The beginning and the end of a command's output, in bounded memory.

use std::collections::VecDeque;

use crate::model::job::{JobKind, Output};
use crate::model::limits::{
    OUTPUT_HEAD_BYTES, OUTPUT_PROBE_BYTES, OUTPUT_TAIL_BYTES, UNTRUSTED_BYTES_MAX,
};
use crate::model::text::Untrusted;

/// Takes any number of bytes, keeps the first and the last, counts the rest.
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_bytes_max: usize,
    tail_bytes_max: usize,
    dropped_bytes: u64,
}

impl Capture {
    /// As much as is of use for a kind of job: an action's output is for people, who look at how it
    /// began and ended; that of a check's program is read from its beginning.
    pub(super) fn of(kind: JobKind) -> Self {
        let (head_bytes_max, tail_bytes_max) = match kind {
            JobKind::Probe(_) | JobKind::Look | JobKind::Ask => (OUTPUT_PROBE_BYTES, 0),
            JobKind::Start
            | JobKind::Stop
            | JobKind::Restart
            | JobKind::Reload
            | JobKind::Instance
            | JobKind::Exec => (OUTPUT_HEAD_BYTES, OUTPUT_TAIL_BYTES),
        };
        let (head, tail) = (Vec::new(), VecDeque::new());
        Self { head, tail, head_bytes_max, tail_bytes_max, dropped_bytes: 0 }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.head_bytes_max - self.head.len()));
        self.head.extend_from_slice(head);
        // What is longer than the whole tail need not pass through it byte by byte.
        let skipped = rest.len().saturating_sub(self.tail_bytes_max);
        let keep = &rest[skipped..];
        let over = (self.tail.len() + keep.len()).saturating_sub(self.tail_bytes_max);
        self.tail.drain(..over);
        self.tail.extend(keep);
        self.dropped_bytes += (skipped + over) as u64;
    }

    /// What was kept, with lines of heeler's own after it.
    pub(super) fn finish(self, own_lines: &[String]) -> Output {
        let (mut head, mut tail) = (self.head, Vec::from(self.tail));
        // Nothing is missing between them: one text, so that no line is torn.
        let last = if self.dropped_bytes == 0 {
            head.append(&mut tail);
            &mut head
        } else {
            &mut tail
        };
        for line in own_lines {
            if last.last().is_some_and(|byte| *byte != b'\n') {
                last.push(b'\n');
            }
            last.extend_from_slice(&line.as_bytes()[..line.len().min(UNTRUSTED_BYTES_MAX)]);
        }
        let all = |bytes: &[u8]| Untrusted::bounded(bytes, bytes.len());
        Output { head: all(&head), tail: all(&tail), dropped_bytes: self.dropped_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ActionId;
    use crate::model::ids::CheckIndex;
    use crate::model::job::{Ended, Outcome};
    use crate::model::limits::RECORD_BYTES_MAX;
    use crate::wire::shim::{OutcomeRecord, Record};

    /// Whatever the sizes of the reads, the same bytes are kept.
    #[test]
    fn first_and_last_are_kept_and_the_rest_is_counted() {
        let (action, probe) = (JobKind::Start, JobKind::Probe(CheckIndex(0)));
        let sizes = [0, 1, 4096, 4097, 8192, 8193, 50_000, 65_536, 65_537, 200_000];
        let of_actions = sizes.map(|total| (total, action, OUTPUT_HEAD_BYTES + OUTPUT_TAIL_BYTES));
        let of_probes = sizes.map(|total| (total, probe, OUTPUT_PROBE_BYTES));
        for (total, kind, kept_max) in of_actions.into_iter().chain(of_probes) {
            let all: Vec<u8> = (0..total).map(|n: u32| b'a' + (n % 26) as u8).collect();
            for step in [1, 7, 4096, 65_536] {
                let mut capture = Capture::of(kind);
                all.chunks(step).for_each(|chunk| capture.take(chunk));
                let output = capture.finish(&[]);
                let (head, tail) = (output.head.raw().as_bytes(), output.tail.raw().as_bytes());
                assert!(all.starts_with(head) && all.ends_with(tail), "{total} by {step}");
                let kept = head.len() + tail.len();
                assert_eq!(kept, all.len().min(kept_max));
                assert_eq!(output.dropped_bytes, (all.len() - kept) as u64);
            }
        }
    }

    #[test]
    fn heelers_own_lines_come_last_and_stand_alone() {
        let mut capture = Capture::of(JobKind::Exec);
        capture.take(b"no line end");
        let lines = capture.finish(&["heeler: why".to_owned()]).lines();
        assert_eq!(lines, ["no line end", "heeler: why"]);
    }

    /// JSON writes a control character in six bytes, a bad byte becomes three.
    #[test]
    fn the_worst_output_of_a_probe_fits_into_its_record() {
        for byte in [b'\x01', b'\0', b'"', b'\xff'] {
            let mut capture = Capture::of(JobKind::Probe(CheckIndex(0)));
            capture.take(&[byte; 300_000]);
            let own = vec!["heeler: ".to_owned() + &"x".repeat(5000); 3];
            let (ended, took) = (Ended::TimedOut, std::time::Duration::ZERO);
            let outcome = Outcome { ended, output: capture.finish(&own), took };
            let record = OutcomeRecord { action: ActionId(1), outcome };
            let bytes = record.encode();
            assert!(bytes.len() < RECORD_BYTES_MAX, "{byte:#x}: {}", bytes.len());
            assert_eq!(OutcomeRecord::decode(&bytes).as_ref(), Ok(&record), "{byte:#x}");
        }
    }
}
