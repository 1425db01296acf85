//! Numbers of JSON documents, which are kept as they are written and added in decimal: 0.1 and 0.2 make 0.3. No
//! floats, so that nothing is rounded on the way, and none of their large tables come along.

/// What a number is worth: `significand` × 10^`exponent`, of many such pairs the one whose significand does not
/// end in 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Decimal {
    significand: i64,
    exponent: i32,
}

/// Significands are below this: two of them can be added. What is beyond 18 digits is cut off (a float has 17).
const LIMIT: i64 = 1_000_000_000_000_000_000;

/// Whether two numbers of JSON are worth the same.
pub(crate) fn is_equal(a: &str, b: &str) -> bool {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b || Decimal::parse(a) == Decimal::parse(b),
    }
}

/// The sum of two numbers of JSON. Whole numbers stay whole; `None` when it is neither a 64-bit number nor within
/// the range of floats.
pub(crate) fn sum(a: &str, b: &str) -> Option<String> {
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        let sum = a + b;
        return i64::try_from(sum)
            .map(|sum| sum.to_string())
            .or_else(|_| u64::try_from(sum).map(|sum| sum.to_string()))
            .ok();
    }
    let sum = Decimal::parse(a).plus(Decimal::parse(b));
    sum.is_in_range().then(|| sum.print())
}

/// Where in a JSON text the first number ends that is beyond what others can read (the range of a float).
pub(crate) fn beyond_range(json: &str) -> Option<usize> {
    let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let mut rest = json;
    while let Some(start) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        rest = rest.get(start..)?;
        if let Some(string) = rest.strip_prefix('"') {
            rest = after_string(string);
            continue;
        }
        let (number, after) = rest.split_at_checked(rest.bytes().take_while(is_of_number).count())?;
        if !Decimal::parse(number).is_in_range() {
            return Some(json.len() - after.len());
        }
        rest = after;
    }
    None
}

/// What follows a string whose opening quote was cut off.
fn after_string(mut rest: &str) -> &str {
    while let Some(end) = rest.find(['"', '\\']) {
        let is_escape = rest.as_bytes().get(end) == Some(&b'\\');
        rest = rest.get(end + 1..).unwrap_or_default();
        if !is_escape {
            return rest;
        }
        // What is escaped is one ASCII character at least.
        rest = rest.get(1..).unwrap_or_default();
    }
    ""
}

fn whole(number: &str) -> Option<i128> {
    let signed = number.parse::<i64>().map(i128::from);
    signed.or_else(|_| number.parse::<u64>().map(i128::from)).ok()
}

impl Decimal {
    const ZERO: Self = Self { significand: 0, exponent: 0 };

    /// Of a number of JSON.
    fn parse(number: &str) -> Self {
        let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        // Beyond what fits here it is beyond any float, too.
        let is_tiny = exponent.starts_with('-');
        let mut exponent: i32 = exponent.parse().unwrap_or(if is_tiny { -99_999_999 } else { 99_999_999 });
        let (mut significand, mut is_fraction) = (0_i64, false);
        for byte in digits.bytes() {
            match byte {
                b'.' => is_fraction = true,
                b'0'..=b'9' if significand < LIMIT / 10 => {
                    significand = significand * 10 + i64::from(byte - b'0');
                    exponent = exponent.saturating_sub(i32::from(is_fraction));
                }
                b'0'..=b'9' => exponent = exponent.saturating_add(i32::from(!is_fraction)),
                _ => {}
            }
        }
        Self { significand: if digits.starts_with('-') { -significand } else { significand }, exponent }
            .normal()
    }

    fn normal(mut self) -> Self {
        if self.significand == 0 {
            return Self::ZERO;
        }
        while self.significand % 10 == 0 || self.significand.abs() >= LIMIT {
            self.significand /= 10;
            self.exponent = self.exponent.saturating_add(1);
        }
        self
    }

    /// The same with as many digits as there is room for.
    fn long(mut self) -> Self {
        while self.significand != 0 && self.significand.abs() < LIMIT / 10 {
            self.significand *= 10;
            self.exponent = self.exponent.saturating_sub(1);
        }
        self
    }

    fn plus(self, other: Self) -> Self {
        let (mut large, mut small) = (self.long(), other.long());
        if large.significand == 0 || (small.significand != 0 && large.exponent < small.exponent) {
            (large, small) = (small, large);
        }
        while small.significand != 0 && small.exponent < large.exponent {
            small = Self { significand: small.significand / 10, exponent: small.exponent + 1 };
        }
        Self { significand: large.significand + small.significand, exponent: large.exponent }.normal()
    }

    /// Whether a float can hold something like it: 1.7976931348623157e308 is the largest.
    fn is_in_range(self) -> bool {
        let long = self.long();
        long.significand == 0 || (long.exponent, long.significand.abs()) < (291, 179_769_313_486_231_580)
    }

    /// As JSON.
    fn print(self) -> String {
        let Self { significand, exponent } = self;
        let sign = if significand < 0 { "-" } else { "" };
        let digits = significand.unsigned_abs();
        match usize::try_from(exponent) {
            Ok(zeros @ 0..=18) => format!("{sign}{digits}{:0<zeros$}", ""),
            _ if (-18..0).contains(&exponent) => {
                let places = exponent.unsigned_abs();
                let unit = 10_u64.pow(places);
                let width = usize::try_from(places).unwrap_or_default();
                format!("{sign}{}.{:0>width$}", digits / unit, digits % unit)
            }
            _ => format!("{significand}e{exponent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_are_decimal_and_whole_ones_are_whole() {
        let cases = [
            ("1", "2", Some("3")),
            ("18446744073709551614", "1", Some("18446744073709551615")),
            ("18446744073709551615", "1", None),
            ("-9223372036854775808", "-1", None),
            ("0.1", "0.2", Some("0.3")),
            ("0.5", "1", Some("1.5")),
            ("-0.5", "0.25", Some("-0.25")),
            ("1.5", "1.5", Some("3")),
            ("1e3", "1", Some("1001")),
            ("1e-3", "-1e-3", Some("0")),
            ("-0.0", "0.0", Some("0")),
            ("1e300", "1", Some("1e300")),
            ("1e308", "1e308", None),
            ("-1e308", "-1e308", None),
            ("1e-300", "1e-300", Some("2e-300")),
            ("1.5", "1e-300", Some("1.5")),
            ("123456789012345678901234567890", "1", Some("123456789012345678000000000000")),
        ];
        for (a, b, result) in cases {
            assert_eq!(sum(a, b).as_deref(), result, "{a} + {b}");
            assert_eq!(sum(b, a).as_deref(), result, "{b} + {a}");
        }
    }

    #[test]
    fn numbers_are_equal_by_what_they_are_worth() {
        for (a, b) in
            [("1", "1.0"), ("1", "10e-1"), ("1", "0.1E+1"), ("0", "-0"), ("0", "0e99"), ("1e2", "100")]
        {
            assert!(is_equal(a, b) && is_equal(b, a), "{a} {b}");
        }
        for (a, b) in
            [("1", "2"), ("1", "-1"), ("1", "1.01"), ("18446744073709551615", "18446744073709551614")]
        {
            assert!(!is_equal(a, b), "{a} {b}");
        }
    }

    #[test]
    fn numbers_beyond_a_float_are_found_where_they_end() {
        for json in ["", "{}", r#"{"a\\":"1e999","\"1e999":[1e308,-1.7976931348623157e308,0e999,1e-999]}"#] {
            assert_eq!(beyond_range(json), None, "{json}");
        }
        for (json, end) in
            [("1e999", 5), ("[1,-1e309]", 9), (r#"{"a":1e99999999999999}"#, 21), ("1.8e308", 7)]
        {
            assert_eq!(beyond_range(json), Some(end), "{json}");
        }
        let long = format!("1{}", "0".repeat(309));
        assert_eq!(beyond_range(&long), Some(310));
    }

    proptest! {
        #[test]
        fn a_sum_is_what_a_float_makes_it_or_better(a in -1e9..1e9_f64, b in -1e9..1e9_f64) {
            let sum: f64 = sum(&a.to_string(), &b.to_string()).and_then(|sum| sum.parse().ok()).unwrap_or(f64::NAN);
            prop_assert!((sum - (a + b)).abs() <= 1e-6);
        }

        #[test]
        fn what_is_added_can_be_taken_away(a in -1_000_000..1_000_000_i64, b in -1_000_000..1_000_000_i64, places in 0..6) {
            let (a, b, minus_b) = (format!("{a}e-{places}"), format!("{b}e-{places}"), format!("{}e-{places}", -b));
            let there = sum(&a, &b).unwrap_or_default();
            let back = sum(&there, &minus_b).unwrap_or_default();
            prop_assert!(is_equal(&a, &back), "{a} {b} {there} {back}");
        }

        #[test]
        fn every_float_is_in_range(number: f64) {
            prop_assume!(number.is_finite());
            prop_assert_eq!(beyond_range(&format!("{number:e}")), None);
        }

        #[test]
        fn no_text_makes_it_panic(a: String, b: String) {
            let _ = (beyond_range(&a), is_equal(&a, &b), sum(&a, &b));
        }
    }
}
