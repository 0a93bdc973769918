use multidb::prelude::*;

#[derive(Model)]
#[model(apps = "bank")]
struct Account;

fn main() {
    let _ = <Account as Model>::NAME;
}
