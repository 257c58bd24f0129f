//! What a host of the seed story has: the shop, a Puma of deploy's as a unit of deploy's own manager, and
//! heeler as a service.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::host::Host;
use crate::support::house::PATIENCE;
use crate::support::wait_for;

/// Where the application is.
pub(crate) const APP: &str = "/home/deploy/apps/shop";

/// What the application says of itself, by the host's own numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Up {
    pub(crate) worker: u32,
    pub(crate) master: u32,
}

/// Lays the application down as Capistrano does, and its unit; nothing is enabled.
pub(crate) fn lay_shop(host: &Host) {
    let config = include_str!("../puma/app/puma.rb");
    for (name, text) in [
        ("releases/1/config.ru", include_str!("../puma/app/config.ru")),
        ("releases/1/config/puma.rb", config),
        ("shared/log/puma.log", ""),
        ("shared/pids/.keep", ""),
    ] {
        host.write_deploys(&format!("{APP}/{name}"), text);
    }
    host.link("releases/1", &format!("{APP}/current"));
    let unit = "/home/deploy/.config/systemd/user/puma.service";
    host.write_deploys(unit, include_str!("puma.service"));
}

/// Lets the manager start the shop by itself when it comes up.
pub(crate) fn enable_shop(host: &Host) {
    let wants = "/home/deploy/.config/systemd/user/default.target.wants/puma.service";
    host.write_deploys(&format!("{wants}.made"), "");
    host.link("../puma.service", wants);
}

/// Installs heeler as a service, as it is shipped, with these services to watch, each a name and its text.
pub(crate) fn lay_heeler(host: &Host, services: &[(&str, &str)]) {
    host.write(
        "/etc/systemd/system/heeler.service",
        include_str!("../../conf.d/examples/heeler.service"),
    );
    host.link("../heeler.service", "/etc/systemd/system/multi-user.target.wants/heeler.service");
    host.write("/etc/heeler/conf.d/heeler.toml", "");
    for (name, text) in services {
        host.write(&format!("/etc/heeler/conf.d/{name}.toml"), text);
    }
}

/// The status of one service, as JSON; null while heeler cannot be asked.
pub(crate) fn status(host: &Host, name: &str) -> serde_json::Value {
    let (_, out, _) = host.heeler(&["status", "--json", name]);
    let all: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
    all["services"][0].clone()
}

/// Waits until heeler holds a main process other than `not`; its pid.
pub(crate) fn wait_held(host: &Host, name: &str, not: Option<u32>) -> u32 {
    wait_for(&format!("heeler to hold {name}"), PATIENCE, || {
        let pid = u32::try_from(status(host, name)["pid"].as_u64()?).ok()?;
        (Some(pid) != not).then_some(pid)
    })
}

/// Waits until a master other than `not` serves.
pub(crate) fn wait_serving(host: &Host, not: Option<u32>, limit: Duration) -> Up {
    wait_for("the shop to serve", limit, || up(host).filter(|up| Some(up.master) != not))
}

/// Who serves now. An orphan, which serves on for a moment after its master's death, does not count.
pub(crate) fn up(host: &Host) -> Option<Up> {
    let said: serde_json::Value = serde_json::from_str(&get(host, "/up")?).ok()?;
    let pid = |name: &str| u32::try_from(said[name].as_u64()?).ok();
    let up = Up { worker: pid("pid")?, master: pid("master")? };
    host.read(&format!("/proc/{}/cmdline", up.master)).starts_with("puma 5").then_some(up)
}

/// Asks the application; the body of a good answer that came within half a second.
pub(crate) fn get(host: &Host, path: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: shop\r\n\r\n");
    host.in_its_network(|| {
        let limit = Duration::from_millis(500);
        let address = SocketAddr::from(([127, 0, 0, 1], 9292));
        let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).is_some_and(|code| code == "200").then(|| body.to_owned())
    })
}
