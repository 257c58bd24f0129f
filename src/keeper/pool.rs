//! A small capped pool for reads that may block for ever: pidfiles on a dead NFS, /proc files that take
//! the target's memory lock. Threads come when needed and go when idle. What hangs costs its own service
//! only: a thread stuck past its deadline is replaced, and a service has one stuck thread at most.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::model::ids::ServiceName;
use crate::model::limits;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);

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
    tasks: VecDeque<(Option<ServiceName>, Task<T>)>,
    threads: usize,
    idle: usize,
    /// What runs, for whom and since when, by a number of its own.
    running: BTreeMap<u64, (Option<ServiceName>, Instant)>,
    next: u64,
}

/// An earlier task of the same service hangs: another one would hang beside it.
#[derive(Debug)]
pub(super) struct Stuck;

impl<T: Send + 'static> Pool<T> {
    pub(super) fn new(done: UnboundedSender<T>) -> Self {
        let queue = Queue {
            tasks: VecDeque::new(),
            threads: 0,
            idle: 0,
            running: BTreeMap::new(),
            next: 0,
        };
        Self { shared: Arc::new(Shared { queue: Mutex::new(queue), work: Condvar::new() }), done }
    }

    /// Queues a task of a service. A task that panics gives no result: the caller has a deadline for
    /// that.
    ///
    /// # Errors
    /// When an earlier task of this service hangs; this one is dropped then.
    pub(super) fn submit(
        &self,
        service: Option<&ServiceName>,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(), Stuck> {
        let mut queue = lock(&self.shared);
        let mut stuck = queue.running.values().filter(|(_, since)| hangs(since));
        if service.is_some() && stuck.any(|(whose, _)| whose.as_ref() == service) {
            return Err(Stuck);
        }
        queue.tasks.push_back((service.cloned(), Box::new(task)));
        self.grow(&mut queue);
        drop(queue);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Puts threads in the place of those that hang, where tasks wait for one. To be called when
    /// [`Pool::wakeup`] says so.
    pub(super) fn relieve(&self) {
        self.grow(&mut lock(&self.shared));
    }

    /// When the next thread will count as hanging, while tasks wait.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        let queue = lock(&self.shared);
        let waiting = !queue.tasks.is_empty() && queue.threads < limits::FILE_POOL_THREADS_MAX;
        let running = queue.running.values().filter(|(_, since)| !hangs(since));
        let first = running.map(|(_, since)| *since + limits::FILE_POOL_DEADLINE).min();
        // Threads that were just made run nothing yet.
        waiting.then(|| first.unwrap_or_else(|| Instant::now() + limits::FILE_POOL_DEADLINE))
    }

    fn grow(&self, queue: &mut Queue<T>) {
        let stuck = queue.running.values().filter(|(_, since)| hangs(since)).count();
        let most = (limits::FILE_POOL_THREADS + stuck).min(limits::FILE_POOL_THREADS_MAX);
        if queue.idle < queue.tasks.len() && queue.threads < most {
            let shared = Arc::clone(&self.shared);
            let done = self.done.clone();
            // A thread that cannot be made is heeler's own trouble: the task waits, its deadline says so.
            let made = std::thread::Builder::new()
                .name("heeler-files".to_owned())
                .spawn(move || serve(&shared, &done));
            queue.threads += usize::from(made.is_ok());
        }
    }
}

fn hangs(since: &Instant) -> bool {
    since.elapsed() >= limits::FILE_POOL_DEADLINE
}

fn serve<T>(shared: &Shared<T>, done: &UnboundedSender<T>) {
    let mut queue = lock(shared);
    loop {
        if let Some((whose, task)) = queue.tasks.pop_front() {
            queue.next += 1;
            let number = queue.next;
            queue.running.insert(number, (whose, Instant::now()));
            drop(queue);
            let result = catch_unwind(AssertUnwindSafe(task));
            queue = lock(shared);
            queue.running.remove(&number);
            if let Ok(result) = result
                && done.send(result).is_err()
            {
                return;
            }
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

    #[test]
    fn stuck_and_panicking_tasks_hold_up_nobody_else() {
        let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
        let pool = Pool::new(done);
        let (release, stuck) = std::sync::mpsc::channel::<()>();
        for _ in 1..limits::FILE_POOL_THREADS {
            pool.submit(None, || panic!("a check went wrong (part of the test)")).expect("taken");
        }
        pool.submit(None, move || {
            let _released = stuck.recv();
            0
        })
        .expect("taken");
        for n in 1..=100 {
            pool.submit(None, move || n).expect("taken");
        }
        let sum: i32 = (0..100).map(|_| results.blocking_recv().expect("comes")).sum();
        assert_eq!(sum, 5050);
        drop(release);
        assert_eq!(results.blocking_recv(), Some(0));
    }

    #[test]
    fn threads_that_hang_are_replaced_and_their_services_get_no_more() {
        let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
        let pool = Pool::new(done);
        let name = |n: usize| ServiceName::parse(&format!("s{n}")).expect("a name");
        let mut releases = Vec::new();
        for n in 0..limits::FILE_POOL_THREADS {
            let (release, stuck) = std::sync::mpsc::channel::<()>();
            releases.push(release);
            pool.submit(Some(&name(n)), move || stuck.recv().map_or(0, |()| 0)).expect("taken");
        }
        pool.submit(Some(&name(98)), || 5).expect("taken");
        let wakeup = pool.wakeup().expect("a task waits for threads that may hang");
        std::thread::sleep(wakeup.saturating_duration_since(Instant::now()));
        pool.relieve();
        assert_eq!(results.blocking_recv(), Some(5));
        let deadline = Instant::now() + 4 * limits::FILE_POOL_DEADLINE;
        while pool.submit(Some(&name(0)), || 1).is_ok() {
            assert!(Instant::now() < deadline, "nobody noticed that it hangs");
            std::thread::sleep(Duration::from_millis(50));
        }
        pool.submit(Some(&name(99)), || 7).expect("taken");
        let mut others = std::iter::from_fn(|| results.blocking_recv());
        assert!(others.any(|result| result == 7));
        drop(releases);
    }
}
