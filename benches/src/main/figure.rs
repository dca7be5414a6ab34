// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Figures as text, with three digits that count.

/// A time.
pub(crate) fn time(nanoseconds: f64) -> String {
    scaled(nanoseconds, &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")])
}

/// How many of something in a second: `12.3 M/s`, and in bytes `12.3 MB/s`.
pub(crate) fn rate(each_second: f64, unit: &str) -> String {
    scaled(each_second, &[(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]) + unit + "/s"
}

/// A whole number, if it is one, with commas: `65,535`.
pub(crate) fn count(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
    format!("{} {name}", number(value / one))
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
        assert_eq!(rate(1.25e8, "B"), "125 MB/s");
        assert_eq!(rate(1.25e3, ""), "1.25 k/s");
    }

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(
            ["", "1", "100", "1000", "1048576"].map(count),
            ["", "1", "100", "1,000", "1,048,576"]
        );
    }
}
