use multidb::prelude::*;

#[derive(Model)]
#[model(app = "bank", app = "shop")]
struct Account;

fn main() {
    let _ = <Account as Model>::NAME;
}
