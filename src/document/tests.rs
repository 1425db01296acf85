use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::*;
use crate::http::Code;

const RAW_VALUE: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: String,
    #[serde(default)]
    remember: bool,
    user: Option<User>,
    kind: Option<Kind>,
    #[serde(default, deserialize_with = "refuse")]
    name: (),
    count: Option<u32>,
}

fn refuse<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("this name is reserved"))
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct User {
    id: String,
    #[serde(default)]
    roles: Vec<String>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    One,
    Two,
    Three,
}

fn fault(body: &Value) -> String {
    let problem = read::<Login>(body.to_string().as_bytes()).unwrap_err();
    assert_eq!(problem.code, Code::BadRequest);
    problem.into_details().detail.into_owned()
}

fn login(more: Value) -> Value {
    let mut body = json!({"username": "a", "password": "b"});
    json_patch::merge(&mut body, &more);
    body
}

#[test]
fn malformed_json_is_refused_with_where_it_is() {
    let half = r"half of a surrogate pair (\ud800 to \udfff) is not a character";
    for (bytes, detail) in [
        (&b"{\n\"a\":1e999}"[..], "number out of range at line 2 column 9"),
        (b"{\"a\":\"\xff\"}", "it is not UTF-8 at line 1 column 7"),
        (b"{\n\n \xff}", "it is not UTF-8 at line 3 column 2"),
        (b"{", "it ends inside an object at line 1 column 1"),
        (b"", "it ends where a value is expected, at line 1 column 0"),
        (b"{\"a\":1}x", "trailing characters at line 1 column 8"),
        (b"[01]", "invalid number at line 1 column 3"),
        (b"\xff\xfe{\0}\0", "it is not UTF-8 at line 1 column 1"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "expected value at line 1 column 1"),
        (br#""\ud800""#, &format!("{half} at line 1 column 8")),
        (br#""\ud800\u0041""#, &format!("{half} at line 1 column 13")),
        (br#""\udc00""#, &format!("{half} at line 1 column 7")),
        (b"[nil]", "expected `true`, `false` or `null` at line 1 column 3"),
        (b"\"a\tb\"", "a control character in a string must be escaped at line 1 column 3"),
        ("[".repeat(128).as_bytes(), "it nests too deeply (at most 127 levels) at line 1 column 128"),
    ] {
        let detail = format!("the body is not valid JSON: {detail}");
        assert_eq!(parse(bytes), Err(Problem::bad_request(detail)), "{}", bytes.escape_ascii());
    }
    let deep = "[".repeat(200_000);
    assert_eq!(parse(deep.as_bytes()).unwrap_err().code, Code::BadRequest);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(parse("\u{feff}{\"a\":\"\u{feff}\"}".as_bytes()), Ok(json!({"a": "\u{feff}"})));
}

#[test]
fn of_members_with_the_same_name_the_last_one_counts() {
    assert_eq!(parse(br#"{"a":1,"a":{"b":2,"b":3},"\u0061":[4]}"#), Ok(json!({"a": [4]})));
}

#[test]
fn integers_of_64_bits_keep_every_digit_and_others_are_doubles() {
    for (text, printed) in [
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551616", "1.8446744073709552e19"),
        ("0.1", "0.1"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
        ("5e-324", "5e-324"),
        ("1e-999", "0.0"),
        ("-0", "-0.0"),
    ] {
        let value = parse(text.as_bytes()).expect("a number");
        assert_eq!(value.to_string().replace("e+", "e"), printed);
        assert_eq!(from_stored(&value.to_string()), Ok((value, 1)));
    }
}

#[test]
fn this_build_reads_numbers_as_numbers() {
    assert!(is_sound());
}

#[test]
fn exactly_the_limit_of_values_is_read() {
    let array = |items: usize| format!("[{}]", vec!["{}"; items].join(","));
    assert!(parse(array(MAX_VALUES - 1).as_bytes()).is_ok());
    let problem = parse(array(MAX_VALUES).as_bytes()).unwrap_err();
    assert_eq!(problem.code, Code::Unprocessable);
    assert!(problem.detail.contains("10000"), "{}", problem.detail);
    let same_name = |members: usize| format!("{{{}}}", vec![r#""a":0"#; members].join(","));
    assert!(parse(same_name(MAX_VALUES - 1).as_bytes()).is_ok());
    assert_eq!(parse(same_name(MAX_VALUES).as_bytes()).unwrap_err().code, Code::Unprocessable);
    let stored = array(MAX_STORED_VALUES - 1);
    assert!(from_stored(&stored).is_ok_and(|(_, count)| count == MAX_STORED_VALUES));
    assert_eq!(from_stored(&array(MAX_STORED_VALUES)), Err(StoredFault::TooManyValues));
}

#[test]
fn a_field_that_is_wrong_is_named_and_never_shown() {
    assert!(read::<Login>(login(json!({"user": {"id": "x"}, "kind": "two"})).to_string().as_bytes()).is_ok());
    for (body, detail) in [
        (json!({"username": "a"}), r#""password" is missing (a string)"#),
        (json!([]), "the body must be a JSON object"),
        (json!("x, expected y"), "the body must be a JSON object"),
        (login(json!({"remember": "yes, expected no"})), r#""remember" must be true or false"#),
        (login(json!({"username": 1.5})), r#""username" must be a string"#),
        (login(json!({"user": {"id": 7}})), r#""user.id" must be a string"#),
        (login(json!({"user": {"roles": []}})), r#""user.id" is missing (a string)"#),
        (login(json!({"user": "x"})), r#""user" must be an object"#),
        (login(json!({"user": {"id": "", "roles": ["a", {}]}})), r#""user.roles[1]" must be a string"#),
        (login(json!({"user": {"id": "", "roles": {}}})), r#""user.roles" must be an array"#),
        (login(json!({"kind": "four"})), r#""kind" must be one of one, two, three"#),
        (login(json!({"name": "x"})), r#""name": this name is reserved"#),
        (login(json!({"kind": [4]})), r#""kind" must be a string"#),
        (login(json!({"count": -1})), r#""count" must be a whole number from 0 to 4294967295"#),
        (
            login(json!({"pasword": "x"})),
            r#"unknown field "pasword"; known fields: username, password, remember, user, kind, name, count"#,
        ),
        (
            login(json!({"user": {"id": "x", "a, expected `b`": 1}})),
            r#"unknown field "user.a, expected `b`"; known fields: id, roles"#,
        ),
    ] {
        assert_eq!(fault(&body), detail);
    }
    let long = fault(&login(json!({ "z".repeat(1000): 1 })));
    assert!(long.len() < 250, "{long}");
}

#[test]
fn a_free_form_member_is_kept_as_it_is() {
    #[derive(Deserialize)]
    struct Body {
        data: Option<Box<RawValue>>,
    }
    let data = json!({RAW_VALUE: "[1]", "a": {NUMBER: "7"}});
    let body: Body = read(json!({ "data": data }).to_string().as_bytes()).expect("a body");
    assert_eq!(body.data.map(|data| data.get().to_owned()), Some(data.to_string()));
    assert!(read::<Body>(b"{}").expect("a body").data.is_none());
}

/// Names and strings that might mean something to somebody.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let odd = [
        RAW_VALUE,
        NUMBER,
        "__proto__",
        "constructor",
        "",
        "\u{0}\u{1f}\"\\/\u{2028}",
        "\u{feff}",
        "{}",
        "1",
    ];
    prop_oneof![proptest::sample::select(odd.to_vec()).prop_map(String::from), any::<String>()]
}

pub(crate) fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 60, 6, |inside| {
        prop_oneof![
            proptest::collection::vec(inside.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(text(), inside, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same document with every character of its strings escaped.
fn escaped(value: &Value) -> String {
    let string = |text: &str| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{units}\"")
    };
    match value {
        Value::String(text) => string(text),
        Value::Array(items) => format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(" , ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{}:{}", string(name), escaped(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(",\n"))
        }
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn every_document_is_read_as_it_is_written(value in document()) {
        for text in [value.to_string(), escaped(&value)] {
            let read = parse(text.as_bytes()).map_err(|problem| TestCaseError::fail(problem.into_details().detail.into_owned()))?;
            prop_assert_eq!(&read, &value);
            prop_assert_eq!(read.to_string(), value.to_string());
            let count = count_values(&read);
            prop_assert_eq!(from_stored(&text), Ok((read, count)));
        }
    }

    #[test]
    fn what_is_accepted_reads_back_the_same(text in r#"[\[\]{}:,"0-9eE+\-. a-z\\u]{0,30}"#) {
        if let Ok(value) = parse(text.as_bytes()) {
            let written = value.to_string();
            prop_assert_eq!(parse(written.as_bytes()).map(|again| again.to_string()), Ok(written));
        }
    }

    #[test]
    fn every_double_reads_back_the_same(number in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
        for text in [number.to_string(), format!("{number:e}"), json!(number).to_string()] {
            let read = parse(text.as_bytes()).ok().and_then(|value| value.as_f64());
            prop_assert_eq!(read, Some(number));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, text: String) {
        for bytes in [&bytes[..], text.as_bytes()] {
            drop(parse(bytes));
            drop(read::<Login>(bytes));
        }
    }

    /// A marker is put into a document as a string; then a byte of the text is changed, or it is cut off.
    #[test]
    fn no_error_repeats_the_document(value in document(), at: prop::sample::Index, byte: Option<u8>) {
        let body = login(json!({"remember": "MARKER", "username": value, "user": {"id": ["MARKER"]}}));
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        match byte {
            Some(byte) => bytes[at] = byte,
            None => bytes.truncate(at),
        }
        let is_quiet = |detail: &str| !detail.contains("MARK") && !detail.contains("RKER");
        if let Err(problem) = parse(&bytes) {
            prop_assert!(is_quiet(&problem.detail), "{}", problem.detail);
        }
        let fields = [("username", body["username"].clone()), ("remember", json!("MARKER")), ("kind", json!("MARKER")),
            ("user", json!({"id": ["MARKER"]})), ("user", json!("MARKER")), ("count", json!("MARKER"))];
        for (name, value) in fields {
            if let Err(problem) = read::<Login>(login(json!({ name: value })).to_string().as_bytes()) {
                prop_assert!(is_quiet(&problem.detail), "{}", problem.detail);
            }
        }
    }
}
