use multidb::prelude::*;

#[derive(Model)]
enum Account {}

fn main() {
    let _ = <Account as Model>::NAME;
}
