//! One mistake a file, and the one error that the compiler gives for it.

#[test]
fn mistakes_are_told_in_one_sentence_and_accepted_shapes_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("../tests/ui/pass_*.rs");
    cases.compile_fail("../tests/ui/[!p]*.rs");
    cases.compile_fail("../tests/ui/p[!a]*.rs");
}
