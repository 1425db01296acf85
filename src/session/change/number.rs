//! Arithmetic on JSON numbers: 64-bit integers exactly, everything else as JavaScript's doubles.

use serde_json::Number;

/// 2^53: up to here a double holds every whole number.
const MAX_SAFE: f64 = 9_007_199_254_740_992.0;

/// The sum; `None` when it is out of range. Two integers give an integer, from `i64::MIN` to `u64::MAX`. Doubles may
/// give a whole number: up to 2^53 it is kept as an integer, and prints as `3`, not `3.0`.
pub(crate) fn sum(a: &Number, b: &Number) -> Option<Number> {
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        let sum = a + b;
        return i64::try_from(sum).map(Number::from).or_else(|_| u64::try_from(sum).map(Number::from)).ok();
    }
    let sum = a.as_f64()? + b.as_f64()?;
    if sum.fract() == 0.0 && sum.abs() <= MAX_SAFE {
        #[allow(clippy::cast_possible_truncation, reason = "a whole number of at most 54 bits")]
        return Some(Number::from(sum as i64));
    }
    Number::from_f64(sum)
}

/// Whether two numbers have the same value, however they are written: 1 is 1.0, and 2^53 + 1 is not the double 2^53.
pub(super) fn is_equal(a: &Number, b: &Number) -> bool {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a == b,
        (Some(a), None) => is_double(a, b),
        (None, Some(b)) => is_double(b, a),
        (None, None) => a.as_f64() == b.as_f64(),
    }
}

fn is_double(integer: i128, double: &Number) -> bool {
    // The cast is exact for whole numbers of 64 bits; larger ones become no number of 64 bits.
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers are compared")]
    double.as_f64().is_some_and(|double| double.fract() == 0.0 && double as i128 == integer)
}

/// Of a number that is stored as an integer.
fn integer(number: &Number) -> Option<i128> {
    number.as_i128()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn number(text: &str) -> Number {
        match crate::document::from_stored(text) {
            Ok((Value::Number(number), _)) => number,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn integers_are_added_exactly_and_others_as_doubles() {
        for (a, b, result) in [
            ("1", "2", Some("3")),
            ("9007199254740993", "2", Some("9007199254740995")),
            ("18446744073709551614", "1", Some("18446744073709551615")),
            ("18446744073709551615", "1", None),
            ("18446744073709551615", "-9223372036854775808", Some("9223372036854775807")),
            ("-9223372036854775808", "-1", None),
            ("0.1", "0.2", Some("0.30000000000000004")),
            ("0.5", "1", Some("1.5")),
            ("1.5", "1.5", Some("3")),
            ("1.0", "2", Some("3")),
            ("-0.0", "-0.0", Some("0")),
            ("9007199254740991.0", "1", Some("9007199254740992")),
            ("9007199254740992.0", "2", Some("9007199254740994.0")),
            ("1e300", "1", Some("1e300")),
            ("1e308", "1e308", None),
            ("-1e308", "-1e308", None),
        ] {
            let result = result.map(|text| number(text).to_string());
            assert_eq!(sum(&number(a), &number(b)).map(|sum| sum.to_string()), result, "{a} + {b}");
            assert_eq!(sum(&number(b), &number(a)).map(|sum| sum.to_string()), result, "{b} + {a}");
        }
    }

    #[test]
    fn numbers_are_equal_by_value() {
        for (a, b, equal) in [
            ("1", "1.0", true),
            ("1", "10e-1", true),
            ("0", "-0.0", true),
            ("9007199254740992", "9007199254740992.0", true),
            ("9007199254740993", "9007199254740992.0", false),
            ("18446744073709551615", "18446744073709551616.0", false),
            ("-9223372036854775808", "-9223372036854775808.0", true),
            ("1", "1.5", false),
            ("1", "-1", false),
            ("18446744073709551615", "18446744073709551614", false),
            ("1e300", "1e300", true),
            ("1", "1e300", false),
        ] {
            assert_eq!(is_equal(&number(a), &number(b)), equal, "{a} {b}");
            assert_eq!(is_equal(&number(b), &number(a)), equal, "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn integers_keep_every_digit(a: i64, b: i64) {
            let exact = i128::from(a) + i128::from(b);
            let sum = sum(&a.into(), &b.into()).map(|sum| sum.to_string());
            let fits = i64::try_from(exact).is_ok() || u64::try_from(exact).is_ok();
            prop_assert_eq!(sum, fits.then(|| exact.to_string()));
        }

        #[test]
        fn doubles_are_added_as_javascript_does(a in -1e300..1e300_f64, b in -1e300..1e300_f64) {
            let (left, right) = (Number::from_f64(a), Number::from_f64(b));
            let sum = left.zip(right).and_then(|(a, b)| sum(&a, &b));
            prop_assert_eq!(sum.and_then(|sum| sum.as_f64()), Some(a + b));
        }
    }
}
