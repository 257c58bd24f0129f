//! Questions and answers come back as they went, and nothing else passes for one.

use std::time::Duration;

use super::*;
use crate::model::job::Output;

fn questions() -> Vec<Question> {
    let controls = [
        Control::State("/srv/my shop/puma%.state\n".into()),
        Control::Url { url: ControlUrl::Abstract("shop".into()), token: Token::None },
        Control::Url {
            url: ControlUrl::Tcp { host: "::1".into(), port: 9293 },
            token: Token::Said(Secret::token("sek%ret").expect("a token")),
        },
        Control::Url {
            url: ControlUrl::Unix("/srv/pumactl.sock".into()),
            token: Token::File("/srv/token".into()),
        },
    ];
    controls.into_iter().zip(Ask::ALL).map(|(control, ask)| Question { control, ask }).collect()
}

fn answers() -> Vec<Answer> {
    let threads = Threads {
        backlog: Some(1),
        running: Some(3),
        capacity: None,
        most: Some(5),
        requests: None,
    };
    let worker = |pid| WorkerStatus {
        pid,
        index: Some(0),
        phase: Some(7),
        boot: Boot::Booted,
        started_wall_ms: Some(u64::MAX),
        checkin_wall_ms: None,
        threads,
    };
    let cluster = Cluster {
        phase: Some(7),
        workers: Some(2),
        booted: Some(1),
        old: None,
        each: vec![worker(Some(Pid(77))), WorkerStatus::default(), worker(None)],
    };
    let state = StateFile { master: Some(Pid(70)), running_from: Some("/srv/r 1\n".into()) };
    let version = Version { major: 8, minor: 0, patch: 2 };
    let stats =
        Stats { version: Some(version), started_wall_ms: Some(5), form: Form::Cluster(cluster) };
    let single = Stats { form: Form::Single(threads), ..Stats::default() };
    vec![
        Answer { state: Some(state), exposed: Exposed::ALL.to_vec(), said: Ok(Said::Stats(stats)) },
        Answer {
            state: Some(StateFile::default()),
            exposed: vec![],
            said: Ok(Said::Stats(single)),
        },
        Answer { state: None, exposed: vec![], said: Ok(Said::Stats(Stats::default())) },
        Answer { state: None, exposed: vec![Exposed::ControlOpen], said: Ok(Said::Accepted) },
        Answer::none(Trouble::new(TroubleKind::Silent, "no \u{1b}[2J\nanswer")),
        Answer::none(Trouble::new(TroubleKind::Forbidden, "")),
    ]
}

#[test]
fn both_come_back() {
    for question in questions() {
        let secret = question.encode();
        assert_eq!(Question::decode(secret.reveal()), Some(question), "{}", secret.reveal());
    }
    for answer in answers() {
        let text = answer.encode();
        assert!(
            text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)),
            "{text:?}"
        );
        assert_eq!(Answer::decode(&text), Some(answer), "{text}");
    }
    for kind in TroubleKind::ALL {
        let answer = Answer::none(Trouble::new(kind, "x"));
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }
}

#[test]
fn nothing_else_is_an_answer() {
    let good = answers()[0].encode();
    for (at, _) in good.char_indices() {
        assert_eq!(Answer::decode(&good[..at]), None, "cut at {at}");
    }
    for line in good.lines().skip(1) {
        assert_eq!(Answer::decode(&good.replacen(line, &format!("{line} 1"), 1)), None, "{line}");
        assert_eq!(Answer::decode(&good.replacen(line, &format!(" {line}"), 1)), None, "{line}");
    }
    for odd in [
        "",
        "heeler-ask 1\nend\n",
        "heeler-ask 2\naccepted\nend\n",
        "heeler-ask 1\naccepted\nend\nend\n",
        "heeler-ask 1\naccepted\nend\n\n",
        "heeler-ask 1\nstarted +5\nsingle - - - - -\nend\n",
        "heeler-ask 1\nstarted 99999999999999999999\nsingle - - - - -\nend\n",
        "heeler-ask 1\nstarted 5\nsingle - - - -\nend\n",
        "heeler-ask 1\nstarted 5\ncluster - - - -\nworker 0 - - 1 - - - - - - -\nend\n",
        "heeler-ask 1\nstarted 5\ncluster - - - -\nworker 7 - - 2 - - - - - - -\nend\n",
        "heeler-ask 1\nmaster 4294967296\naccepted\nend\n",
        "heeler-ask 1\ntrouble odd x\nend\n",
        "heeler-ask 1\ntrouble silent %\nend\n",
        "heeler-ask 1\nexposed everything\naccepted\nend\n",
    ] {
        assert_eq!(Answer::decode(odd), None, "{odd:?}");
    }
    let many = "worker 7 - - 1 - - - - - - -\n".repeat(limits::WORKERS_MAX as usize + 1);
    let many = format!("heeler-ask 1\nstarted 5\ncluster - - - -\n{many}end\n");
    assert_eq!(Answer::decode(&many), None, "too many workers");
    let long = format!("heeler-ask 1\ntrouble silent {}\nend\n", "x".repeat(1 << 20));
    assert_eq!(Answer::decode(&long), None, "a line that is too long");
}

#[test]
fn the_largest_answer_is_kept_whole() {
    let each = WorkerStatus {
        pid: Some(Pid(4_194_304)),
        index: Some(511),
        phase: Some(99_999),
        boot: Boot::Booted,
        started_wall_ms: Some(4_000_000_000_000),
        checkin_wall_ms: Some(4_000_000_000_000),
        threads: Threads {
            backlog: Some(9_999),
            running: Some(999),
            capacity: Some(999),
            most: Some(999),
            requests: Some(9_999_999_999),
        },
    };
    let each = vec![each; limits::WORKERS_MAX as usize];
    let form = Form::Cluster(Cluster { each, ..Cluster::default() });
    let said = Ok(Said::Stats(Stats { form, ..Stats::default() }));
    let text = Answer { state: None, exposed: Vec::new(), said }.encode();
    assert!(text.len() < limits::OUTPUT_PROBE_BYTES, "{}", text.len());
    assert!(Answer::decode(&text).is_some());
}

#[test]
fn a_job_that_did_not_ask_says_why() {
    let outcome = |ended, text: &str| Outcome {
        ended,
        output: Output { head: text.into(), ..Output::default() },
        took: Duration::ZERO,
    };
    let answer = answers().remove(4);
    let good = outcome(Ended::Exited(Exit::Code(0)), "");
    let head = Untrusted::bounded(answer.encode().as_bytes(), limits::OUTPUT_PROBE_BYTES);
    let good = Outcome { output: Output { head, ..Output::default() }, ..good };
    assert_eq!(Answer::of(&good), answer);
    for (ended, text, words) in [
        (Ended::Exited(Exit::Code(0)), "hello", "said something else than an answer"),
        (Ended::Exited(Exit::Code(2)), "no question\n", "failed with code 2: no question"),
        (Ended::TimedOut, "", "was still running at its deadline"),
        (Ended::Lost, "", "was lost"),
    ] {
        let trouble = Answer::of(&outcome(ended, text)).said.expect_err("no answer");
        assert_eq!(trouble.kind, TroubleKind::NotAsked);
        assert!(trouble.to_string().contains(words), "{trouble}");
    }
}

/// Whatever bytes of an answer or a question are changed: no panic, and what is read can be written.
#[test]
fn decoders_are_total() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below.max(1) as u64).expect("below a usize")
    };
    let texts: Vec<String> = answers().iter().map(Answer::encode).collect();
    let texts: Vec<String> = texts
        .into_iter()
        .chain(questions().iter().map(|question| question.encode().reveal().to_owned()))
        .collect();
    const SPICE: &[u8] = b" -%\n09aZ\x7f";
    for round in 0..40_000 {
        let mut text = texts[round % texts.len()].clone().into_bytes();
        for _ in 0..random(4) {
            let at = random(text.len());
            match random(4) {
                0 if !text.is_empty() => text[at] = SPICE[random(SPICE.len())],
                1 => text.truncate(at),
                2 => text.insert(at, SPICE[random(SPICE.len())]),
                _ => text.extend_from_within(at..),
            }
        }
        let text = String::from_utf8(text).expect("plain characters");
        if let Some(answer) = Answer::decode(&text) {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer), "{text}");
        }
        if let Some(question) = Question::decode(&text) {
            assert_eq!(Question::decode(question.encode().reveal()), Some(question), "{text}");
        }
    }
}
