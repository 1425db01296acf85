use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    document::{MAX_STORED_VALUES, MAX_VALUES, from_stored, tests::document},
    http::Code,
};

const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("JSON")
}

fn apply_with(media_type: &str, data: &Value, body: &Value, max_bytes: usize) -> Result<Value, ApplyError> {
    let body = body.to_string();
    let change = Change::parse(media_type, body.as_bytes()).expect("a change");
    let result = change.apply(&raw(data), max_bytes)?;
    Ok(from_stored(result.get()).expect("JSON").0)
}

fn apply(media_type: &str, data: Value, body: Value) -> Result<Value, ApplyError> {
    apply_with(media_type, &data, &body, 65_536)
}

fn refusal(media_type: &str, body: &str) -> (Code, String) {
    let problem = Change::parse(media_type, body.as_bytes()).expect_err(body);
    (problem.code, problem.into_details().detail.into_owned())
}

#[test]
fn a_merge_patch_follows_rfc_7396() {
    let data =
        json!({"title": "Goodbye!", "author": {"given": "John", "family": "Doe"}, "tags": ["a"], "n": 1});
    let patch =
        json!({"title": "Hello!", "author": {"family": null}, "tags": ["b"], "new": {"x": null, "y": 1}});
    let result =
        json!({"title": "Hello!", "author": {"given": "John"}, "tags": ["b"], "n": 1, "new": {"y": 1}});
    assert_eq!(apply(MERGE, data, patch), Ok(result));
}

#[test]
fn a_json_patch_is_done_in_order() {
    let patch = json!([
        {"op": "test", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/list", "value": [1]},
        {"op": "add", "path": "/list/-", "value": 2},
        {"op": "copy", "from": "/list", "path": "/copy"},
        {"op": "move", "from": "/a", "path": "/z"},
        {"op": "replace", "path": "/z/b", "value": "x"},
        {"op": "remove", "path": "/list/0"},
        {"op": "increment", "path": "/views", "value": 2},
        {"op": "increment", "path": "/views", "value": 3},
    ]);
    let result = json!({"list": [2], "copy": [1, 2], "z": {"b": "x"}, "views": 5});
    assert_eq!(apply(PATCH, json!({"a": {"b": 1}}), patch), Ok(result));
}

#[test]
fn what_does_not_fit_the_data_is_unprocessable() {
    let data = json!({"a": 1, "text": "x", "list": [0], "big": u64::MAX, "huge": 1e308, "deep": {"x": 1}});
    let long = "a".repeat(500);
    for (operation, why) in [
        (json!({"op": "test", "path": "/a", "value": 2}), "the value at /a is different"),
        (json!({"op": "test", "path": "", "value": 2}), "the value at \"\" is different"),
        (json!({"op": "test", "path": "/b", "value": 2}), "there is nothing at /b"),
        (json!({"op": "remove", "path": "/missing"}), "there is nothing at /missing"),
        (json!({"op": "remove", "path": "/list/-"}), "there is nothing at /list/-"),
        (json!({"op": "remove", "path": "/list/00"}), "there is nothing at /list/00"),
        (json!({"op": "remove", "path": ""}), "the data as a whole cannot be removed"),
        (json!({"op": "replace", "path": "/cart/0", "value": 1}), "there is nothing at /cart/0"),
        (
            json!({"op": "add", "path": "/cart/0", "value": 1}),
            "there is nothing at /cart; add an object or an array there first",
        ),
        (
            json!({"op": "add", "path": "/text/x", "value": 1}),
            "the value at /text is not an object or an array",
        ),
        (
            json!({"op": "add", "path": "/list/7", "value": 1}),
            "/list/7 is not a position in the array; use /list/- to append",
        ),
        (json!({"op": "move", "from": "/missing", "path": "/x"}), "there is nothing at /missing"),
        (json!({"op": "move", "from": "", "path": "/x"}), "\"\" cannot be moved into itself"),
        (json!({"op": "move", "from": "/deep", "path": "/deep/y"}), "/deep cannot be moved into itself"),
        (
            json!({"op": "move", "from": "/a", "path": "/no/y"}),
            "there is nothing at /no; add an object or an array there first",
        ),
        (json!({"op": "copy", "from": "/missing", "path": "/x"}), "there is nothing at /missing"),
        (json!({"op": "increment", "path": "/text", "value": 1}), "the value at /text is not a number"),
        (json!({"op": "increment", "path": "", "value": 1}), "the value at \"\" is not a number"),
        (
            json!({"op": "increment", "path": "/no/views", "value": 1}),
            "there is nothing at /no; add an object there first",
        ),
        (
            json!({"op": "add", "path": "/cart/-", "value": 1}),
            "there is nothing at /cart; add an object or an array there first",
        ),
        (
            json!({"op": "increment", "path": "/text/views", "value": 1}),
            "the value at /text is not an object",
        ),
        (json!({"op": "increment", "path": "/list/-", "value": 1}), "there is nothing at /list/-"),
        (json!({"op": "increment", "path": "/list/9", "value": 1}), "there is nothing at /list/9"),
        (json!({"op": "increment", "path": "/big", "value": 1}), "the sum at /big is out of range"),
        (json!({"op": "increment", "path": "/huge", "value": 1e308}), "the sum at /huge is out of range"),
        (
            json!({"op": "remove", "path": format!("/{long}")}),
            &format!("there is nothing at /{}…", "a".repeat(99)),
        ),
    ] {
        let op = operation["op"].as_str().expect("a name").to_owned();
        let patch = json!([{"op": "add", "path": "/new", "value": 1}, operation]);
        let text = format!("operation 1 (\"{op}\"): {why}");
        assert_eq!(apply(PATCH, data.clone(), patch), Err(ApplyError::Unprocessable(text)));
    }
    let whole = json!([{"op": "replace", "path": "", "value": [1]}]);
    assert!(matches!(apply(PATCH, data, whole), Err(ApplyError::Unprocessable(_))));
}

#[test]
fn what_is_wrong_in_itself_is_refused_before_any_data_is_looked_at() {
    for body in ["", "[1]", "\"x\"", "null", "{", "{\"a\":1}x", "{\"a\":1e999}"] {
        assert_eq!(refusal(MERGE, body).0, Code::BadRequest, "{body}");
    }
    assert!(Change::parse(MERGE, "\u{feff}{}".as_bytes()).is_ok());
    const PATH: &str = r#""path" must be a JSON Pointer such as "/cart/0" (RFC 6901)"#;
    for (operation, why) in [
        ("1", r#"it must be an object such as {"op":"remove","path":"/cart/0"}"#),
        ("{}", r#""op" is missing or not a string: use add, remove, replace, move, copy, test or increment"#),
        (
            r#"{"op":"frobnicate","path":"/a"}"#,
            r#"unknown "op": use add, remove, replace, move, copy, test or increment"#,
        ),
        (r#"{"op":"add","path":"/a"}"#, r#""value" is missing"#),
        (r#"{"op":"add","path":"a","value":1}"#, PATH),
        (r#"{"op":"add","value":1}"#, PATH),
        (r#"{"op":"add","path":"/~2","value":1}"#, PATH),
        (r#"{"op":"move","path":"/a"}"#, r#""from" must be a JSON Pointer such as "/cart/0" (RFC 6901)"#),
        (r#"{"op":"increment","path":"/a"}"#, r#""value" is missing"#),
        (r#"{"op":"increment","path":"/a","value":"1"}"#, r#""value" must be a number"#),
    ] {
        let body = format!(r#"[{{"op":"remove","path":"/a","other":1}},{operation}]"#);
        assert_eq!(refusal(PATCH, &body), (Code::BadRequest, format!("operation 1: {why}")));
    }
    assert_eq!(refusal(PATCH, "{}").0, Code::BadRequest);
    assert!(Change::parse(MERGE, b"{\"a\":\"\xff\"}").is_err());
    let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
    assert_eq!(refusal(MERGE, &deep).0, Code::BadRequest);
    let many = format!("{{\"a\":[{}1]}}", "1,".repeat(MAX_VALUES));
    assert_eq!(refusal(MERGE, &many).0, Code::Unprocessable);
}

#[test]
fn other_media_types_are_refused_and_told_which_are_not() {
    for media_type in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        let problem = Change::parse(media_type, b"{}").expect_err(media_type);
        assert_eq!(
            problem,
            Problem::unsupported_media_type(problem.detail.clone()).with_header("Accept-Patch", MEDIA_TYPES)
        );
    }
    for media_type in
        ["application/json", "Application/JSON; charset=utf-8", " application/merge-patch+json ;x"]
    {
        assert!(Change::parse(media_type, b"{}").is_ok(), "{media_type}");
    }
}

#[test]
fn stored_data_that_is_no_object_is_left_as_it_is() {
    let change = Change::parse(MERGE, b"{\"a\":1}").expect("a change");
    for stored in ["[]", "null", "7", "\"x\""] {
        let stored = RawValue::from_string(stored.to_owned()).expect("JSON");
        assert_eq!(change.apply(&stored, 65_536).err(), Some(ApplyError::Unreadable));
    }
    let nested = |levels| format!("{{\"b\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    for (levels, is_unreadable) in [(125, false), (200, true)] {
        let stored = RawValue::from_string(nested(levels)).expect("JSON");
        let error = change.apply(&stored, 65_536).expect_err("too deep");
        assert_eq!(error == ApplyError::Unreadable, is_unreadable, "{levels}");
    }
}

#[test]
fn data_over_the_limit_is_too_large_unless_it_shrinks() {
    let is_too_large = |data: &Value, patch: &Value| {
        matches!(apply_with(MERGE, data, patch, 20), Err(ApplyError::TooLarge(_)))
    };
    assert!(!is_too_large(&json!({}), &json!({"a": "x".repeat(12)})));
    assert!(is_too_large(&json!({}), &json!({"a": "x".repeat(13)})));
    let over = json!({"a": "x".repeat(30), "b": 1});
    assert!(!is_too_large(&over, &json!({"b": null})));
    assert!(is_too_large(&over, &json!({"b": 22})));
}

#[test]
fn copies_that_double_are_stopped_before_they_fill_the_memory() {
    let double = |index| json!({"op": "copy", "from": "", "path": format!("/{index}")});
    let patch = (0..60).map(double).collect();
    assert!(matches!(apply(PATCH, json!({"a": "xxxxxxxx"}), patch), Err(ApplyError::TooLarge(_))));
    let many = json!(vec![json!({"op": "test", "path": "/a", "value": 1}); 1001]);
    assert!(refusal(PATCH, &many.to_string()).0 == Code::TooLarge);
}

#[test]
fn data_has_no_more_values_than_a_body_unless_it_shrinks() {
    // The data as a whole and its list are two of the values.
    let list = |items| json!({ "list": vec![0; items] });
    let append = |count| json!(vec![json!({"op": "add", "path": "/list/-", "value": 0}); count]);
    assert!(apply(PATCH, list(MAX_VALUES - 3), append(1)).is_ok());
    let refused = apply(PATCH, list(MAX_VALUES - 3), append(2)).expect_err("one too many");
    let detail =
        format!("the session's data would have {} JSON values; the limit is {MAX_VALUES}", MAX_VALUES + 1);
    assert_eq!(refused, ApplyError::Unprocessable(detail));
    let over = list(MAX_VALUES + 9);
    assert!(apply(PATCH, over.clone(), json!([{"op": "remove", "path": "/list/0"}])).is_ok());
    assert!(apply(MERGE, over.clone(), json!({"a": 1})).is_err());
    assert_eq!(apply(MERGE, over, json!({"list": null, "a": 1})), Ok(json!({"a": 1})));
}

#[test]
fn a_patch_copies_no_more_values_than_a_body_has() {
    let copies =
        |count| (0..count).map(|at| json!({"op": "copy", "from": "/list", "path": format!("/{at}")}));
    let data = json!({ "list": vec![0; 1999] });
    // Removed again, so that only what is copied on the way counts.
    let removes = (0..5).map(|at| json!({"op": "remove", "path": format!("/{at}")}));
    assert!(apply(PATCH, data.clone(), copies(5).chain(removes).collect()).is_ok());
    assert!(matches!(apply(PATCH, data, copies(6).collect()), Err(ApplyError::TooLarge(_))));
}

#[test]
fn stored_data_of_too_many_values_to_be_parsed_can_be_replaced_as_a_whole() {
    let data = json!({ "list": vec![0; MAX_STORED_VALUES] });
    for (media_type, body) in [
        (MERGE, json!({"list": null})),
        (PATCH, json!([{"op": "remove", "path": "/list"}])),
        (
            PATCH,
            json!([{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "", "value": {}}]),
        ),
    ] {
        let refused = apply(media_type, data.clone(), body).expect_err("too many");
        assert!(matches!(&refused, ApplyError::TooLarge(text) if text.contains("replace")), "{refused}");
    }
    for op in ["replace", "add"] {
        let patch =
            json!([{"op": op, "path": "", "value": {"a": 1}}, {"op": "increment", "path": "/a", "value": 1}]);
        assert_eq!(apply(PATCH, data.clone(), patch), Ok(json!({"a": 2})));
    }
}

#[test]
fn a_thousand_shifts_of_a_long_array_are_stopped() {
    let data = json!({ "list": vec![0; 8_000] });
    let shifts = |operation: &Value, count| apply(PATCH, data.clone(), json!(vec![operation; count]));
    for operation in [
        json!({"op": "add", "path": "/list/0", "value": 1}),
        json!({"op": "remove", "path": "/list/0"}),
        json!({"op": "move", "from": "/list/0", "path": "/list/-"}),
        json!({"op": "copy", "from": "/list/1", "path": "/list/0"}),
    ] {
        assert!(matches!(shifts(&operation, 1000), Err(ApplyError::TooLarge(_))), "{operation}");
        assert!(shifts(&operation, 100).is_ok(), "{operation}");
    }
    let append = json!({"op": "add", "path": "/list/-", "value": 1});
    assert!(shifts(&append, 1000).is_ok());
}

#[test]
fn a_patch_never_nests_the_data_deeper_than_the_stack_is() {
    let nested = |levels| (0..levels).fold(json!({}), |value, _| json!({ "a": value }));
    let bottom = "/a".repeat(90);
    let mut operations = vec![json!({"op": "add", "path": "/r", "value": {}})];
    for _ in 0..80 {
        operations.push(json!({"op": "add", "path": "/x", "value": nested(90)}));
        operations.push(json!({"op": "move", "from": "/r", "path": format!("/x{bottom}/a")}));
        operations.push(json!({"op": "move", "from": "/x", "path": "/r"}));
    }
    let too_deep = "the data of a session nests at most 100 levels deep".to_owned();
    assert_eq!(apply(PATCH, json!({}), json!(operations)), Err(ApplyError::Unprocessable(too_deep.clone())));
    let copies = (0..200)
        .map(|index| json!({"op": "copy", "from": "/r", "path": format!("/r{}", "/a".repeat(index + 1))}));
    let copies: Vec<_> =
        [json!({"op": "add", "path": "/r", "value": {}})].into_iter().chain(copies).collect();
    assert!(apply(PATCH, json!({}), json!(copies)).is_err());
    for op in ["add", "replace"] {
        let deep =
            json!([{"op": "add", "path": "/a", "value": 1}, {"op": op, "path": "/a", "value": nested(100)}]);
        assert_eq!(apply(PATCH, json!({}), deep), Err(ApplyError::Unprocessable(too_deep.clone())));
    }
}

#[test]
fn data_never_nests_deeper_than_it_can_be_read_again() {
    let nested = |levels| (0..levels).fold(json!(1), |value, _| json!({ "a": value }));
    assert!(apply(MERGE, json!({}), nested(100)).is_ok());
    assert!(matches!(apply(MERGE, json!({}), nested(101)), Err(ApplyError::Unprocessable(_))));
}

#[test]
fn an_increment_keeps_whole_numbers_whole() {
    let cases = [
        (json!(1), json!(-3), "-2"),
        (json!(0.5), json!(1), "1.5"),
        (json!(1.5), json!(1.5), "3"),
        (json!(u64::MAX - 1), json!(1), "18446744073709551615"),
        (json!(9_007_199_254_740_993_u64), json!(1), "9007199254740994"),
        (json!(null), json!(2.0), "2"),
    ];
    for (before, value, after) in cases {
        let data = if before.is_null() { json!({}) } else { json!({ "n": before }) };
        let patch = json!([{"op": "increment", "path": "/n", "value": value}]);
        assert_eq!(apply(PATCH, data, patch).map(|data| data["n"].to_string()), Ok(after.to_owned()));
    }
    let odd = json!([{"op": "increment", "path": "/a~1b", "value": 1}]);
    assert_eq!(apply(PATCH, json!({}), odd), Ok(json!({"a/b": 1})));
}

#[test]
fn a_test_compares_numbers_by_value() {
    let is_equal = |data: &Value, value: &Value| {
        apply(PATCH, json!({ "a": data }), json!([{"op": "test", "path": "/a", "value": value}])).is_ok()
    };
    assert!(is_equal(&json!({"x": [1, {"y": 2.0}]}), &json!({"x": [1.0, {"y": 2}]})));
    for other in
        [json!({"x": [1]}), json!({"x": [1, {"y": 3}]}), json!({"z": [1, {"y": 2}]}), json!([]), json!(null)]
    {
        assert!(!is_equal(&json!({"x": [1, {"y": 2}]}), &other), "{other}");
    }
}

/// Operations that hit and miss.
fn operation() -> impl Strategy<Value = Value> {
    let path = || {
        proptest::sample::select(
            &["", "/a", "/a/b", "/a/0", "/a/-", "/b", "/b/c", "/list/0", "/list/-", "/a~1b"][..],
        )
    };
    let op = proptest::sample::select(&["add", "remove", "replace", "move", "copy", "test", "increment"][..]);
    (op, path(), path(), document(), any::<bool>(), -9..9_i64).prop_map(
        |(op, path, from, value, is_number, number)| {
            let value = if is_number || op == "increment" { json!(number) } else { value };
            json!({"op": op, "path": path, "from": from, "value": value})
        },
    )
}

proptest! {
    /// What makes re-application safe: increments and merges of different members commute.
    #[test]
    fn increments_commute(values in proptest::collection::vec(any::<i32>(), 1..20), seed: u64) {
        let total: i64 = values.iter().copied().map(i64::from).sum();
        let mut shuffled = values;
        let turn = usize::try_from(seed % 20).unwrap_or_default() % shuffled.len();
        shuffled.rotate_left(turn);
        let mut data = json!({});
        for value in shuffled {
            let patch = json!([{"op": "increment", "path": "/n", "value": value}]);
            data = apply(PATCH, data, patch).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        }
        prop_assert_eq!(data, json!({ "n": total }));
    }

    #[test]
    fn integers_are_kept_to_the_digit(a: i64, b: u64, by in -1000..1000_i64) {
        let patch = json!([{"op": "increment", "path": "/c", "value": by}]);
        let data = apply(PATCH, json!({"a": a, "b": b, "c": 0}), patch);
        prop_assert_eq!(data.map(|data| data.to_string()), Ok(format!(r#"{{"a":{a},"b":{b},"c":{by}}}"#)));
    }

    #[test]
    fn no_body_makes_it_panic(body: Vec<u8>, patch: bool) {
        let media_type = if patch { PATCH } else { MERGE };
        if let Ok(change) = Change::parse(media_type, &body) {
            drop(change.apply(&empty_data(), 65_536));
        }
    }

    #[test]
    fn no_patch_makes_it_panic(data in document(), operations in proptest::collection::vec(operation(), 0..8)) {
        let data = json!({"a": data, "list": [1]});
        match apply_with(PATCH, &data, &json!(operations), 300) {
            Ok(after) => prop_assert!(after.to_string().len() <= data.to_string().len().max(300)),
            Err(ApplyError::Unprocessable(text) | ApplyError::TooLarge(text)) => {
                prop_assert!(text.len() < 250, "{}", text);
            }
            Err(ApplyError::Unreadable) => prop_assert!(false),
        }
    }

    #[test]
    fn what_is_not_changed_survives(value in document(), new in document()) {
        let odd = json!({"$serde_json::private::RawValue": "[1]", "$serde_json::private::Number": "7"});
        let data = json!({"kept": value, "odd": odd, "$serde_json::private::RawValue": "[2]"});
        let mut after = data.clone();
        after["new"] = new.clone();
        let added = apply(PATCH, data.clone(), json!([{"op": "add", "path": "/new", "value": new}]));
        prop_assert_eq!(added.map(|data| data.to_string()), Ok(after.to_string()));
        let mut after = data.clone();
        after["n"] = json!(1);
        let merged = apply(MERGE, data, json!({"n": 1}));
        prop_assert_eq!(merged.map(|data| data.to_string()), Ok(after.to_string()));
    }

    #[test]
    fn doubles_survive_being_rewritten(number: f64) {
        prop_assume!(number.is_finite());
        let data = apply(MERGE, json!({ "n": number }), json!({"x": 1}));
        prop_assert_eq!(data.map(|data| data["n"].as_f64()), Ok(Some(number)));
    }

    /// Texts for the caller may repeat paths, never values.
    #[test]
    fn no_error_holds_a_value(operations in proptest::collection::vec(operation(), 0..5)) {
        let mark = |mut operation: Value| {
            operation["value"] = json!(["MARKER"]);
            operation
        };
        let operations: Vec<_> = operations.into_iter().map(mark).collect();
        let text = match Change::parse(PATCH, json!(operations).to_string().as_bytes()) {
            Ok(change) => {
                let result = change.apply(&raw(&json!({"a": "MARKER", "list": ["MARKER"]})), 300);
                result.err().map(|error| error.to_string())
            }
            Err(problem) => Some(problem.into_details().detail.into_owned()),
        };
        prop_assert!(!text.unwrap_or_default().contains("MARKER"));
    }
}
