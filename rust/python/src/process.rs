//! What concerns the process as a whole: self-tests, secret memory, measurements.

use pqc_iiot_core::{measure as core_measure, memory, selftest};
use pyo3::prelude::*;

use crate::error::{raised, ready, Int};

/// The operations that `measure` knows.
#[pyfunction]
pub fn operations() -> Vec<&'static str> {
    core_measure::OPERATIONS.to_vec()
}

/// Runs the self-tests if they have not run yet; raises if one failed, then or now.
#[pyfunction]
pub fn self_test() -> PyResult<()> {
    ready()
}

/// Refuses every operation of this process from now on.
#[pyfunction]
pub fn fail_closed() {
    selftest::fail();
}

/// Secret memory of this process: bytes locked, bytes that could not be locked, and how
/// often locking was refused.
#[pyfunction]
pub fn memory_stats() -> (usize, usize, u64) {
    let stats = memory::stats();
    (stats.locked, stats.unlocked, stats.lock_failures)
}

/// Nanoseconds per call of a primitive inside the core: `samples` means over `calls`.
#[pyfunction]
pub fn measure(operation: &str, samples: Int<usize>, calls: Int<u32>) -> PyResult<Vec<f64>> {
    ready()?;
    core_measure::measure(operation, samples.0, calls.0).map_err(raised)
}
