//! What `once` stores is what was returned, and a key belongs to one function.

#![expect(clippy::option_option, clippy::zero_sized_map_values, reason = "they are what is stored")]
#![expect(clippy::items_after_statements, reason = "functions of one name stand where they are called")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use multidb::{Databases, Error, atomic, scope, transactional};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::once::with_tables;
use super::*;

/// What the first call returns and what the second one does.
fn kept<T: Serialize + DeserializeOwned>(key: &str, value: T) -> Result<(), Error> {
    atomic::<Item>().label("kept").once(key).run(|_: &mut H| Ok::<T, Error>(value)).map(drop)
}

fn repeated<T: Serialize + DeserializeOwned>(key: &str) -> T {
    atomic::<Item>().label("kept").once(key).run(|_: &mut H| -> Result<T, Error> { panic!("must not run") }).unwrap()
}

/// Calls twice with each value. NaN is told by its text.
fn all_are_kept<T: Serialize + DeserializeOwned + Clone + Debug>(values: impl IntoIterator<Item = T>) {
    for (at, value) in values.into_iter().enumerate() {
        let key = format!("{}{at}", std::any::type_name::<T>()).replace("multidb", "");
        let key = &key[key.len().saturating_sub(scope::KEY_LIMIT)..];
        kept(key, value.clone()).unwrap_or_else(|error| panic!("{value:?}: {error}"));
        assert_eq!(format!("{:?}", repeated::<T>(key)), format!("{value:?}"));
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Outer {
    Unit,
    #[serde(rename = "in progress")]
    New(Option<Option<i32>>),
    Pair(i32, Option<()>),
    Fields {
        #[serde(rename = "@type")]
        kind: Option<()>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Empty {}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Id(Option<Option<i64>>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Inner {
    #[serde(rename = "an option")]
    option: Option<Option<()>>,
    outer: Outer,
    empty: Empty,
    id: Id,
    sign: char,
    single: f32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Unit,
    New(Inner),
    Fields { option: Option<Option<u64>>, inner: Inner },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    Unit,
    New(Option<Option<i32>>),
    Pair(i32, Option<()>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Outer(Outer),
    Option(Option<Option<i32>>),
    Inner(Inner),
    Single(f32),
    Map(BTreeMap<u32, Option<()>>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    outer: Outer,
    #[serde(flatten)]
    rest: BTreeMap<String, Option<Option<i32>>>,
}

fn outers() -> Vec<Outer> {
    vec![
        Outer::Unit,
        Outer::New(Some(None)),
        Outer::New(None),
        Outer::Pair(1, Some(())),
        Outer::Fields { kind: Some(()) },
        Outer::Fields { kind: None },
    ]
}

fn inners() -> impl Iterator<Item = Inner> {
    outers().into_iter().map(|outer| Inner {
        option: Some(None),
        outer,
        empty: Empty {},
        id: Id(Some(None)),
        sign: '\'',
        single: 0.1,
    })
}

#[test]
fn a_repeat_tells_what_is_some_of_nothing_from_nothing() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    all_are_kept([Some(None), None, Some(Some(String::new()))]);
    all_are_kept([Some(()), None]);
    all_are_kept([Some(Some(Some(()))), Some(Some(None)), Some(None), None]);
    all_are_kept([vec![Some(Some(1)), Some(None), None]]);
    all_are_kept([BTreeMap::from([(1, Some(())), (2, None)])]);
    all_are_kept([(Some(None::<i32>), Some(()), ())]);
    all_are_kept([Ok(Some(None::<i32>)), Ok(None), Err(Some(()))]);
    all_are_kept([Id(Some(None)), Id(None)]);
    all_are_kept([Box::new(Some(None::<Box<str>>))]);
}

#[test]
fn a_repeat_gives_enums_and_structs_in_each_form_that_serde_has() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    all_are_kept(outers());
    all_are_kept(inners());
    let fields = inners().map(|inner| Tagged::Fields { option: Some(None), inner });
    all_are_kept(inners().map(Tagged::New).chain([Tagged::Unit]).chain(fields));
    all_are_kept([Adjacent::Unit, Adjacent::New(Some(None)), Adjacent::New(None), Adjacent::Pair(1, Some(()))]);
    let map = BTreeMap::from([(1, Some(())), (2, None)]);
    let others =
        [Some(None), None].map(Untagged::Option).into_iter().chain([Untagged::Single(0.1), Untagged::Map(map)]);
    all_are_kept(outers().into_iter().map(Untagged::Outer).chain(inners().map(Untagged::Inner)).chain(others));
    let rest = BTreeMap::from([("a b".to_owned(), Some(None)), ("c".to_owned(), None)]);
    all_are_kept(inners().zip(outers()).map(|(inner, outer)| Flat { inner, outer, rest: rest.clone() }));
}

#[test]
fn a_repeat_gives_numbers_texts_and_maps_as_they_were() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let odd = f64::from_bits(0x7ff8_0000_0000_0001);
    all_are_kept([-0.0, 0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 5e-324, 0.1 + 0.2, 1.0, odd]);
    all_are_kept([f32::MIN_POSITIVE, 0.1, f32::NAN, -0.0, f32::MAX, 16_777_217.0]);
    kept("bits", odd).unwrap();
    assert_eq!(repeated::<f64>("bits").to_bits(), odd.to_bits());
    all_are_kept([i128::MIN, i128::MAX, 0]);
    all_are_kept([u128::MAX, 0]);
    all_are_kept([u64::MAX]);
    all_are_kept([i64::MIN]);
    all_are_kept(['\0', '"', '\'', '\u{10ffff}', '\u{7f}']);
    all_are_kept(["\0\u{1b}\"\\ä\u{1f600}", "", "once1:~", "null"].map(str::to_owned));
    all_are_kept([BTreeMap::from([((1, 'a'), vec![1_u8])])]);
    all_are_kept([BTreeMap::from([(None, 1), (Some(()), 2)])]);
    all_are_kept([BTreeMap::from([(true, ())])]);
    all_are_kept([BTreeSet::from([Some(None), None, Some(Some(1))])]);
    all_are_kept([serde_json::json!({ "a": [null, 1, 1.0, "x", {}, [], true], "b c": { "@": u64::MAX } })]);
    all_are_kept([std::ffi::CString::new([0xff, 1, b'"']).unwrap()]);
    all_are_kept([std::time::Duration::new(1, 5)]);
    // They have another order each time.
    let map: HashMap<u32, HashSet<u32>> = (0..50).map(|n| (n, (0..n).collect())).collect();
    kept("map", map.clone()).unwrap();
    assert_eq!(repeated::<HashMap<u32, HashSet<u32>>>("map"), map);
}

/// Two variants that look the same: the first one is always read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Same {
    Wide(i64),
    Narrow(i32),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Hidden {
    None(Option<i32>),
    Unit,
}

#[test]
fn what_would_be_read_back_as_another_value_is_refused_before_the_commit() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    fn refused<T: Serialize + DeserializeOwned + Debug>(value: T) {
        let run = atomic::<Item>().label("refused").once("a").run(|_: &mut H| {
            put(1, 0)?;
            Ok::<_, Error>(value)
        });
        let error = run.expect_err("another value").to_string();
        assert!(error.contains("read back as another value"), "{error}");
    }
    refused(Same::Narrow(1));
    refused(Hidden::Unit);
    assert!(fixture.rows("default").is_empty());
    kept("wide", Same::Wide(1)).unwrap();
    kept("none", Hidden::None(None)).unwrap();
}

#[test]
fn a_result_that_was_stored_as_json_is_read() {
    let Some((fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let sql = r#"INSERT INTO multidb_once (id, function, body, result, created)
        VALUES ('old', 'kept', '', '{"in progress":5}', 1), ('none', 'kept', '', 'null', 1)"#;
    diesel::connection::SimpleConnection::batch_execute(&mut fixture.observer("default"), sql).unwrap();
    assert!(matches!(repeated("old"), Outer::New(Some(Some(5)))));
    assert_eq!(repeated::<Option<i32>>("none"), None);
}

#[test]
fn a_newer_version_reads_what_was_no_option_and_the_other_way_round() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    kept("plain", 5).unwrap();
    assert_eq!(repeated::<Option<i32>>("plain"), Some(5));
    kept("option", Some(5)).unwrap();
    assert_eq!(repeated::<i32>("option"), 5);
}

#[test]
fn bodies_that_json_writes_alike_are_different_bodies() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    fn call<B: Serialize>(key: &str, body: B) -> Result<(), Error> {
        atomic::<Item>().label("bodies").once((key, body)).run(|_: &mut H| Ok(()))
    }
    type Body = Option<Option<i32>>;
    let bodies: [(&str, Body, Body); 3] =
        [("a", Some(None), None), ("b", None, Some(None)), ("c", Some(Some(1)), Some(None))];
    for (key, body, other) in bodies {
        call(key, [body]).unwrap();
        call(key, [body]).unwrap();
        assert!(matches!(call(key, [other]), Err(Error::OnceMismatch { .. })), "{body:?} and {other:?}");
    }
    call("unit", Some(())).unwrap();
    assert!(matches!(call("unit", None::<()>), Err(Error::OnceMismatch { .. })));
    call("nan", f64::NAN).unwrap();
    call("nan", f64::NAN).unwrap();
    assert!(matches!(call("nan", f64::INFINITY), Err(Error::OnceMismatch { .. })));
    // Two maps, each with an order of its own.
    let map = || HashMap::from([(1, Some(None::<i32>)), (2, None), (3, Some(Some(1)))]);
    call("maps", map()).unwrap();
    call("maps", map()).unwrap();
}

/// Two functions of one name; gives what both return for the key.
fn namesakes(key: &str) -> [Result<String, Error>; 2] {
    let first = {
        #[transactional(Item, once = key)]
        fn pay(key: &str) -> Result<String, Error> {
            Ok("first".into())
        }
        pay(key)
    };
    let second = {
        #[transactional(Item, once = key)]
        fn pay(key: &str) -> Result<String, Error> {
            Ok("second".into())
        }
        pay(key)
    };
    [first, second]
}

#[test]
fn local_functions_of_one_name_do_not_share_their_keys() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let [first, second] = namesakes("a");
    assert_eq!(first.unwrap(), "first");
    let error = second.expect_err("another function");
    assert!(error.to_string().contains("with another text") && error.to_string().contains("rename"), "{error}");
    assert_eq!(namesakes("a")[0].as_ref().unwrap(), "first");
}

#[test]
fn local_functions_of_one_name_and_one_text_are_refused() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let first = {
        const RESULT: i32 = 1;
        #[transactional(Item, once = key)]
        fn pay(key: &str) -> Result<i32, Error> {
            Ok(RESULT)
        }
        pay("a")
    };
    let second = {
        const RESULT: i32 = 2;
        #[transactional(Item, once = key)]
        fn pay(key: &str) -> Result<i32, Error> {
            Ok(RESULT)
        }
        pay("a")
    };
    assert_eq!(first.unwrap(), 1);
    let error = second.expect_err("another function");
    assert!(error.is_config() && error.to_string().contains("rename one of them"), "{error}");
    assert!(error.to_string().contains("exact.rs"), "{error}");
}

#[test]
fn local_types_of_one_name_do_not_share_the_keys_of_their_methods() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let first = {
        struct Card;
        impl Card {
            #[transactional(Item, once = "a")]
            fn pay(&self) -> Result<i32, Error> {
                Ok(1)
            }
        }
        Card.pay()
    };
    let second = {
        struct Card;
        impl Card {
            #[transactional(Item, once = "a")]
            fn pay(&self) -> Result<i32, Error> {
                Ok(2)
            }
        }
        Card.pay()
    };
    assert_eq!(first.unwrap(), 1);
    assert!(second.is_err(), "{second:?}");
}

fn debits(key: &str) -> Result<&'static str, Error> {
    atomic::<Item>().once(key).run(|_: &mut H| Ok("debited".to_owned())).map(|_| "debited")
}

fn credits(key: &str) -> Result<String, Error> {
    atomic::<Item>().once(key).run(|_: &mut H| Ok("credited".to_owned()))
}

#[test]
fn closures_without_a_label_have_the_keys_of_the_function_around_them() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    debits("a").unwrap();
    debits("a").unwrap();
    let error = credits("a").expect_err("another function");
    assert!(matches!(error, Error::OnceMismatch { .. }) && error.to_string().contains("debits"), "{error}");
    assert_eq!(credits("b").unwrap(), "credited");
}

#[test]
fn a_second_closure_in_a_function_needs_a_label() {
    let Some((_fixture, databases)) = with_tables() else { return };
    let _entered = databases.enter();
    let run = |second: bool| {
        if second {
            return atomic::<Item>().once("a").run(|_: &mut H| Ok::<_, Error>(2));
        }
        atomic::<Item>().once("a").run(|_: &mut H| Ok::<_, Error>(1))
    };
    assert_eq!(run(false).unwrap(), 1);
    let error = run(true).expect_err("another closure");
    assert!(error.is_config() && error.to_string().contains("`label`"), "{error}");
    assert_eq!(run(false).unwrap(), 1);
    let labelled = |databases: &Databases| {
        let _entered = databases.enter();
        atomic::<Item>().label("second").once("b").run(|_: &mut H| Ok::<_, Error>(2))
    };
    assert_eq!(labelled(&databases).unwrap(), 2);
}
