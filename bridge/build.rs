//! The console's files are embedded: when some come or go, the program is built anew.

fn main() {
    println!("cargo::rerun-if-changed=console");
    println!("cargo::rerun-if-changed=client");
}
