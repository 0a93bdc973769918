use multidb::prelude::*;

#[derive(Model)]
#[model(app)]
struct Account;

fn main() {
    let _ = <Account as Model>::NAME;
}
