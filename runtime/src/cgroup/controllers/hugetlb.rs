//! `linux.resources.hugepageLimits`: usage and reservations of huge pages, by page size.
//!
//! On hybrid hosts this is the one controller that may sit on the cgroup2 mount; its files have other names there.

use oci_spec::runtime::LinuxHugepageLimit;

use crate::cgroup::SetupError;
use crate::cgroup::setting::{IfMissing, Setting, Settings, Step};

pub(in crate::cgroup) const FIELD: &str = "linux.resources.hugepageLimits";

pub(in crate::cgroup) fn v1(pages: &[LinuxHugepageLimit], settings: &mut Settings) -> Result<(), SetupError> {
    for page in pages {
        let size = page.page_size();
        if !is_page_size(size) {
            let reason = "pageSize is a number with KB, MB or GB";
            return Err(SetupError::Value {
                field: FIELD,
                value: size.clone(),
                reason,
            });
        }
        // The field is unsigned in the specification and signed in the parser: beyond its range means no limit.
        let limit = u64::try_from(page.limit()).unwrap_or(u64::MAX);
        let v1 = format!("hugetlb.{size}.limit_in_bytes");
        let usage = Setting::new("hugetlb", FIELD, &v1, limit).or(&format!("hugetlb.{size}.max"));
        let v1 = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        let reserved = Setting::new("hugetlb", FIELD, &v1, limit).or(&format!("hugetlb.{size}.rsvd.max"));
        settings.steps.push(Step::Set(usage));
        // Since 5.7; the usage limit is what older kernels have.
        settings.steps.push(Step::Set(Setting {
            if_missing: IfMissing::Warn,
            ..reserved
        }));
    }
    Ok(())
}

fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|n| n > 0) && !number.starts_with(['+', '0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_checked() {
        for good in ["2MB", "1GB", "64KB"] {
            assert!(is_page_size(good), "{good}");
        }
        for bad in ["2M", "MB", "0MB", "../2MB", "2 MB", "+2MB"] {
            assert!(!is_page_size(bad), "{bad}");
        }
    }
}
