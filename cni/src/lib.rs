//! The CNI protocol, both ends: configurations, results, errors, and the caller.
