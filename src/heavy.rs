//! Threads for work that keeps a processor busy for milliseconds. They give way to all other threads.
//!
//! On the threads that serve requests each such piece of work would delay the requests behind it.

use std::sync::LazyLock;

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinError,
};

/// The number of threads. More pieces of work wait in line.
const THREADS: usize = 2;
/// The niceness of the threads. With it they get a tenth of a processor that others want as a whole.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A runtime of which only the threads for blocking work are used.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(THREADS).thread_name("heavy").on_thread_start(give_way);
    builder.build().expect("a runtime without drivers asks the system for nothing")
});

/// Runs a piece of work on these threads.
///
/// # Errors
/// The panic of the work.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    RUNTIME.spawn_blocking(work).await
}

fn give_way() {
    // On other systems a thread has no niceness of its own.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the priority of a thread could not be lowered");
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn work_is_done_elsewhere_and_a_panic_of_it_is_an_error() {
        let here = std::thread::current().id();
        assert_ne!(super::run(|| std::thread::current().id()).await.unwrap(), here);
        assert!(super::run(|| panic!("on purpose")).await.is_err());
        assert_eq!(super::run(|| 1).await.unwrap(), 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_give_way_and_no_other() {
        let niceness = || rustix::process::nice(0).unwrap();
        let (there, here) = (super::run(niceness).await.unwrap(), niceness());
        assert_eq!(there - here, super::NICENESS.min(19 - here));
    }
}
