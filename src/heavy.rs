//! Work that keeps a processor busy for milliseconds: a few threads of its own do it, and give way to all others.
//!
//! On the threads that serve everybody else each such piece of work would delay whoever comes behind it.

use std::sync::LazyLock;

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinError,
};

/// Pieces of work under way at once; the others wait in line.
const THREADS: usize = 2;
/// How far the threads give way: they get a tenth of a processor that others want as a whole.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Only its threads for blocking work are used.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(THREADS).thread_name("heavy").on_thread_start(give_way);
    builder.build().expect("a runtime without drivers asks the system for nothing")
});

/// Does some work there.
///
/// # Errors
/// It panicked.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    RUNTIME.spawn_blocking(work).await
}

fn give_way() {
    // Elsewhere it is the niceness of the whole process.
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
