//! `type = "network"`: a network interface: that it is up, what it carries, what it loses.
//!
//! It is up when it was set up and its `operstate` is `up`; interfaces without one (lo, tunnels: `unknown`)
//! count by their carrier. Rates and errors are since the last look; where a counter began anew (a driver
//! was loaded again, 32 bits ran over) there is no value.
//! Sources: Documentation/ABI/testing/sysfs-class-net and its `-statistics`, operstates.rst, netdevice(7).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checks::given::{Given, Key, KeyKind, Wrong};
use crate::checks::system::kernel_file;
use crate::checks::{CheckType, Files, Probe, Unsaid, fingerprint};
use crate::model::metric::{Metric, Value};
use crate::model::observation::{Observation, Outcome};
use crate::model::text::{Untrusted, escape};
use crate::model::time::{Mono, Now};

/// This type.
pub const TYPE: CheckType = CheckType {
    keys: &KEYS,
    metrics: || vec![Metric::ReceiveRate, Metric::SendRate, Metric::Errors, Metric::Saturation],
    unsaid: Unsaid::Failed,
    timeout: Duration::from_secs(5),
    read: |given| settings(given).map(|settings| Probe::Files(Files::Network(settings))),
};

const KEYS: [Key; 1] = [Key { name: "interface", kind: KeyKind::Text, example: "eth0" }];

/// `IFF_UP` of netdevice(7): it was set up.
const SET_UP: u64 = 1;
/// The kernel's IFNAMSIZ less its NUL.
const NAME_BYTES_MAX: usize = 15;

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    interface: String,
}

/// What a look leaves for the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Past {
    at: Mono,
    /// Another number: another interface of the same name.
    index: u64,
    received_bytes: u64,
    sent_bytes: u64,
    errors: u64,
}

fn settings(given: &Given) -> Result<Settings, Vec<Wrong>> {
    let Some(name) = given.text("interface") else {
        return Err(vec![Wrong::new("interface", "this check does not say `interface`", "")]);
    };
    // As the kernel's dev_valid_name().
    let odd = |c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control();
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || [".", ".."].contains(&name)
        || name.contains(odd)
    {
        let message = format!("{:?} is not the name of an interface", escape(name));
        return Err(vec![Wrong::new("interface", message, "`ip link` shows their names")]);
    }
    Ok(Settings { interface: name.to_owned() })
}

/// Looks once.
#[must_use]
pub fn look(settings: &Settings, past: Option<Past>, now: Now) -> (Observation, Option<Past>) {
    let base = Path::new("/sys/class/net");
    if !base.is_dir() {
        return (Observation::unknown("failed to look at /sys/class/net: is sysfs mounted?"), past);
    }
    look_in(&base.join(&settings.interface), &settings.interface, past, now.mono)
}

fn look_in(dir: &Path, name: &str, past: Option<Past>, now: Mono) -> (Observation, Option<Past>) {
    if let Err(error) = std::fs::metadata(dir) {
        if error.kind() != std::io::ErrorKind::NotFound {
            let why = format!("failed to look at interface {name}: {error}");
            return (Observation::unknown(&why), past);
        }
        let mut seen = Observation::failed(&format!("there is no interface {name}"));
        seen.fingerprint = Some(fingerprint([]));
        return (seen, None);
    }
    let files = Of(dir.to_path_buf());
    let Some(counters) = files.counters(now) else {
        let why = format!("failed to read the counters of interface {name}");
        return (Observation::unknown(&why), past);
    };
    let link = files.link();
    let speed = files.number("speed").filter(|mbit| *mbit > 0);
    let mut seen = Observation::of(match &link {
        Link::Up => Outcome::Ok,
        Link::Down(why) => {
            Outcome::Failed(Untrusted::from(format!("interface {name} is down: {why}").as_str()))
        }
    });
    for (metric, value) in since(&counters, past.as_ref(), speed) {
        seen = seen.with(metric, value);
    }
    let speed = speed.map_or_else(|| "unknown speed".to_owned(), |mbit| format!("{mbit} Mbit/s"));
    let state = match link {
        Link::Up => format!("up, {speed}"),
        Link::Down(why) => format!("down, {why}"),
    };
    seen.fingerprint = Some(fingerprint([state.as_bytes()]));
    seen.detail = Untrusted::from(state.as_str());
    (seen, Some(counters))
}

/// Whether anything can go through.
#[derive(PartialEq, Eq, Debug)]
enum Link {
    Up,
    Down(String),
}

/// The files of one interface.
struct Of(PathBuf);

impl Of {
    fn text(&self, name: &str) -> Option<String> {
        kernel_file(self.0.join(name).to_str()?).ok().map(|text| text.trim().to_owned())
    }

    /// A number; `None` also where the kernel refuses to tell (EINVAL while it is down) or says -1.
    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    fn link(&self) -> Link {
        let flags = self.text("flags").unwrap_or_default();
        let flags = u64::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
        if flags & SET_UP == 0 {
            return Link::Down("it is not set up (`ip link set ... up`)".to_owned());
        }
        let carrier = self.number("carrier") == Some(1);
        match self.text("operstate").as_deref() {
            Some("up") => Link::Up,
            Some("unknown") | None if carrier => Link::Up,
            Some("down") if !carrier => Link::Down("no carrier: is the cable in?".to_owned()),
            Some(other) => Link::Down(format!("its state is {}", escape(other))),
            None => Link::Down("no carrier".to_owned()),
        }
    }

    fn counters(&self, at: Mono) -> Option<Past> {
        let number = |name: &str| self.number(&format!("statistics/{name}"));
        let bad = ["rx_errors", "tx_errors", "rx_dropped", "tx_dropped"];
        let errors = bad.into_iter().filter_map(number).fold(0u64, u64::saturating_add);
        Some(Past {
            at,
            index: self.number("ifindex")?,
            received_bytes: number("rx_bytes")?,
            sent_bytes: number("tx_bytes")?,
            errors,
        })
    }
}

fn since(now: &Past, before: Option<&Past>, speed_mbit: Option<u64>) -> Vec<(Metric, Value)> {
    let Some(before) = before.filter(|before| before.index == now.index && before.at < now.at)
    else {
        return Vec::new();
    };
    let micros = now.at.since(before.at).as_micros().max(1);
    let per_second = |now: u64, before: u64| {
        let grown = now.checked_sub(before)?;
        Some(u64::try_from(u128::from(grown) * 1_000_000 / micros).unwrap_or(u64::MAX))
    };
    let received = per_second(now.received_bytes, before.received_bytes);
    let sent = per_second(now.sent_bytes, before.sent_bytes);
    // Bytes per second in thousandths of a percent of so many million bits per second.
    let saturation = speed_mbit.filter(|mbit| *mbit > 0).and_then(|mbit| {
        let busier = received?.max(sent?);
        let share = u128::from(busier) * 8 * 100_000 / (u128::from(mbit) * 1_000_000);
        u64::try_from(share).ok()
    });
    let errors = now.errors.checked_sub(before.errors);
    [
        (Metric::ReceiveRate, received.map(Value::Rate)),
        (Metric::SendRate, sent.map(Value::Rate)),
        (Metric::Errors, errors.map(Value::Count)),
        (Metric::Saturation, saturation.map(Value::Percent)),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some((metric, value?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn past(at_ms: u64, received: u64, sent: u64, errors: u64) -> Past {
        let at = Mono::from_nanos(at_ms * 1_000_000);
        Past { at, index: 2, received_bytes: received, sent_bytes: sent, errors }
    }

    #[test]
    fn rates_are_per_second_and_counters_that_shrank_give_none() {
        let (before, after) = (past(1000, 0, 0, 5), past(3000, 25_000_000, 5_000_000, 12));
        let seen = since(&after, Some(&before), Some(1000));
        assert_eq!(
            seen,
            [
                (Metric::ReceiveRate, Value::Rate(12_500_000)),
                (Metric::SendRate, Value::Rate(2_500_000)),
                (Metric::Errors, Value::Count(7)),
                (Metric::Saturation, Value::Percent(10_000)),
            ]
        );
        assert_eq!(since(&after, Some(&before), None).len(), 3, "a speed that nobody knows");
        assert_eq!(since(&after, None, Some(1000)), []);
        assert_eq!(since(&before, Some(&after), Some(1000)), [], "looks out of order");
        assert_eq!(since(&after, Some(&Past { index: 3, ..before }), Some(1000)), []);
        let wrapped = past(3000, 7, 5_000_000, 0);
        let seen = since(&wrapped, Some(&past(1000, 4_294_967_000, 0, 5)), Some(1000));
        assert_eq!(seen, [(Metric::SendRate, Value::Rate(2_500_000))]);
        let most = since(&past(1, u64::MAX, 0, 0), Some(&past(0, 0, 0, 0)), Some(1));
        assert_eq!(most[0].1, Value::Rate(u64::MAX));
    }

    /// A directory as /sys/class/net has them.
    fn interface(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("statistics")).expect("mkdir");
        let usual = [
            ("ifindex", "2"),
            ("statistics/rx_bytes", "1000"),
            ("statistics/tx_bytes", "2000"),
            ("statistics/rx_errors", "3"),
            ("statistics/tx_dropped", "4"),
        ];
        for (name, text) in usual.iter().chain(files) {
            fs::write(dir.path().join(name), format!("{text}\n")).expect("write");
        }
        dir
    }

    #[test]
    fn up_is_what_can_carry() {
        let link = |flags, operstate, carrier| {
            let dir =
                interface(&[("flags", flags), ("operstate", operstate), ("carrier", carrier)]);
            Of(dir.path().to_owned()).link()
        };
        assert_eq!(link("0x1003", "up", "1"), Link::Up);
        assert_eq!(link("0x9", "unknown", "1"), Link::Up);
        for (flags, operstate, carrier, why) in [
            ("0x1002", "down", "", "not set up"),
            ("0x1003", "down", "0", "cable"),
            ("0x1003", "lowerlayerdown", "0", "lowerlayerdown"),
            ("0x1003", "dormant", "1", "dormant"),
            ("0x1003", "unknown", "0", "unknown"),
            ("odd", "up", "1", "not set up"),
        ] {
            let Link::Down(words) = link(flags, operstate, carrier) else { panic!("{operstate}") };
            assert!(words.contains(why), "{words}");
        }
    }

    #[test]
    fn an_interface_is_read_whole_or_said_to_be_missing() {
        let dir = interface(&[
            ("flags", "0x1003"),
            ("operstate", "up"),
            ("carrier", "1"),
            ("speed", "-1"),
        ]);
        let at = |ms: u64| Mono::from_nanos(ms * 1_000_000);
        let (seen, past) = look_in(dir.path(), "eth9", None, at(0));
        assert_eq!((&seen.outcome, seen.metrics.len()), (&Outcome::Ok, 0));
        assert_eq!(past.map(|past| past.errors), Some(7));
        fs::write(dir.path().join("statistics/rx_bytes"), "3000\n").expect("write");
        let (seen, _) = look_in(dir.path(), "eth9", past, at(1000));
        let rate = seen.reading(&Metric::ReceiveRate).map(|reading| reading.value());
        assert_eq!(rate, Some(Value::Rate(2000)));
        assert_eq!(seen.reading(&Metric::Saturation), None);
        let (gone, past) = look_in(&dir.path().join("x"), "eth9", past, at(2000));
        assert_eq!(gone.outcome, Outcome::Failed("there is no interface eth9".into()));
        assert!(past.is_none() && gone.fingerprint != seen.fingerprint);
    }
}
