//! /proc/PID/net/dev (proc_pid_net(5)).

use coracle_cri_api::runtime_v1::NetworkInterfaceUsage;

use super::value;

/// Every interface but `lo`.
pub(super) fn parse(text: &str) -> Vec<NetworkInterfaceUsage> {
    // Two lines of headings.
    text.lines()
        .skip(2)
        .filter_map(interface)
        .filter(|interface| interface.name != "lo")
        .collect()
}

/// `name: bytes packets errs drop fifo frame compressed multicast  bytes packets errs ...`: received, then sent.
fn interface(line: &str) -> Option<NetworkInterfaceUsage> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map(|number| number.parse().unwrap_or(0))
        .collect();
    let number = |index: usize| numbers.get(index).copied().and_then(value);
    Some(NetworkInterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes: number(0),
        rx_errors: number(2),
        tx_bytes: number(8),
        tx_errors: number(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_column() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
                    lo:  10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n\
                    eth0: 1234 5 6 7 0 0 0 0 4321 8 9 0 0 0 0 0\n";
        let all = parse(text);
        assert_eq!(all.len(), 1);
        let numbers = [
            &all[0].rx_bytes,
            &all[0].rx_errors,
            &all[0].tx_bytes,
            &all[0].tx_errors,
        ];
        assert_eq!(
            numbers.map(|number| number.as_ref().unwrap().value),
            [1234, 6, 4321, 9]
        );
    }
}
