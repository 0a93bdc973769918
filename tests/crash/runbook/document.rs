//! The runbook as a text: its blocks, and what must hold for all of them.

const TEXT: &str = include_str!("../../../docs/OPERATIONS.md");

/// What runs the blocks.
const SOURCES: [&str; 8] = [
    include_str!("mod.rs"),
    include_str!("branches.rs"),
    include_str!("heuristics.rs"),
    include_str!("lost.rs"),
    include_str!("outcomes.rs"),
    include_str!("own_rows.rs"),
    include_str!("sessions.rs"),
    include_str!("set_up.rs"),
];

const MARKER: &str = "<!-- runbook: ";
const NOT_RUN: &str = "not run, because ";

/// A block of the runbook, and what it prints.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The marker in front of it.
    marker: Option<&'static str>,
    language: &'static str,
    text: String,
    prints: Option<String>,
}

impl Block {
    /// The block with values for its placeholders.
    pub(super) fn filled(&self, fill: super::Fill<'_>) -> String {
        let mut text = self.text.clone();
        for (name, value) in fill {
            text = text.replace(&format!("<{name}>"), value);
        }
        assert!(!placeholders(&text), "a placeholder is left in: {text}");
        text
    }

    /// The names of the columns that it prints.
    pub(super) fn columns(&self) -> Option<Vec<String>> {
        self.prints.as_ref().and_then(|prints| prints.lines().next()).map(cells)
    }
}

fn cells(line: &str) -> Vec<String> {
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn placeholders(text: &str) -> bool {
    text.split('<').skip(1).any(|rest| rest.starts_with(|letter: char| letter.is_ascii_lowercase()))
}

/// All blocks but those that show what others print.
fn blocks() -> Vec<Block> {
    let (mut blocks, mut before): (Vec<Block>, &str) = (Vec::new(), "");
    let mut lines = TEXT.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
            match (language, blocks.last_mut()) {
                ("text", Some(block)) if before == "```" => block.prints = Some(text),
                _ => {
                    let marker = before.strip_prefix(MARKER).and_then(|rest| rest.strip_suffix(" -->"));
                    blocks.push(Block { marker, language, text, prints: None });
                }
            }
            before = "```";
        } else {
            before = line;
        }
    }
    blocks
}

/// The block of this name.
#[track_caller]
pub(super) fn block(name: &str) -> Block {
    let found = blocks().into_iter().find(|block| block.marker == Some(name));
    found.unwrap_or_else(|| panic!("the runbook has no block {name}"))
}

/// The text without its line breaks.
pub(super) fn words() -> String {
    TEXT.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_block_of_the_runbook_is_run_or_says_why_not() {
    let mut names = Vec::new();
    for block in blocks() {
        let marker = block.marker.unwrap_or_else(|| panic!("no marker stands before: {}", block.text));
        if let Some(why) = marker.strip_prefix(NOT_RUN) {
            assert!(!why.is_empty() && block.language != "sql", "{marker}");
            continue;
        }
        assert_eq!(block.language, "sql", "{marker}");
        let quoted = format!("\"{marker}\"");
        assert!(SOURCES.iter().any(|source| source.contains(&quoted)), "no test runs the block {marker}");
        assert!(!names.contains(&marker), "two blocks are called {marker}");
        names.push(marker);
        if let Some(prints) = &block.prints {
            let shown: Vec<usize> = prints.lines().map(|line| cells(line).len()).collect();
            assert!(shown.len() > 1 && shown.iter().all(|cells| *cells == shown[0]), "{marker} prints: {prints}");
        }
    }
    assert!(names.len() > 20, "{names:?}");
}

#[test]
fn every_link_of_the_runbook_leads_to_a_heading() {
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter)).collect::<String>()
    };
    let headings: Vec<String> =
        TEXT.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line).replace(' ', "-")).collect();
    let links = TEXT.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap());
    for link in links {
        assert!(headings.iter().any(|heading| heading == link), "{link} leads nowhere: {headings:?}");
    }
}

#[test]
fn every_section_says_how_it_looks_why_it_is_so_and_what_to_do() {
    // What is no state.
    let others =
        ["What do you see?", "Before the start", "Errors in the application", "Left, and why", "Exhausted servers"];
    let sections = TEXT.split("\n##").skip(1).map(|section| section.trim_start_matches('#').trim());
    for section in sections {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        if !others.contains(&title) {
            for part in ["**Looks.**", "**Why.**", "**Do.**"] {
                assert_eq!(text.matches(part).count(), 1, "{title}: {part}");
            }
        }
    }
}
