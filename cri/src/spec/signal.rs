//! Stop signals: CRI's enumeration, an image's STOPSIGNAL, the kernel's numbers (signal(7), x86 and ARM).

use coracle_cri_api::runtime_v1::{ContainerConfig, Signal};

use super::PlanError;
use super::invalid;

const SIGTERM: i32 = 15;
/// As glibc and musl let programs use them: the first two or three of the kernel's are taken by threads.
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

const NUMBERS: [(&str, i32); 35] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", SIGTERM),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("UNUSED", 31),
];

/// The container's own, else the image's, else SIGTERM.
pub(super) fn plan(config: &ContainerConfig, of_image: Option<&str>) -> Result<i32, PlanError> {
    let asked = Signal::try_from(config.stop_signal).map_err(|_| {
        invalid(
            "config.stop_signal",
            &config.stop_signal.to_string(),
            "no such signal",
        )
    })?;
    match (asked, of_image) {
        (Signal::RuntimeDefault, None | Some("")) => Ok(SIGTERM),
        (Signal::RuntimeDefault, Some(text)) => {
            parse(text).ok_or_else(|| invalid("image STOPSIGNAL", text, "no such signal"))
        }
        (named, _) => parse(&named.as_str_name().replace("PLUS", "+").replace("MINUS", "-"))
            .ok_or_else(|| invalid("config.stop_signal", named.as_str_name(), "no such signal")),
    }
}

/// CRI's name for what ContainerStatus reports.
pub(crate) fn from_cri(number: i32) -> Signal {
    let named = NUMBERS
        .iter()
        .find(|(_, known)| *known == number)
        .map(|(name, _)| format!("SIG{name}"));
    let real_time = || match number - SIGRTMIN {
        0 => Some("SIGRTMIN".to_owned()),
        plus @ 1..=15 => Some(format!("SIGRTMINPLUS{plus}")),
        16..=29 => Some(format!("SIGRTMAXMINUS{}", SIGRTMAX - number)),
        30 => Some("SIGRTMAX".to_owned()),
        _ => None,
    };
    named
        .or_else(real_time)
        .and_then(|name| Signal::from_str_name(&name))
        .unwrap_or(Signal::RuntimeDefault)
}

/// `15`, `TERM`, `SIGTERM`, `RTMIN+3`, `SIGRTMAX-1`.
fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.get(1..)?.parse::<i32>().ok()
        }
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => SIGRTMIN.checked_add(offset(rest)?)?,
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => SIGRTMAX.checked_sub(offset(rest)?)?,
        _ => {
            return NUMBERS
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, number)| *number);
        }
    };
    (SIGRTMIN..=SIGRTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let cases = [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("usr1", Some(10)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGRTMIN+31", None),
            ("SIGRTMIN-1", None),
            ("0", None),
            ("65", None),
            ("SIGNOTHING", None),
            ("RTMIN+2147483647", None),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text), number, "{text}");
        }
    }

    #[test]
    fn every_signal_of_cri_has_a_number_and_the_way_back_is_the_same_number() {
        for value in 1..=65 {
            let config = ContainerConfig {
                stop_signal: value,
                ..ContainerConfig::default()
            };
            let number = plan(&config, None).unwrap();
            let back = ContainerConfig {
                stop_signal: from_cri(number).into(),
                ..ContainerConfig::default()
            };
            assert_eq!(plan(&back, None).unwrap(), number, "{value}");
        }
    }
}
