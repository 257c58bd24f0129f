//! The one alarm clock of a loop: a timerfd (timerfd_create(2)) that wakes it once, when it is due.
//!
//! tokio's own timers wake the loop on the way to a deadline, too (its wheel has levels), and once more for
//! each new one: for a loop that mostly sleeps those wake-ups are most of what it costs.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Deadlines nearer to each other than this are one.
const SAME: Duration = Duration::from_micros(200);

/// An alarm clock.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Timer>,
    /// What it is set to, until it has rung.
    set_to: Option<Instant>,
}

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        use std::os::fd::AsFd;
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// One that is not set; to be called inside a runtime.
    ///
    /// # Errors
    /// When heeler is out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        // SAFETY: the descriptor belongs to the timer in here, is the same whenever asked for, and is
        // closed only with it, which the `AsyncFd` owns and takes off the runtime first.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Self { timer, set_to: None })
    }

    /// Sets it, whatever it was set to. One that is due already rings at once.
    ///
    /// # Errors
    /// As timerfd_settime(2): not for a time that can be.
    pub fn set(&mut self, at: Instant) -> io::Result<()> {
        let close = |old: Instant| old.max(at).duration_since(old.min(at)) < SAME;
        if self.set_to.is_some_and(close) {
            return Ok(());
        }
        // Zero would mean never.
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        self.timer.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
        self.set_to = Some(at);
        Ok(())
    }

    /// Waits until it rings.
    ///
    /// # Errors
    /// When the runtime is at its end.
    pub async fn rings(&mut self) -> io::Result<()> {
        self.timer.readable().await?.clear_ready();
        // What rang is read, so that only the next time it is set for counts.
        let mut expirations = [0; 8];
        let _none_left = nix::unistd::read(&self.timer.get_ref().0, &mut expirations);
        self.set_to = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_once_when_it_is_due_and_can_be_set_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut alarm = Alarm::new().expect("an alarm");
            let began = Instant::now();
            let ms = |ms| began + Duration::from_millis(ms);
            alarm.set(ms(5000)).expect("set");
            alarm.set(ms(30)).expect("sooner");
            alarm.rings().await.expect("rings");
            assert!(began.elapsed() >= Duration::from_millis(30));
            alarm.set(ms(60)).expect("set again");
            alarm.rings().await.expect("rings again");
            assert!(began.elapsed() >= Duration::from_millis(60));
            alarm.set(began).expect("a time that has passed");
            alarm.rings().await.expect("at once");
            alarm.set(ms(10_000)).expect("later");
            let never = tokio::time::timeout(Duration::from_millis(50), alarm.rings()).await;
            assert!(never.is_err(), "it rang before it was due");
        });
    }
}
