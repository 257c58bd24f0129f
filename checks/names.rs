//! Names being resolved: each once at a time, and not too many.
//!
//! getaddrinfo(3) cannot be called off: whoever waits for it may go, its thread stays for as long as the
//! name server hangs. So a name costs one thread, however many probes ask for it and however often.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::checks::connect::locked;

/// Names being resolved at once: less than the threads the scout has for that.
const NAMES_MAX: usize = 48;

/// Names being resolved, each once. A name is in it for as long as somebody looks it up.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<HashMap<String, watch::Receiver<Option<Found>>>>>);

/// The addresses of a name, or why there are none.
pub(super) type Found = Result<Vec<IpAddr>, String>;

impl Names {
    /// The look-up is a task of its own: it belongs to no asker, so one that is cancelled leaves neither
    /// the others nor the name behind.
    pub(super) async fn resolve(
        &self,
        host: &str,
        look_up: impl Future<Output = Found> + Send + 'static,
    ) -> Found {
        let mut answer = {
            let mut names = locked(&self.0);
            match names.get(host) {
                Some(answer) => answer.clone(),
                None if names.len() >= NAMES_MAX => {
                    return Err(format!(
                        "{NAMES_MAX} other names wait for their name servers; see /etc/resolv.conf"
                    ));
                }
                None => {
                    let (told, answer) = watch::channel(None);
                    names.insert(host.to_owned(), answer.clone());
                    let gone = Gone { names: self.clone(), host: host.to_owned() };
                    tokio::spawn(async move {
                        let found = look_up.await;
                        // Before it is told: who asks after that asks anew.
                        drop(gone);
                        let _nobody_waits = told.send(Some(found));
                    });
                    answer
                }
            }
        };
        let found = answer.wait_for(Option::is_some).await;
        let crashed = || Err("the look-up crashed: this is a bug of heeler".to_owned());
        found.map_or_else(|_| crashed(), |found| found.clone().unwrap_or_else(crashed))
    }
}

/// Takes a name out, however its look-up ended.
struct Gone {
    names: Names,
    host: String,
}

impl Drop for Gone {
    fn drop(&mut self) {
        locked(&self.names.0).remove(&self.host);
    }
}

/// The addresses that the machine's own resolver knows (getaddrinfo(3)), in its order.
pub(super) async fn look_up(host: String) -> Found {
    let found = tokio::net::lookup_host((host.as_str(), 0)).await;
    found.map(|found| found.map(|address| address.ip()).collect()).map_err(|error| {
        let text = error.to_string();
        text.trim_start_matches("failed to lookup address information: ").to_lowercase()
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test);
    }

    async fn never() -> Found {
        std::future::pending().await
    }

    #[test]
    fn an_asker_that_is_cancelled_leaves_the_others_and_no_name_behind() {
        run(async {
            let names = Names::default();
            let (go, wait) = tokio::sync::oneshot::channel::<()>();
            let look_up = async {
                wait.await.expect("it is told to go");
                Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
            };
            let first = timeout(Duration::from_millis(20), names.resolve("a", look_up)).await;
            assert!(first.is_err(), "the first asker's time was over");
            let others: JoinSet<_> = (0..9)
                .map(|_| {
                    let names = names.clone();
                    async move { names.resolve("a", never()).await }
                })
                .collect();
            go.send(()).expect("it is still being looked up");
            for found in others.join_all().await {
                assert_eq!(found, Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]));
            }
            assert!(locked(&names.0).is_empty());
            let anew = names.resolve("a", async { Ok(Vec::new()) }).await;
            assert_eq!(anew, Ok(Vec::new()), "nothing is kept");
        });
    }

    #[test]
    fn a_look_up_that_crashes_is_told_and_not_kept() {
        run(async {
            let names = Names::default();
            let told = names.resolve("a", async { panic!("on purpose") }).await;
            assert!(told.is_err_and(|why| why.contains("bug of heeler")));
            assert!(locked(&names.0).is_empty());
        });
    }

    #[test]
    fn names_that_hang_are_bounded_and_those_known_are_still_joined() {
        run(async {
            let names = Names::default();
            for number in 0..NAMES_MAX {
                let name = number.to_string();
                let ask = names.resolve(&name, never());
                assert!(timeout(Duration::from_millis(1), ask).await.is_err());
            }
            let past = names.resolve("one more", async { Ok(Vec::new()) }).await;
            assert!(past.is_err_and(|why| why.contains("48 other names wait")));
            let joined = timeout(Duration::from_millis(1), names.resolve("0", never())).await;
            assert!(joined.is_err(), "it waits with the first asker");
        });
    }
}
