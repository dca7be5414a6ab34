// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Figures as text, with three digits that count.

/// A time.
pub(crate) fn time(nanoseconds: f64) -> String {
    scaled(nanoseconds, &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// A number in a second.
pub(crate) fn rate(each_second: f64, unit: &str) -> String {
    let text = scaled(each_second, &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]);
    let space = if text.ends_with(|c: char| c.is_ascii_digit()) { " " } else { "" };
    format!("{text}{space}{unit}/s")
}

/// A plain number.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A value in the largest unit that it reaches.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let reached = units.iter().rev().find(|(one, _)| value >= 0.9995 * one).or(units.first());
    let (one, name) = reached.copied().unwrap_or((1.0, ""));
    format!("{} {name}", number(value / one)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let times = [0.5, 4.321, 53.21, 999.4, 999.9, 12_345.0, 4.5e7, 3e9].map(time);
        let expected =
            ["0.50 ns", "4.32 ns", "53.2 ns", "999 ns", "1.00 µs", "12.3 µs", "45.0 ms", "3.00 s"];
        assert_eq!(times, expected);
        assert_eq!(rate(1.25e8, "calls"), "125 Mcalls/s");
        assert_eq!(rate(12.0, "calls"), "12.0 calls/s");
    }
}
