//! Nothing that can stand in a file makes the parser panic.

use crate::{files, outcome};

/// SplitMix64: a seed means the same for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).expect("fits")).expect("fits")
    }
}

fn examples() -> Vec<(String, Vec<char>)> {
    let stem =
        |path: &std::path::Path| path.file_stem().expect("named").to_string_lossy().into_owned();
    let text =
        |path: &std::path::Path| std::fs::read_to_string(path).expect("readable").chars().collect();
    let all = files("good").into_iter().chain(files("bad"));
    all.map(|path| (stem(&path), text(&path))).collect()
}

#[test]
fn every_prefix_is_good_or_bad_but_never_a_panic() {
    for (stem, text) in examples() {
        // A file as long as its bound has a million prefixes that say nothing new.
        for end in (0..text.len()).filter(|end| *end < 3000) {
            outcome(&stem, &text[..end].iter().collect::<String>());
        }
    }
}

#[test]
fn thousands_of_mutations_never_panic() {
    const ODD: [char; 16] = [
        '"', '\'', '[', ']', '{', '}', '=', '\n', '\\', '\0', '\u{1b}', '\u{202e}', 'é', '🐕',
        '\r', '9',
    ];
    let examples = examples();
    let mut random = Random(20_261_120);
    for _ in 0..4000 {
        let (stem, text) = &examples[random.below(examples.len())];
        let mut text: Vec<char> = text.iter().copied().take(3000).collect();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            let until = (at + random.below(12)).min(text.len());
            match random.below(4) {
                0 => drop(text.drain(at..until)),
                1 => text.insert(at, ODD[random.below(ODD.len())]),
                2 => {
                    let copy = text[at..until].to_vec();
                    let to = random.below(text.len());
                    text.splice(to..to, copy);
                }
                _ if text.is_empty() => {}
                _ => text[at] = ODD[random.below(ODD.len())],
            }
        }
        outcome(stem, &text.iter().collect::<String>());
    }
}

/// Files as long as they may be, made to be slow or to go deep.
#[test]
fn hostile_files_of_full_size_end_soon() {
    const BYTES: usize = 1 << 20;
    let fill = |unit: &str| unit.repeat(BYTES / unit.len());
    let hostile = [
        fill("=\n"),
        fill("= "),
        fill("["),
        fill("a."),
        fill("{a="),
        format!("a{} = 1", fill(".a")),
        format!("[a{}]", fill(".a")),
        format!("a = {}", fill("[")),
        format!("a = {}", fill("{a=")),
        fill("[[check]]\n"),
        fill("[[check]]\nif = \"age > 1h\"\n"),
        fill("\"\"\""),
        format!("env = {{ {} }}", (0..90_000).map(|n| format!("\"{n}\"=1,")).collect::<String>()),
        (0..90_000).map(|n| format!("a{n} = 1\n")).collect(),
        format!("run = \"{}\"", fill("a ")),
        format!("run = '''{}'''", fill("\\")),
        format!("alert = [{}]", fill("1,")),
    ];
    for text in hostile {
        let start = std::time::Instant::now();
        outcome("hostile", &text);
        // Debug and six at once: what must not be is quadratic, which would be hours.
        assert!(
            start.elapsed() < std::time::Duration::from_secs(20),
            "{:?} {:?}",
            &text[..40],
            start.elapsed()
        );
    }
}
