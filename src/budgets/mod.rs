//! Budgets that refill by themselves, by the generic cell rate algorithm: one instant for each caller.
//!
//! A module of its own below storage, because the writer charges budgets too. Which budgets there are, and what a unit
//! of each stands for, is in `service/limits`.

mod budget;
mod limit;

pub use budget::{Budget, Budgets, Rate};
pub use limit::{CallerLimit, FanOutBudgets, Limit, refusal};
