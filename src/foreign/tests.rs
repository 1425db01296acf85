use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::{document::tests::document, fields::Table, session::User, ticket::cookie};

const NOW: Time = Time(1_767_225_600_000);

/// The format with these settings and these secrets of the application's.
fn format(settings: Value, secrets: Value) -> Format {
    let mut table = Table::new("cookie", Some(&settings));
    let cookie = cookie::Settings {
        name: "sid".into(),
        same_site: SameSite::Lax,
        secure: true,
        domain: String::new(),
        path: "/".into(),
        partitioned: false,
    };
    let environment = Environment { format_secrets: Some(&secrets), signing: &[], cookie: &cookie };
    let mut faults = Vec::new();
    let application = application(&mut table);
    let formats = settings::settings(&mut table, application, &environment, &mut faults);
    faults.extend(table.finish());
    assert_eq!(faults, Vec::<String>::new());
    formats.own.expect("a format")
}

fn express() -> Format {
    format(json!({"format": "express", "user_pointer": "/userId"}), json!(["keyboard cat", "older"]))
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("JSON")
}

fn sid(format: &Format, value: &str) -> Option<String> {
    format.open(value, NOW)?.foreign.map(|sid| sid.as_str().to_owned())
}

/// Made by the package cookie-signature 1.2.2 (`sign`, then `encodeURIComponent`) on 2026-11-28.
#[test]
fn a_cookie_of_express_is_opened_and_made_to_the_letter() {
    let made = "s%3Aabc.BpxCrWRpvZMh%2Fwk%2Fdjl34N%2Bm%2BVQEU7K%2F5WenLwJCgFU";
    assert_eq!(express().seal(&Sid::parse("abc").expect("an id")), made);
    assert_eq!(sid(&express(), made).as_deref(), Some("abc"));
    assert_eq!(sid(&express(), &made.replace("%3A", ":").replace("%2F", "/")).as_deref(), Some("abc"));
    for wrong in
        [made.replace("s%3A", ""), made.replace("abc", "abd"), format!("{made}A"), String::new(), "s:".into()]
    {
        assert_eq!(sid(&express(), &wrong), None, "{wrong}");
    }
    let older = format(json!({"format": "express"}), json!(["older"]));
    assert_eq!(sid(&express(), &older.seal(&Sid::parse("x.y/é").expect("an id"))).as_deref(), Some("x.y/é"));
    assert_eq!(sid(&older, made), None);
}

/// Made by itsdangerous 2.2.0 as Flask-Session 0.8.0 uses it, on 2026-11-28.
#[test]
fn a_signed_cookie_of_flask_session_is_opened_and_made_to_the_letter() {
    let flask = |secrets| format(json!({"format": "flask", "signer": true}), secrets);
    let made = "abc.C_L09HeiaL2VBlZQo6lPJVRIUwI";
    assert_eq!(flask(json!(["keyboard cat"])).seal(&Sid::parse("abc").expect("an id")), made);
    assert_eq!(sid(&flask(json!(["newer", {"base64": "a2V5Ym9hcmQgY2F0"}])), made).as_deref(), Some("abc"));
    for wrong in ["abc", "abd.C_L09HeiaL2VBlZQo6lPJVRIUwI", "abc.C_L09HeiaL2VBlZQo6lPJVRIUwJ", "abc."] {
        assert_eq!(sid(&flask(json!(["keyboard cat"])), wrong), None, "{wrong}");
    }
}

#[test]
fn an_unsigned_id_is_of_the_alphabet_of_flask_session_alone() {
    let flask = format(json!({"format": "flask"}), json!(null));
    assert_eq!(sid(&flask, "AZaz09-_").as_deref(), Some("AZaz09-_"));
    for wrong in ["", "a:b", "../x", "a b", "é", "a.b", &"x".repeat(MAX_SID + 1)] {
        assert_eq!(sid(&flask, wrong), None, "{wrong}");
    }
}

#[test]
fn a_change_leaves_the_rest_of_a_record_as_it_is() {
    let stored = r#"{"cookie":{"originalMaxAge":60000,"expires":"2020-01-01T00:00:00.000Z","path":"/"},"z":1.50,"big":1180591620717411303424,"a":{"y":1,"x":[1,{"b":2.0}]}}"#;
    let record = express().read(stored.as_bytes()).expect("a record");
    assert_eq!((record.lifetime.as_secs(), record.is_persistent), (60, true));
    let changed = json!({"z": 1.5, "big": 1.180_591_620_717_411_3e21, "a": {"x": [1, {"b": 2.0}, 3], "y": 1}, "new": true});
    let written = express().write(Some(stored.as_bytes()), &raw(&changed), None, NOW).expect("written");
    assert_eq!(
        String::from_utf8(written).expect("text"),
        r#"{"cookie":{"originalMaxAge":60000,"expires":"2026-01-01T00:01:00.000Z","path":"/"},"z":1.50,"big":1180591620717411303424,"a":{"y":1,"x":[1,{"b":2.0},3]},"new":true}"#
    );
}

#[test]
fn a_new_record_holds_the_cookie_as_express_session_writes_it() {
    let write = |remember| {
        let written = express().write(None, &raw(&json!({"a": 1})), remember, NOW).expect("written");
        String::from_utf8(written).expect("text")
    };
    assert_eq!(
        write(None),
        r#"{"cookie":{"originalMaxAge":null,"expires":null,"secure":true,"httpOnly":true,"path":"/","sameSite":"lax"},"a":1}"#
    );
    assert!(
        write(Some(Duration::from_secs(60))).starts_with(
            r#"{"cookie":{"originalMaxAge":60000,"expires":"2026-01-01T00:01:00.000Z","secure""#
        )
    );
}

#[test]
fn what_is_no_record_is_refused() {
    for wrong in
        ["", "null", "[]", "{}", r#"{"cookie":null}"#, r#"{"cookie":[]}"#, "{", r#"{"cookie":{}}x"#, "\u{80}"]
    {
        assert!(express().read(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let flask = format(json!({"format": "flask"}), json!(null));
    for (wrong, word) in [
        (&b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."[..], "pickle"),
        (b"(dp0\nS'a'\np1\nI1\ns.", "pickle"),
        (b"\x82\xa1a\x01", "neither"),
        (b"\x93\x01\x02\x03", "neither"),
        (b"\xdf\xff\xff\xff\xff", "neither"),
        (b"[1]", "neither"),
        (b"", "neither"),
    ] {
        let refused = flask.read(wrong).expect_err("no record");
        assert!(refused.0.contains(word), "{wrong:?}: {refused:?}");
    }
    let deep = [[0x81, 0xa1, b'a'].repeat(5000), vec![0xc0]].concat();
    assert!(flask.read(&deep).is_err());
}

#[test]
fn names_that_express_session_drops_are_refused_unless_they_are_there() {
    for name in ["cookie", "id", "save", "__proto__", "toString"] {
        assert!(express().write(None, &raw(&json!({ name: 1 })), None, NOW).is_err(), "{name}");
    }
    let stored = br#"{"cookie":{},"id":1}"#;
    assert!(express().write(Some(stored), &raw(&json!({"id": 1, "a": 2})), None, NOW).is_ok());
    assert!(express().write(Some(stored), &raw(&json!({"id": 1, "cookie": 2})), None, NOW).is_err());
}

#[test]
fn the_user_is_where_the_pointer_says() {
    let at = |pointer: &str| format(json!({"format": "express", "user_pointer": pointer}), json!(["s"]));
    let user = |pointer, data: Value| at(pointer).user(&raw(&data));
    let named = |id: &str, name: &str, roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Some(User { id: id.into(), name: name.into(), roles })
    };
    assert_eq!(user("/userId", json!({"userId": "u1"})), named("u1", "u1", &[]));
    assert_eq!(user("/userId", json!({"userId": 7})), named("7", "7", &[]));
    assert_eq!(user("/a~1b/c", json!({"a/b": {"c": "u1"}})), named("u1", "u1", &[]));
    let object = json!({"user": {"id": 5, "name": "Ann", "roles": ["admin", 3], "email": "a@b"}});
    assert_eq!(user("/user", object), named("5", "Ann", &["admin"]));
    for nobody in
        [json!(null), json!(true), json!([]), json!({}), json!({"name": "x"}), json!(""), json!({"id": {}})]
    {
        assert_eq!(user("/user", json!({"user": nobody})), None);
    }
    let ada = User { id: "u1".into(), name: "Ada".into(), roles: vec!["admin".into()] };
    for (pointer, expected) in [
        ("/userId", json!({"userId": "u1"})),
        ("/_user_id", json!({"_user_id": "u1"})),
        ("/passport/user", json!({"passport": {"user": "u1"}})),
        ("/user", json!({"user": {"id": "u1", "name": "Ada", "roles": ["admin"]}})),
    ] {
        let data = at(pointer).with_user(&raw(&json!({})), &ada).expect("placed");
        assert_eq!(serde_json::from_str::<Value>(data.get()).expect("JSON"), expected);
    }
    assert!(at("/a/b").with_user(&raw(&json!({"a": 1})), &ada).is_err());
}

#[test]
fn a_visitor_changes_neither_the_user_nor_what_is_not_writable() {
    let check = |settings: Value, before: Value, after: Value| {
        format(settings, json!(["s"])).check_visitors_change(&raw(&before), &raw(&after)).is_ok()
    };
    let user = || json!({"format": "express", "user_pointer": "/user/id"});
    assert!(check(user(), json!({"user": {"id": 1}}), json!({"user": {"id": 1}, "theme": "dark"})));
    assert!(!check(user(), json!({"user": {"id": 1}}), json!({"user": {"id": 1, "isAdmin": true}})));
    for after in [
        json!({}),
        json!({"user": {}}),
        json!({"user": {"id": 2}}),
        json!({"user": 1}),
        json!({"user": {"id": "1"}}),
    ] {
        assert!(!check(user(), json!({"user": {"id": 1}}), after.clone()), "{after}");
    }
    assert!(!check(user(), json!({}), json!({"user": {"id": 1}})));
    let some = || json!({"format": "express", "writable": ["/cart", "/form/name"]});
    assert!(check(some(), json!({"a": 1}), json!({"a": 1, "cart": [1]})));
    assert!(check(some(), json!({"form": {"name": 1, "b": 2}}), json!({"form": {"name": 2, "b": 2}})));
    assert!(!check(some(), json!({"form": {"name": 1, "b": 2}}), json!({"form": {"name": 1}})));
    assert!(!check(some(), json!({}), json!({"isAdmin": true})));
    assert!(!check(json!({"format": "express", "writable": []}), json!({}), json!({"a": 1})));
}

#[test]
fn values_that_json_lacks_stay_as_they_are_or_the_change_is_refused() {
    use rmpv::Value as Packed;
    let flask = format(json!({"format": "flask"}), json!(null));
    let pack = |value: &Packed| {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("packed");
        bytes
    };
    let moment = Packed::Ext(-1, 1_767_225_600_u32.to_be_bytes().to_vec());
    let item =
        |n: u8| Packed::Map(vec![("raw".into(), Packed::Binary(vec![n, 255])), ("n".into(), n.into())]);
    let stored = pack(&Packed::Map(vec![
        ("z".into(), Packed::Binary(vec![1, 2, 255])),
        ("at".into(), moment),
        ("nan".into(), f64::NAN.into()),
        ("odd".into(), Packed::Map(vec![(1.into(), 2.into())])),
        ("list".into(), Packed::Array(vec![item(1), item(2), item(3)])),
    ]));
    let shown: Value = serde_json::from_str(flask.read(&stored).expect("a record").data.get()).expect("JSON");
    assert_eq!(shown["z"], "AQL/");
    assert_eq!(shown["at"], "2026-01-01T00:00:00Z");
    let change = |change: &dyn Fn(&mut Value)| {
        let mut changed = shown.clone();
        change(&mut changed);
        flask.write(Some(&stored), &raw(&changed), None, NOW)
    };
    assert_eq!(change(&|_| ()).expect("written"), stored);
    let unpack = |bytes: &[u8]| rmpv::decode::read_value(&mut &*bytes).expect("MessagePack");
    let with_more = unpack(&change(&|data| data["list"][1]["n"] = json!(9)).expect("written"));
    assert_eq!(with_more["list"][1]["raw"], Packed::Binary(vec![2, 255]));
    assert_eq!(with_more["list"][1]["n"], Packed::from(9));
    let shorter = unpack(
        &change(&|data| drop(data["list"].as_array_mut().expect("a list").remove(0))).expect("written"),
    );
    assert_eq!(shorter["list"][0], item(2));
    for wrong in ["z", "at", "odd", "list"] {
        assert!(change(&|data| data[wrong] = json!("x")).is_err(), "{wrong}");
    }
    assert!(change(&|data| data["nan"] = json!(1)).is_err());
    assert!(change(&|data| data["list"] = json!([{"raw": "x", "n": 1}])).is_err());
    assert!(change(&|data| drop(data.as_object_mut().expect("an object").remove("z"))).is_ok());
}

proptest! {
    /// Whatever is changed to whatever: what is read again is what was written, in every form.
    #[test]
    fn what_is_written_is_read_again(before in document(), after in document(), packed: bool) {
        let (before, after) = (json!({"x": before, "y": 1}), json!({"x": after}));
        let serializer = if packed { "msgpack" } else { "json" };
        let flask = format(json!({"format": "flask", "serializer": serializer}), json!(null));
        for format in [flask, express()] {
            let first = format.write(None, &raw(&before), None, NOW).expect("written");
            let second = format.write(Some(&first), &raw(&after), None, NOW).expect("written");
            let data = format.read(&second).expect("a record").data;
            let (read, _) = crate::document::from_stored(data.get()).expect("JSON");
            let (expected, _) = crate::document::from_stored(&after.to_string()).expect("JSON");
            prop_assert_eq!(read, expected);
        }
    }
}
