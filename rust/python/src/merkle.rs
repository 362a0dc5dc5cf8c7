//! Merkle trees and the audit log's chain, for `pqc_iiot.audit`.

use pqc_iiot_core::merkle;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{raised, Int};

/// Whoever hashes less does not let others in meanwhile.
const SLOW: usize = 64 * 1024;

/// The hash of the tree over these hashes.
#[pyfunction]
pub fn merkle_root<'py>(py: Python<'py>, hashes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    merkle::root(hashes).map(|root| PyBytes::new(py, &root)).map_err(raised)
}

/// The lines that follow a record in its chain: their length in all, and their leaf hashes.
#[pyfunction]
pub fn merkle_follow<'py>(
    py: Python<'py>,
    log: &[u8],
    sequence: Int<u64>,
    last: &[u8],
) -> PyResult<(usize, Bound<'py, PyBytes>)> {
    let followed = if log.len() < SLOW {
        merkle::follow(log, sequence.0, last)
    } else {
        py.detach(|| merkle::follow(log, sequence.0, last))
    };
    followed.map(|(end, hashes)| (end, PyBytes::new(py, &hashes))).map_err(raised)
}
