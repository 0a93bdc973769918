use multidb::scope::on_commit;

fn main() {
    let mut seen = std::collections::HashSet::new();
    on_commit(move || seen.insert(1));
}
