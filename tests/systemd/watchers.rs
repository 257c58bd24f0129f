//! Who watches the shop: its unit's own manager alone, Monit by the recipe that people have, or heeler.

use crate::host::Host;
use crate::shop::{APP, enable_shop, lay_heeler, lay_shop};
use crate::support::Need;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watcher {
    /// `Restart=always`, and nobody else.
    Systemd,
    /// Monit, every five seconds.
    Monit,
    /// heeler, with `unit =`.
    Heeler,
}

impl Watcher {
    pub(crate) const ALL: [Self; 3] = [Self::Systemd, Self::Monit, Self::Heeler];

    pub(crate) const MONIT: Need = Need::Program("/usr/bin/monit", "monit");

    /// Lays the shop down, its unit enabled or not, and who watches it.
    pub(crate) fn lay(self, host: &Host, unit: Unit, lines: &str) {
        lay_shop(host);
        match unit {
            Unit::Enabled => enable_shop(host),
            Unit::OnlyThere => {}
        }
        match self {
            Self::Systemd => {}
            Self::Monit => lay_monit(host),
            Self::Heeler => {
                let text = format!("user = \"deploy\"\nunit = \"puma\"\nevery = \"5s\"\n{lines}");
                lay_heeler(host, &[("shop", &text)]);
            }
        }
    }

    /// How an operator says a word about the shop.
    pub(crate) fn order(self, host: &Host, word: &str) {
        match self {
            Self::Systemd => {
                host.deploy(&format!("systemctl --user {word} puma"));
            }
            Self::Monit => {
                host.shell(&format!("monit -c /etc/monit/shop.conf {word} shop"));
            }
            Self::Heeler => {
                host.shell(&format!("heeler {word} shop"));
            }
        }
    }
}

/// Whether the shop's unit comes up with its manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Enabled,
    OnlyThere,
}

fn lay_monit(host: &Host) {
    let systemctl = |word: &str| {
        let call = "XDG_RUNTIME_DIR=/run/user/$(id -u) /usr/bin/systemctl --user";
        format!("\"/bin/bash -c '{call} {word} puma'\" as uid \"deploy\" and gid \"deploy\"")
    };
    let text = format!(
        "set daemon 5\nset log /var/log/monit.log\nset pidfile /run/monit.pid\n\
         set idfile /var/lib/monit.id\nset statefile /var/lib/monit.state\n\
         set httpd unixsocket /run/monit.sock allow monit:monit\n\
         check process shop with pidfile {APP}/shared/pids/puma.pid\n  \
           start program = {}\n  stop program = {}\n",
        systemctl("start"),
        systemctl("stop"),
    );
    host.write_private("/etc/monit/shop.conf", &text);
    let unit = "[Service]\nExecStart=/usr/bin/monit -I -c /etc/monit/shop.conf\n\
                KillMode=process\nRestart=always\n";
    host.write("/etc/systemd/system/monit.service", unit);
    host.link("../monit.service", "/etc/systemd/system/multi-user.target.wants/monit.service");
}
