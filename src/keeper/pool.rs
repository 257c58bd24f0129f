//! A pool for reads that may block for ever: pidfiles on a dead NFS, /proc files that take the target's
//! memory lock. Threads come when needed and go when idle. A few do the work of all; where they are
//! stuck, whatever waits behind them gets threads of its own, up to a bound that only hundreds of
//! stuck services reach (each has one task of a kind at a time: its caller sees to that).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::model::limits;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);
/// How long a task waits before the threads at work count as stuck.
const STUCK: Duration = Duration::from_millis(50);
/// Enough for reading files of /proc and matching titles; hundreds of threads may be stuck at once.
const STACK_BYTES: usize = 512 << 10;

type Task<T> = Box<dyn FnOnce() -> T + Send>;

/// The pool. Results go to the loop's channel, in no order.
pub(super) struct Pool<T> {
    shared: Arc<Shared<T>>,
    done: UnboundedSender<T>,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    work: Condvar,
}

struct Queue<T> {
    /// With the moment each came.
    tasks: VecDeque<(Instant, Task<T>)>,
    threads: usize,
    idle: usize,
}

impl<T: Send + 'static> Pool<T> {
    pub(super) fn new(done: UnboundedSender<T>) -> Self {
        let queue = Queue { tasks: VecDeque::new(), threads: 0, idle: 0 };
        Self { shared: Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new() }), done }
    }

    /// Queues a task. A task that panics gives no result: the caller has a deadline for that.
    pub(super) fn submit(&self, task: impl FnOnce() -> T + Send + 'static) {
        let mut queue = lock(&self.shared);
        queue.tasks.push_back((Instant::now(), Box::new(task)));
        if queue.idle < queue.tasks.len() && queue.threads < limits::FILE_POOL_THREADS {
            self.add_thread(&mut queue);
        }
        drop(queue);
        self.shared.work.notify_one();
    }

    /// When [`Self::relieve`] is due, if anything waits.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        let queue = lock(&self.shared);
        let full = queue.threads >= limits::FILE_POOL_STUCK_THREADS;
        queue.tasks.front().filter(|_| !full).map(|(since, _)| *since + STUCK)
    }

    /// Gives threads to what has waited too long behind stuck ones.
    pub(super) fn relieve(&self, now: Instant) {
        let mut queue = lock(&self.shared);
        let waiting = queue.tasks.iter().take_while(|(since, _)| now >= *since + STUCK).count();
        let room = limits::FILE_POOL_STUCK_THREADS.saturating_sub(queue.threads);
        for _ in 0..waiting.saturating_sub(queue.idle).min(room) {
            self.add_thread(&mut queue);
        }
        // Those that just came count as waiting anew: a thread that could not be made is asked for again
        // later, not at once.
        for (since, _) in queue.tasks.iter_mut().take(waiting) {
            *since = now;
        }
    }

    fn add_thread(&self, queue: &mut Queue<T>) {
        let shared = Arc::clone(&self.shared);
        let done = self.done.clone();
        // A thread that cannot be made is heeler's own trouble: the task waits, its deadline says so.
        let made = std::thread::Builder::new()
            .name("heeler-files".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || serve(&shared, &done));
        queue.threads += usize::from(made.is_ok());
    }
}

fn serve<T>(shared: &Shared<T>, done: &UnboundedSender<T>) {
    let mut queue = lock(shared);
    loop {
        if let Some((_, task)) = queue.tasks.pop_front() {
            drop(queue);
            if let Ok(result) = catch_unwind(AssertUnwindSafe(task))
                && done.send(result).is_err()
            {
                return;
            }
            queue = lock(shared);
            continue;
        }
        queue.idle += 1;
        let waited = shared.work.wait_timeout(queue, IDLE);
        let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        queue = woken;
        queue.idle -= 1;
        if timeout.timed_out() && queue.tasks.is_empty() {
            queue.threads -= 1;
            return;
        }
    }
}

/// No code panics while it holds the lock, so a poisoned one is as good.
fn lock<T>(shared: &Shared<T>) -> std::sync::MutexGuard<'_, Queue<T>> {
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRA-11, for what the keeper's own pool looks at.
    #[test]
    fn stuck_and_panicking_tasks_hold_up_nobody_else() {
        let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
        let pool = Pool::new(done);
        let (release, stuck) = std::sync::mpsc::channel::<()>();
        for _ in 1..limits::FILE_POOL_THREADS {
            pool.submit(|| panic!("a check went wrong (part of the test)"));
        }
        pool.submit(move || {
            let _released = stuck.recv();
            0
        });
        for n in 1..=100 {
            pool.submit(move || n);
        }
        let sum: i32 = (0..100).map(|_| results.blocking_recv().expect("comes")).sum();
        assert_eq!(sum, 5050);
        drop(release);
        assert_eq!(results.blocking_recv(), Some(0));
    }

    #[test]
    fn what_waits_behind_stuck_threads_gets_its_own() {
        let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
        let pool = Pool::new(done);
        assert_eq!(pool.wakeup(), None);
        let (release, stuck) = std::sync::mpsc::channel::<()>();
        let stuck = Arc::new(Mutex::new(stuck));
        let hang = |stuck: &Arc<Mutex<std::sync::mpsc::Receiver<()>>>| {
            let stuck = Arc::clone(stuck);
            move || {
                let _released = stuck.lock().map(|stuck| stuck.recv());
                0
            }
        };
        for _ in 0..3 * limits::FILE_POOL_THREADS {
            pool.submit(hang(&stuck));
        }
        pool.submit(|| 1);
        // As the loop does.
        let result = loop {
            if let Ok(result) = results.try_recv() {
                break result;
            }
            if let Some(due) = pool.wakeup() {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                pool.relieve(Instant::now());
            }
        };
        assert_eq!(result, 1);
        drop(release);
    }
}
