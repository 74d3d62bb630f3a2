//! The scanner on small sources, the report on small catalogues, and the real catalogue's shape.

use super::scan::{Source, scan, tags};
use super::*;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// Citations as "number place", in the order of the files.
fn places(sources: &[Source]) -> Vec<String> {
    let scan = scan(sources);
    assert_eq!(scan.problems, Vec::<String>::new());
    let show = |citation: &Citation| match &citation.place {
        Place::Implementation => format!("{} code", citation.id),
        Place::Support => format!("{} support", citation.id),
        Place::Test(name) => format!("{} test {name}", citation.id),
    };
    scan.citations.iter().map(show).collect()
}

fn rust(text: &str) -> Vec<String> {
    places(&[source("mqtt/src/a.rs", text)])
}

fn python(text: &str) -> Vec<String> {
    places(&[source("tests/wire/test_a.py", text)])
}

fn catalogue(v5: &str, v311: &str) -> Catalogue {
    let mut catalogue = Catalogue::default();
    catalogue.add(Edition::V5, &format!("statement = [{v5}]")).expect("MQTT 5.0 rows");
    catalogue.add(Edition::V311, &format!("statement = [{v311}]")).expect("3.1.1 rows");
    catalogue
}

fn states(report: &Report) -> Vec<State> {
    report.statements.iter().map(|line| line.state).collect()
}

#[test]
fn a_tag_names_its_edition_and_several_share_a_bracket() {
    let found: Vec<String> = tags("// [MQTT-3.1.2-6], [MQTT311-3.1.2-2, MQTT-4.7.0-1] and [x]")
        .into_iter()
        .map(|tag| tag.expect("a citation").to_string())
        .collect();
    assert_eq!(found, ["MQTT-3.1.2-6", "MQTT311-3.1.2-2", "MQTT-4.7.0-1"]);
}

#[test]
fn a_mistyped_tag_is_an_error_and_prose_is_none() {
    for typo in
        ["[MQTT-3.1.2.6]", "[MQTT-3.1-6]", "[MQTT-3.1.2-6..8]", "[MQTT-3.1.2-", "[MQTT-1.2.3-+4]"]
    {
        let found = tags(typo);
        assert!(matches!(found.as_slice(), [Err(_)]), "{typo}: {found:?}");
    }
    assert!(tags("[MQTT] [MQTT-x.y.z-n] MQTT-3.1.2-6").is_empty());
}

#[test]
fn rust_tells_a_test_from_the_code_it_tests() {
    let found = rust(
        r#"
        // [MQTT-1.5.4-1]
        pub fn check() {
            if true { refuse(); } // [MQTT-1.5.4-2]
        }

        #[cfg(test)]
        mod tests {
            use super::{check, refuse};

            // [MQTT-1.5.4-3]
            /// The claim.
            #[test]
            #[should_panic(expected = "}")]
            fn refuses_nul() {
                let brace = '{'; // [MQTT-1.5.5-1]
                fn inner() {} // [MQTT-1.5.7-1]
                let raw = r"}" ; let other = "{\"{";
            }

            fn helper<'a>(text: &'a [u8; 4]) { } // [MQTT-2.1.3-1]

            const TABLE: &str = "[MQTT-2.2.1-2]";
        }

        fn after() {} // [MQTT-2.2.1-3]
        "#,
    );
    assert_eq!(
        found,
        [
            "MQTT-1.5.4-1 code",
            "MQTT-1.5.4-2 code",
            "MQTT-1.5.4-3 test refuses_nul",
            "MQTT-1.5.5-1 test refuses_nul",
            "MQTT-1.5.7-1 test refuses_nul",
            "MQTT-2.1.3-1 test helper",
            "MQTT-2.2.1-2 test tests",
            "MQTT-2.2.1-3 code",
        ]
    );
}

#[test]
fn rust_tests_need_no_test_module() {
    let found = rust(
        "
        #[tokio::test(flavor = \"current_thread\")]
        async fn pings() { /* [MQTT-3.12.4-1] } */ }
        proptest! {
            #[test]
            fn matches(topic in \"[a/]{1,9}\") {
                // [MQTT-4.7.1-1]
            }
        }
        #[cfg(not(test))]
        fn real() {} // [MQTT-4.7.1-2]
        #[cfg(all(test, unix))]
        impl Fake { fn answer(&self) {} } // [MQTT-4.7.2-1]
        fn array() -> [u8; 2] { [0; 2] } // [MQTT-4.7.3-1]
        ",
    );
    assert_eq!(
        found,
        [
            "MQTT-3.12.4-1 test pings",
            "MQTT-4.7.1-1 test matches",
            "MQTT-4.7.1-2 code",
            "MQTT-4.7.2-1 test answer",
            "MQTT-4.7.3-1 code",
        ]
    );
}

#[test]
fn a_test_module_in_its_own_file_is_test_code() {
    let helper = "fn helper() {} // [MQTT-4.7.1-1]";
    let found = places(&[
        source("mqtt/src/lib.rs", "#[cfg(test)]\nmod tests;\nmod topic;\n"),
        source("mqtt/src/tests.rs", helper),
        source("mqtt/src/tests/deep.rs", helper),
        source("mqtt/src/topic.rs", "#[cfg(test)] mod naive;"),
        source("mqtt/src/topic/naive.rs", helper),
        source("mqtt/src/naive.rs", helper),
        source("mqtt/src/gated.rs", "#![cfg(test)]\n// [MQTT-4.7.1-2]"),
        source("tests/e2e.rs", helper),
    ]);
    assert_eq!(
        found,
        [
            "MQTT-4.7.1-1 test helper",
            "MQTT-4.7.1-1 test helper",
            "MQTT-4.7.1-1 test helper",
            "MQTT-4.7.1-1 code",
            "MQTT-4.7.1-2 test gated.rs",
            "MQTT-4.7.1-1 test helper",
        ]
    );
}

#[test]
fn python_attributes_comments_decorators_and_docstrings() {
    let found = python(
        r#"
# [MQTT-1.5.4-1]
TABLE = [
    "x",
]
# [MQTT-1.5.4-2]
@pytest.mark.parametrize(
    "level", [
        3,  # [MQTT-1.5.4-3]
])
# [MQTT-1.5.5-1]
async def test_connect(
    level,
) -> None:
    """[MQTT-1.5.7-1]

not indented: [MQTT-2.1.3-1]
    """
    if level:

        pass  # [MQTT-2.2.1-2]
# [MQTT-2.2.1-3]
    assert True
    # [MQTT-2.2.1-4]

# [MQTT-2.2.1-5]
class TestWill:
    def test_delay(self):
        s = 'it''s " # ('  # [MQTT-2.2.1-6]

    def helper(self):
        pass  # [MQTT-2.2.2-1]
"#,
    );
    assert_eq!(
        found,
        [
            "MQTT-1.5.4-1 support",
            "MQTT-1.5.4-2 test test_connect",
            "MQTT-1.5.4-3 test test_connect",
            "MQTT-1.5.5-1 test test_connect",
            "MQTT-1.5.7-1 test test_connect",
            "MQTT-2.1.3-1 test test_connect",
            "MQTT-2.2.1-2 test test_connect",
            "MQTT-2.2.1-3 test test_connect",
            "MQTT-2.2.1-4 test test_connect",
            "MQTT-2.2.1-5 support",
            "MQTT-2.2.1-6 test test_delay",
            "MQTT-2.2.2-1 support",
        ]
    );
}

#[test]
fn python_comment_above_one_test_is_not_in_the_test_before() {
    let found = python(
        "def test_a():\n    pass\n# [MQTT-1.5.4-1]\ndef test_b():\n    pass\n\n\n# [MQTT-1.5.4-2]\n",
    );
    assert_eq!(found, ["MQTT-1.5.4-1 test test_b", "MQTT-1.5.4-2 support"]);
}

#[test]
fn javascript_attributes_to_the_call_around_or_below() {
    let text = "// [MQTT-1.5.4-1]\n\nconst a = 1;\n// [MQTT-1.5.4-2]\ntest('takes over', async () => {\n  // [MQTT-1.5.4-3]\n});\n";
    let found = places(&[source("tests/js/a.test.mjs", text)]);
    assert_eq!(
        found,
        ["MQTT-1.5.4-1 support", "MQTT-1.5.4-2 test takes over", "MQTT-1.5.4-3 test takes over",]
    );
}

#[test]
fn the_simulator_is_neither_broker_nor_test() {
    let found = places(&[source("sim/src/oracle.rs", "fn order() {} // [MQTT-4.6.0-5]")]);
    assert_eq!(found, ["MQTT-4.6.0-5 support"]);
}

#[test]
fn a_server_statement_without_test_or_reason_is_missing() {
    let catalogue = catalogue(
        r#"{ id = "MQTT-1.5.4-1", who = "both", gist = "tested" },
           { id = "MQTT-1.5.4-2", who = "server", gist = "only implemented" },
           { id = "MQTT-1.5.4-3", who = "server", gist = "excused", reason = "later" },
           { id = "MQTT-1.5.5-1", who = "client", gist = "theirs" }"#,
        "",
    );
    let text = "fn a() {} // [MQTT-1.5.4-2]\n#[test]\nfn b() {} // [MQTT-1.5.4-1]\n";
    let report = Report::new(&catalogue, scan(&[source("mqtt/src/a.rs", text)]));
    assert_eq!(states(&report), [State::Tested, State::Missing, State::Excused, State::ClientOnly]);
    assert!(!report.is_clean());
    assert_eq!((report.summary.missing, report.summary.problems), (1, 0));
    let missing = report.table(true);
    assert!(missing.contains("only implemented | mqtt/src/a.rs:1 | MISSING"), "{missing}");
    assert!(!missing.contains("excused"), "{missing}");
    assert!(report.table(false).contains("| b |"));
    assert!(report.json().contains("\"state\": \"client_only\""));
}

#[test]
fn a_3_1_1_statement_is_covered_when_all_that_say_the_same_are() {
    let v5 = r#"{ id = "MQTT-4.3.2-1", who = "both", gist = "a" },
                { id = "MQTT-4.3.2-2", who = "both", gist = "b" },
                { id = "MQTT-6.0.0-1", who = "both", gist = "c", reason = "later" }"#;
    let v311 = r#"{ id = "MQTT-4.3.2-1", who = "both", gist = "d", same_as = ["MQTT-4.3.2-1", "MQTT-4.3.2-2"] },
                  { id = "MQTT-6.0.0-1", who = "both", gist = "e", same_as = ["MQTT-6.0.0-1"] }"#;
    let catalogue = catalogue(v5, v311);
    let of = |text: &str| {
        let report = Report::new(&catalogue, scan(&[source("tests/a.rs", text)]));
        states(&report)[3..].to_vec()
    };
    let one = "#[test] fn a() {} // [MQTT-4.3.2-1]\n";
    let both = "#[test] fn a() {} // [MQTT-4.3.2-1] [MQTT-4.3.2-2]\n";
    let own = "#[test] fn a() {} // [MQTT311-4.3.2-1]\n";
    assert_eq!(of(one), [State::Missing, State::Excused]);
    assert_eq!(of(both), [State::TestedAsSame, State::Excused]);
    assert_eq!(of(own), [State::Tested, State::Excused]);
}

#[test]
fn an_unknown_number_and_an_overtaken_reason_are_problems() {
    let catalogue = catalogue(
        r#"{ id = "MQTT-1.5.4-1", who = "server", gist = "a", reason = "later" }"#,
        r#"{ id = "MQTT-1.5.3-1", who = "client", gist = "b" }"#,
    );
    let text = "#[test]\nfn a() {} // [MQTT-1.5.4-1] [MQTT-1.5.3-1] [MQTT-1.5.4-9] [MQTT-1.5-9]\n";
    let report = Report::new(&catalogue, scan(&[source("tests/a.rs", text)]));
    assert!(!report.is_clean());
    assert_eq!(
        report.problems,
        [
            "tests/a.rs:2: [MQTT-1.5-9] is no citation",
            "tests/a.rs:2: there is no statement MQTT-1.5.3-1 in MQTT 5.0; MQTT311-1.5.3-1 would cite 3.1.1",
            "tests/a.rs:2: there is no statement MQTT-1.5.4-9",
            "MQTT-1.5.4-1 has a reason although a test covers it: delete it",
        ]
    );
}

#[test]
fn a_catalogue_out_of_order_or_with_a_dangling_same_as_is_refused() {
    let add = |edition, rows: &str| {
        Catalogue::default().add(edition, &format!("statement = [{rows}]")).is_err()
    };
    let row = |id: &str| format!("{{ id = \"MQTT-{id}\", who = \"both\", gist = \"g\" }},");
    assert!(add(Edition::V5, &(row("1.5.4-10") + &row("1.5.4-9"))));
    assert!(add(Edition::V5, &(row("1.5.4-1") + &row("1.5.4-1"))));
    assert!(!add(Edition::V5, &(row("1.5.4-9") + &row("1.5.4-10"))));
    let dangling =
        r#"{ id = "MQTT-1.5.3-1", who = "both", gist = "g", same_as = ["MQTT-1.5.4-1"] }"#;
    assert!(add(Edition::V311, dangling));
}

#[test]
fn the_lists_hold_as_many_statements_as_the_standards() {
    let catalogue = Catalogue::load(&repository_root().join("docs/statements")).expect("the lists");
    let count = |edition, chapter| {
        let ids = catalogue.statements.keys();
        ids.filter(|id| id.edition == edition && id.section[0] == chapter).count()
    };
    // Appendix B of each standard, by chapter: 251 and 141 in all. Chapter 5 has none.
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(|n| count(Edition::V5, n)), [5, 7, 175, 60, 0, 4, 0]);
    assert_eq!([1, 2, 3, 4, 5, 6, 7].map(|n| count(Edition::V311, n)), [3, 9, 95, 26, 0, 4, 4]);
    assert!(catalogue.statements.values().all(|s| (1..=100).contains(&s.gist.len())));
    // Numbers run without a gap, except that MQTT 5.0 has no 2.2.1-1.
    for id in catalogue.statements.keys().filter(|id| id.n > 1) {
        let before = StatementId { n: id.n - 1, ..id.clone() };
        let known = catalogue.statements.contains_key(&before);
        assert!(known || before.to_string() == "MQTT-2.2.1-1", "no {before}");
    }
}
