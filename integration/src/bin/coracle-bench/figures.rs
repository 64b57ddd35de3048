//! Samples, their medians, and the report with its bounds.

use std::fmt;
use std::time::Duration;

/// What was measured of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The middle one.
    pub(crate) fn median(&self) -> Duration {
        self.quantile(50)
    }

    /// The one below which `percent` of all lie.
    pub(crate) fn quantile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted
            .get((sorted.len().saturating_sub(1)) * percent / 100)
            .copied()
            .unwrap_or_default()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, late) = (milliseconds(self.median()), milliseconds(self.quantile(90)));
        write!(f, "{median:>8.2} ms (p90 {late:>8.2})")
    }
}

/// The lines of one part, and which of its bounds do not hold.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<String>,
    exceeded: Vec<String>,
}

impl Report {
    /// A title or a remark.
    pub(crate) fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// One comparison: ours, the peer's, their ratio, and the most that it may be.
    pub(crate) fn compare(&mut self, what: &str, ours: &Samples, peer: (&str, &Samples), bound: f64) {
        let ratio = ours.median().as_secs_f64() / peer.1.median().as_secs_f64();
        let verdict = self.verdict(what, ratio <= bound);
        self.say(format!(
            "  {what:<34} coracle {ours}   {} {}   {ratio:.3} x (bound {bound}) {verdict}",
            peer.0, peer.1
        ));
    }

    /// One figure that has a bound of its own.
    pub(crate) fn bound(&mut self, what: &str, figure: f64, unit: &str, bound: f64) {
        let verdict = self.verdict(what, figure <= bound);
        self.say(format!(
            "  {what:<34} {figure:.3} {unit} (bound {bound}) {verdict}"
        ));
    }

    /// What exceeded its bound.
    pub(crate) fn exceeded(self) -> Vec<String> {
        self.exceeded
    }

    fn verdict(&mut self, what: &str, holds: bool) -> &'static str {
        if holds {
            "ok"
        } else {
            self.exceeded.push(what.to_owned());
            "OVER"
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
