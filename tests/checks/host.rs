//! `type = "host"`, in networks made for it: who may ping is a setting of each network namespace.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use heeler::checks::connect::Tools;
use heeler::checks::given::Setting;
use heeler::model::check::CheckKind;
use heeler::model::metric::{Metric, Reading, Value};
use heeler::model::observation::{Observation, Outcome};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, socket};
use tokio::task::JoinSet;

use crate::port::{defined, failed, in_own_network, network_needs, probed, text, unknown};

const ALLOWED: &str = "echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range";
const LIMIT: Duration = Duration::from_secs(5);

fn ping(host: &str, count: u64) -> Observation {
    let interval = Setting::Duration(Duration::from_millis(20));
    let keys = [("host", text(host)), ("count", Setting::Number(count)), ("interval", interval)];
    probed(&defined(CheckKind::Host, &keys), LIMIT)
}

fn loss(seen: &Observation) -> Option<Reading> {
    seen.reading(&Metric::Loss)
}

const ALL: Option<Reading> = Some(Reading::Exact(Value::Percent(100_000)));
const NONE: Option<Reading> = Some(Reading::Exact(Value::Percent(0)));

#[test]
fn both_families_answer_on_loopback() {
    if !network_needs() {
        return;
    }
    in_own_network(ALLOWED, || {
        for host in ["127.0.0.1", "::1", "0.0.0.0", "127.9.9.9"] {
            let began = Instant::now();
            let seen = ping(host, 3);
            assert_eq!(
                (seen.outcome.clone(), loss(&seen)),
                (Outcome::Ok, NONE),
                "{host}: {seen:?}"
            );
            assert_eq!(seen.detail.to_string(), "3 of 3 echo requests answered");
            let Some(Reading::Exact(Value::Duration(took))) = seen.reading(&Metric::ResponseTime)
            else {
                panic!("no response_time: {seen:?}");
            };
            assert!(took < Duration::from_millis(500), "{took:?}");
            // It ends with the last reply, not with its patience.
            assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        }
    });
}

#[test]
fn two_probes_at_once_do_not_take_each_others_replies() {
    if !network_needs() {
        return;
    }
    in_own_network(ALLOWED, || {
        let interval = Setting::Duration(Duration::from_millis(10));
        let count = Setting::Number(20);
        let keys = [("host", text("127.0.0.1")), ("count", count), ("interval", interval)];
        let check = Arc::new(defined(CheckKind::Host, &keys));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let one = || {
                let check = Arc::clone(&check);
                async move { check.probe(&Tools::default()).await }
            };
            let mut probes: JoinSet<_> = (0..8).map(|_| one()).collect();
            while let Some(seen) = probes.join_next().await {
                assert_eq!(loss(&seen.expect("no panic")), NONE);
            }
        });
    });
}

/// NET-18 for ping: silence, a firewall's word, no route, each told apart.
#[test]
fn net_18_lost_unreachable_and_without_a_route_are_told_apart() {
    if !network_needs() {
        return;
    }
    const RULES: &str = "
        echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
        ip route add unreachable 192.0.2.1
        nft -f - <<'END'
        table inet f {
          chain input {
            type filter hook input priority 0;
            ip daddr 127.0.0.2 icmp type echo-request drop
            ip daddr 127.0.0.3 icmp type echo-request reject with icmp type admin-prohibited
            ip daddr 127.0.0.4 icmp type echo-request numgen inc mod 4 != 0 drop
          }
        }
END";
    in_own_network(RULES, || {
        let dropped = ping("127.0.0.2", 3);
        assert_eq!(failed(&dropped), "none of 3 echo requests to 127.0.0.2 was answered");
        assert_eq!((loss(&dropped), dropped.reading(&Metric::ResponseTime)), (ALL, None));
        let rejected = ping("127.0.0.3", 3);
        assert!(failed(&rejected).contains("it is unreachable"), "{rejected:?}");
        assert_eq!(loss(&rejected), ALL);
        let unreachable = ping("192.0.2.1", 3);
        assert!(failed(&unreachable).contains("it is unreachable"), "{unreachable:?}");
        let nowhere = ping("192.0.2.2", 3);
        assert!(unknown(&nowhere).contains("this machine has no route there"), "{nowhere:?}");
        assert_eq!(loss(&nowhere), None);
        // One in four comes through.
        let lossy = ping("127.0.0.4", 4);
        assert_eq!(lossy.outcome, Outcome::Ok);
        assert_eq!(loss(&lossy), Some(Reading::Exact(Value::Percent(75_000))));
        assert!(lossy.reading(&Metric::ResponseTime).is_some());
    });
}

#[test]
fn what_the_kernel_does_not_allow_is_unknown_with_what_to_set() {
    if !network_needs() {
        return;
    }
    in_own_network("echo '1 0' >/proc/sys/net/ipv4/ping_group_range", || {
        for host in ["127.0.0.1", "::1"] {
            let seen = ping(host, 1);
            let hint = "allow it by sysctl net.ipv4.ping_group_range=\"0 2147483647\"";
            assert!(unknown(&seen).ends_with(hint), "{seen:?}");
            assert_eq!(loss(&seen), None);
        }
    });
}

/// The kernel leaves the answer to a stranger, who lies about one thing in each.
#[test]
fn forged_replies_count_for_nothing() {
    if !network_needs() {
        return;
    }
    const SILENT: &str = "
        echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
        echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all";
    in_own_network(SILENT, || {
        let open = |address: &str| {
            let (family, flags) = (AddressFamily::Inet, SockFlag::empty());
            let raw = socket(family, SockType::Raw, flags, SockProtocol::Icmp).expect("root");
            let raw = UdpSocket::from(raw);
            let address: SocketAddrV4 = format!("{address}:0").parse().expect("an address");
            let address = SockaddrIn::from(address);
            nix::sys::socket::bind(raw.as_raw_fd(), &address).expect("an own address");
            raw
        };
        let (host, other) = (open("127.0.0.2"), open("127.0.0.3"));
        thread::spawn(move || {
            let mut packet = [0; 256];
            while let Ok((length, from)) = host.recv_from(&mut packet) {
                // Behind the IP header, which has no options here; only requests.
                let request = &packet[20..length];
                if request[0] != 8 {
                    continue;
                }
                let reply = |place: usize, byte: u8| {
                    let mut reply = request.to_vec();
                    (reply[0], reply[2], reply[3]) = (0, 0, 0);
                    reply[place] ^= byte;
                    let sum = checksum(&reply);
                    reply[2..4].copy_from_slice(&sum.to_be_bytes());
                    reply
                };
                // A code, a number that was not sent, bytes of the request, too few and too many of them.
                let mut lies =
                    [(1, 1), (6, 1), (8, 1), (23, 1)].map(|(at, bit)| reply(at, bit)).to_vec();
                let (mut short, mut long) = (request[..20].to_vec(), request.to_vec());
                long.push(0);
                for lie in [&mut short, &mut long] {
                    (lie[0], lie[2], lie[3]) = (0, 0, 0);
                    let sum = checksum(lie);
                    lie[2..4].copy_from_slice(&sum.to_be_bytes());
                }
                lies.extend([short, long]);
                for lie in lies {
                    host.send_to(&lie, from).expect("sent");
                }
                other.send_to(&reply(0, 0), from).expect("sent");
                // Only the second request is answered in truth, and twice.
                if request[7] == 1 {
                    host.send_to(&reply(0, 0), from).expect("sent");
                    host.send_to(&reply(0, 0), from).expect("sent");
                }
            }
        });
        let seen = ping("127.0.0.2", 1);
        assert_eq!(failed(&seen), "none of 1 echo requests to 127.0.0.2 was answered");
        let seen = ping("127.0.0.2", 2);
        assert_eq!(seen.outcome, Outcome::Ok);
        assert_eq!(loss(&seen), Some(Reading::Exact(Value::Percent(50_000))));
    });
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
